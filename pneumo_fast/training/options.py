"""Options of ``train``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from pneumo_fast.errors import ConfigError
from pneumo_fast.vocabulary import AmpDtype, Augment, EngineName, Monitor, Optimizer, OrderName, ScheduleName

LEAST: Final = {
    "epochs": 1, "batch_size": 2, "accumulate": 1, "window": 1, "patience": 1, "folds": 2, "limit_images": 2,
    "max_skipped": 0, "weight_decay": 0, "warmup_epochs": 0,
}  # fmt: skip
"""Least values of training's options."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """What to train on and how."""

    datasets: tuple[Path, ...] = (Path("dataset"),)
    """Dataset folders that ``convert`` wrote, one or several."""
    shares: tuple[float, ...] = ()
    """Each dataset's share of an epoch, above 0; by default every training image comes once."""
    out: Path = Path("run")
    """Run folder to write."""
    epochs: int = 10
    """Passes over the training images, at least 1."""
    batch_size: int | Literal["auto"] = 64
    """Images in a batch, at least 2; ``auto`` is the largest that a GPU's memory has room for."""
    accumulate: int = 1
    """Parts in which a batch goes through the model, to save memory; the step is that of the whole batch."""
    model: str = "resnet18"
    """A torchvision classifier that begins with a convolution."""
    weights: str = "none"
    """``none``; ``default``, torchvision's pretrained ones, which are fetched; or the path of a file of weights."""
    optimizer: Optimizer = "adam"
    """``adam`` or ``adamw``."""
    lr: float = 1e-4
    """Highest learning rate, above 0."""
    weight_decay: float = 0.0
    """At least 0; in the gradient with ``adam``, apart from it with ``adamw``."""
    schedule: ScheduleName = "none"
    """``none``, ``cosine`` or ``onecycle`` (see :mod:`pneumo_fast.training.learner`)."""
    warmup_epochs: float = 0.0
    """Epochs in which the learning rate rises, at least 0; not with ``onecycle``, which has a rise of its own."""
    clip_norm: float | None = None
    """Longest gradient, above 0; None lets it be as long as it is."""
    ema: float | None = None
    """Decay, in (0, 1), of a running average of the weights, which is then validated and kept."""
    label_smoothing: float = 0.0
    """In [0, 1): labels become half of it and 1 minus half of it."""
    pos_weight: float | Literal["auto"] = "auto"
    """Weight of a positive image in the loss, above 0; ``auto`` is negatives / positives of the train split."""
    order: OrderName = "shuffle"
    """``shuffle``, ``weighted`` or ``windowed`` (see :class:`pneumo_fast.loading.loader.Loader`)."""
    balance: str = "label"
    """Column of the index whose values ``order weighted`` makes equally frequent."""
    window: int = 8
    """Shards, at least 1, that ``order windowed`` shuffles together."""
    loader: EngineName = "auto"
    """How batches get to the device; the batches are the same."""
    resident_share: float = 0.0
    """Share of the device's memory, in [0, 1], up to which ``loader auto`` keeps all training images there."""
    augment: Augment = "none"
    """How far training images are changed (see :data:`pneumo_fast.loading.augment.RANGES`)."""
    flip: bool = False
    """Whether half of them are mirrored as well; not without ``augment``."""
    amp: bool = False
    """Automatic mixed precision, where the device gains from it."""
    amp_dtype: AmpDtype | None = None
    """Data type of mixed precision; by default float16 on a GPU, bfloat16 on a CPU that gains from it."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    compile: bool = False
    """Let ``torch.compile`` make the model faster; it takes a minute first."""
    monitor: Monitor = "auroc"
    """The validation figure that decides which epoch is the best: ``auroc``, ``ap``, ``loss`` or ``accuracy``."""
    patience: int | None = None
    """Epochs without a better figure after which training stops, at least 1; None goes on to the end."""
    folds: int | None = None
    """Divide training and validation images anew, by patient, into so many parts, at least 2."""
    fold: int | None = None
    """Which of these parts, from 1, is for validation."""
    limit_images: int | None = None
    """Use only so many images of each split, at least 2, for a quick try."""
    max_skipped: int = 20
    """Steps of an epoch that may be left out for a gradient that is not finite, at least 0."""
    checkpoint_minutes: float = 10.0
    """How often, above 0, the state is saved within an epoch."""
    tensorboard: bool = False
    """Write TensorBoard's event files as well (extra ``tensorboard``)."""
    profile: bool = False
    """Write a trace of a few steps of the first epoch."""
    sync_bn: bool = False
    """On GPUs, let BatchNorm use the whole batch of several processes."""
    seed: int = 0
    """Chooses the initial weights, the order of the images and the folds."""
    resume: bool = False
    """Go on exactly where the run in ``out`` stopped, or start where there is none."""
    overwrite: bool = False
    """Replace a run that lies in ``out``."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises
        ------
        ConfigError
            If a value is out of its range.
        """
        if not self.datasets or (self.shares and len(self.shares) != len(self.datasets)):
            raise ConfigError(
                f"{len(self.datasets)} datasets with {len(self.shares)} shares: one share for each expected"
            )
        for name, least in LEAST.items():
            if (value := getattr(self, name)) not in {None, "auto"} and not value >= least:
                raise ConfigError(f"{name.replace('_', '-')} {value}: at least {least} expected")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr {self.lr}: a number above 0 expected")
        if not -(2**63) <= self.seed < 2**64:
            raise ConfigError(f"seed {self.seed}: a whole number of 64 bits expected")
        if self.pos_weight != "auto" and not 0 < self.pos_weight < math.inf:
            raise ConfigError(f"pos-weight {self.pos_weight}: auto, or a number above 0 expected")
        if self.resume and self.overwrite:
            raise ConfigError("resume and overwrite exclude each other: give one of them")
        self._check_batches()
        self._check_optimizer()
        if self.shares and (self.folds or self.limit_images):
            raise ConfigError("shares with folds or limit-images: give one of them")
        if (self.folds is None) != (self.fold is None) or not 1 <= (self.fold or 1) <= (self.folds or 1):
            raise ConfigError(f"folds {self.folds} with fold {self.fold}: both, and one from 1 to folds, expected")

    def _check_optimizer(self) -> None:
        for name, names in (("optimizer", Optimizer), ("schedule", ScheduleName), ("monitor", Monitor)):
            if (value := getattr(self, name)) not in get_args(names):
                raise ConfigError(f"{name} {value!r} is unknown: use one of {', '.join(get_args(names))}")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ConfigError(f"clip-norm {self.clip_norm}: a number above 0 expected")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"ema {self.ema}: a number between 0 and 1 expected")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label-smoothing {self.label_smoothing}: a number from 0 to below 1 expected")
        if not self.checkpoint_minutes > 0:
            raise ConfigError(f"checkpoint-minutes {self.checkpoint_minutes}: a number above 0 expected")
        if self.schedule == "onecycle" and self.warmup_epochs:
            raise ConfigError("warmup-epochs with schedule onecycle, which has a rise of its own: give one of them")

    def _check_batches(self) -> None:
        if self.order == "sequential":
            raise ConfigError("order sequential is not for training: use shuffle, weighted or windowed")
        if not 0 <= self.resident_share <= 1:
            raise ConfigError(f"resident-share {self.resident_share}: a share from 0 to 1 expected")
        if self.augment not in get_args(Augment):
            raise ConfigError(f"augment {self.augment!r} is unknown: use one of {', '.join(get_args(Augment))}")
        if self.flip and self.augment == "none":
            raise ConfigError("flip without augment: give --augment light or strong as well")
