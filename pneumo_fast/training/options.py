"""Options of ``train``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pneumo_fast.configuration import Device, Option, check, check_resume, options_of
from pneumo_fast.conversion.options import COUNT_OR_SHARE
from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.options import seed_option
from pneumo_fast.training.recipes import RECIPES
from pneumo_fast.vocabulary import (
    LARGEST_SIZE,
    AuxiliaryTask,
    Decode,
    EngineName,
    Monitor,
    RecipeName,
    ScheduleName,
    TrainOrder,
)

BATCH_SIZE = 64
"""Images in a batch, where nothing else is asked for and an epoch has as many."""
NEEDS: Final = {
    "teach_boxes_weight": ("teach", "boxes"), "teach_classes_weight": ("teach", "classes"),
    "teach_stage": ("teach", "boxes"), "window": ("order", "windowed"), "balance": ("order", "weighted"),
}  # fmt: skip
"""Options that take effect only with a certain value of another option."""
DIRECT: Final = ("images", "labels", "class_info", "groups", "size", "test_fraction", "decode", "max_rejects", "cache")
"""Options of training straight from images: those of ``convert``, and where to keep what it converts."""
OF_CONVERT: Final = "that of convert"
Direct = partial(Option, default="none", decides=False, repeated=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """What to train on and how."""

    # fmt: off
    datasets: Annotated[tuple[Path, ...], Option(
        "Dataset folders, one or several.", positional=True, recorded="dataset"
    )] = (Path("dataset"),)
    shares: Annotated[tuple[float, ...], Option(
        "Each dataset's share of an epoch, in their order.",
        "Above 0; by default every training image comes once.",
        name="share", default="all", group="Data",
    )] = ()
    augment: Annotated[Literal["none", "light", "strong"], Option(
        "Strength of augmentation; preview it with show.", "The ranges are in [augmentation.md](augmentation.md)."
    )] = "none"
    flip: Annotated[bool, Option("Mirror half of them as well.", "Not without `--augment`.")] = False
    order: Annotated[TrainOrder, Option(
        "Order of the training images.", "`weighted` draws both classes equally often; `pos_weight` `auto` is then 1."
    )] = "shuffle"
    balance: Annotated[str, Option(
        "Column that --order weighted balances.", "Its values become equally frequent."
    )] = "label"
    window: Annotated[int, Option("Shards that --order windowed shuffles together.", least=1)] = 8
    folds: Annotated[int | None, Option(
        "Patient-grouped cross-validation folds.",
        "The images of training and validation are divided, and `evaluate` uses the same part. Mean and standard "
        "deviation stay those of the dataset. Without `--fold` every fold is trained, into `OUT/fold-1` and so on.",
        least=2, default="off",
    )] = None
    fold: Annotated[int | None, Option(
        "Train one fold alone: the one to validate on, from 1.", default="every fold"
    )] = None
    limit_images: Annotated[int | None, Option(
        "Use only the first N images of each split.", "For a quick try. Of several datasets in proportion.",
        least=2, default="all"
    )] = None
    images: Annotated[Path | None, Direct(
        "Folder with DICOM files: train straight from them.",
        "DATASET is then the folder to write tables into; pixels stay in the files ([direct.md](direct.md)). Other "
        "options of `convert` are given to `convert --layout source`, and DATASET here.",
        group="Straight from images",
    )] = None
    labels: Annotated[Path | None, Direct("Label table of these files (CSV).")] = None
    class_info: Annotated[Path | None, Direct("RSNA's table of three classes (CSV).")] = None
    groups: Annotated[Path | None, Direct("RSNA's mapping file (JSON): the patient of each image.")] = None
    size: Annotated[int | None, Direct(
        "Height and width of the images, in pixels.", default=OF_CONVERT, least=16, most=LARGEST_SIZE, unit="pixels"
    )] = None
    test_fraction: Annotated[float | None, Direct("Share of the images for a test split.", least=0, below=1)] = None
    decode: Annotated[Decode | None, Direct("JPEG at reduced scale, in full, or by a GPU.", default=OF_CONVERT)] = None
    max_rejects: Annotated[int | float | None, Direct(
        "Unreadable files allowed: a count, or a share as 0.01 or 1%.",
        "The limit holds once while headers are read, and again for each split while pixels are read.",
        least=0, range=COUNT_OR_SHARE, default="1%",
    )] = None
    cache: Annotated[Path | None, Direct(
        "Dataset folder to convert them into first.",
        "Where there is room on the disk, and they will be used again: a dataset as `convert` makes it.",
    )] = None
    model: Annotated[str, Option(
        "A classifier of torchvision.", "Any that begins with a convolution.", group="Model"
    )] = "resnet18"
    weights: Annotated[str, Option(
        "none, default (pretrained) or a file.",
        "Pretrained ones are torchvision's, downloaded on first use; the first convolution is summed over its colour "
        "channels.",
    )] = "none"
    recipe: Annotated[RecipeName, Option(
        "Set of options to start from; those given singly override it.",
        "See [recipes.md](recipes.md). From Python `pneumo_fast.recipe(NAME, ...)`. With `--resume` that of the run.",
        decides=False, group="Optimization",
    )] = "reference"
    epochs: Annotated[int, Option("Passes over the training images.", least=1, decides=False)] = 10
    half_size_epochs: Annotated[int | None, Option(
        "Progressive resizing: the first N epochs use half the size.",
        "Means of 2 x 2 pixels, which take less time; validation uses images of full size.",
        least=1, default="none",
    )] = None
    batch_size: Annotated[int | Literal["auto"] | None, Option(
        "Images in a batch: a number, or auto for the most that fit on the GPU.",
        "`auto` leaves a tenth of the memory free; it is tried at the start, recorded, and kept when resuming. It is "
        "never larger than an epoch, but the largest batch is not always the one that learns best.",
        least=2, default=f"{BATCH_SIZE}, or an epoch that has fewer", recorded="batch-size",
    )] = None
    accumulate: Annotated[int, Option(
        "Gradient accumulation: number of parts that a batch is computed in.",
        "To save memory; the step is that of the whole batch, but for BatchNorm.",
        least=1,
    )] = 1
    optimizer: Annotated[Literal["adam", "adamw"], Option("Optimizer.")] = "adam"
    lr: Annotated[float, Option("Highest learning rate.", above=0, below=math.inf)] = 1e-4
    weight_decay: Annotated[float, Option(
        "Weight decay.", "Added to the gradient with `adam`, decoupled from it with `adamw`.", least=0
    )] = 0.0
    schedule: Annotated[ScheduleName, Option(
        "Learning-rate schedule.",
        "`cosine` and `onecycle` span the whole run, so `--epochs` may then not change when resuming.",
    )] = "none"
    warmup_epochs: Annotated[float, Option(
        "Epochs of linear learning-rate warm-up.", "Not with `onecycle`, which has its own.", least=0, most=1_000_000
    )] = 0.0
    clip_norm: Annotated[float | None, Option(
        "Gradient-norm clipping.",
        "The largest norm of the gradient over all weights.",
        above=0, below=math.inf, default="off",
    )] = None
    ema: Annotated[float | None, Option(
        "EMA decay of the weights.",
        "The averaged weights are then validated and saved; the decay is warmed up. 0 turns off a recipe's.",
        least=0, below=1, default="off",
    )] = None
    label_smoothing: Annotated[float, Option(
        "Label smoothing.", "Labels become s/2 and 1 - s/2.", least=0, below=1
    )] = 0.0
    pos_weight: Annotated[float | Literal["auto"], Option(
        "Weight of a positive image: a number, or auto for negatives / positives.",
        "In the loss; counted in the train split.",
        above=0, below=math.inf, range="auto, or a number above 0", recorded="pos-weight",
    )] = "auto"
    teach: Annotated[tuple[AuxiliaryTask, ...], Option(
        "Auxiliary supervision: boxes or classes; may be repeated.",
        "While it trains, the model also learns to predict the mask of the boxes, or the class, from its features; "
        "the saved model has no auxiliary heads ([training.md](training.md#auxiliary-supervision)).",
        recorded="teach", default="none", group="Auxiliary supervision",
    )] = ()
    teach_boxes_weight: Annotated[float, Option(
        "Weight of the boxes' loss beside the label's.", above=0, below=math.inf, recorded="teach-boxes-weight"
    )] = 1.0
    teach_classes_weight: Annotated[float, Option(
        "Weight of the classes' loss beside the label's.", above=0, below=math.inf, recorded="teach-classes-weight"
    )] = 1.0
    teach_stage: Annotated[str | None, Option(
        "Stage of the model whose features the box head reads.",
        "Any module that gives a square map, by its name in torchvision; by default the last that is at least twice as "
        "fine as the coarsest: `layer3` of a ResNet.",
        default="layer3 or its equivalent", recorded="teach-stage",
    )] = None
    monitor: Annotated[Monitor, Option(
        "Validation metric that selects the best epoch.", group="Selection"
    )] = "auroc"
    patience: Annotated[int | None, Option(
        "Early stopping: epochs without improvement.", least=1, default="off"
    )] = None
    max_skipped: Annotated[int, Option(
        "Skipped steps allowed in an epoch.", "A step is skipped if its gradient is not finite.", least=0, decides=False
    )] = 20
    amp: Annotated[bool, Option(
        "Automatic mixed precision.",
        "float16 with a scaled loss on a GPU; on a CPU bfloat16 where it has AMX, else float32, which is faster there "
        "([measured](experiments.md)).",
        recorded="amp-dtype", group="Speed",
    )] = False
    amp_dtype: Annotated[Literal["float16", "bfloat16"] | None, Option(
        "Data type of mixed precision.", default="by the device", recorded="amp-dtype"
    )] = None
    compile: Annotated[bool, Option("torch.compile the model.", "Faster steps, after a minute of compilation.")] = False
    loader: Annotated[EngineName, Option(
        "Engine that loads the batches.", "The batches are the same: see [loading.md](loading.md).", decides=False
    )] = "auto"
    resident_share: Annotated[float, Option(
        "Share of the device's memory that --loader auto may fill with images.",
        "All training images are kept there where they fit into it.",
        least=0, most=1, range="a share from 0 to 1", decides=False,
    )] = 0.0
    sync_bn: Annotated[bool, Option(
        "Synchronized BatchNorm over all GPUs.", "Its statistics are then those of the whole batch."
    )] = False
    device: Device = "auto"
    out: Annotated[Path, Option(
        "Run folder to write.", aliases=("-o",), decides=False, repeated=False, group="Run"
    )] = Path("run")
    resume: Annotated[bool, Option(
        "Resume exactly where the run stopped.", "Starts anew where there is nothing.", decides=False, repeated=False
    )] = False
    overwrite: Annotated[bool, Option("Replace the run in OUT.", decides=False, repeated=False)] = False
    seed: Annotated[int, seed_option("Chooses initial weights, order and folds.")] = 0
    checkpoint_minutes: Annotated[float, Option(
        "Minutes between checkpoints within an epoch.", above=0, decides=False
    )] = 10.0
    tensorboard: Annotated[bool, Option(
        "Write TensorBoard files.", "Needs the extra `tensorboard`.", decides=False
    )] = False
    profile: Annotated[bool, Option(
        "Write a profiler trace of a few steps.", "Steps 5 to 8 of the first epoch, for Perfetto.", decides=False
    )] = False
    # fmt: on

    def __post_init__(self) -> None:
        """Check every option, and which go together; ConfigError names the first that cannot work."""
        check(self)
        if not self.datasets or (self.shares and len(self.shares) != len(self.datasets)):
            raise ConfigError(
                f"{len(self.datasets)} datasets with {len(self.shares)} shares: one share for each expected"
            )
        self._check_recipe()
        self._check_direct()
        check_resume(resume=self.resume, overwrite=self.overwrite)
        onecycle = self.schedule == "onecycle"
        exclusive = {
            "shares with folds or limit-images": self.shares and (self.folds or self.limit_images),
            "warmup-epochs with schedule onecycle, which has a rise of its own": onecycle and self.warmup_epochs,
        }
        if reasons := [reason for reason, given in exclusive.items() if given]:
            raise ConfigError(f"{reasons[0]}: give one of them")
        if self.flip and self.augment == "none":
            raise ConfigError("flip without augment: give --augment light or strong as well")
        for option, (other, value) in ({} if self.resume else NEEDS).items():  # a run may have been begun otherwise
            if value not in getattr(self, other) and getattr(self, option) != options_of(TrainConfig)[option].default:
                raise ConfigError(f"{option.replace('_', '-')} without {other} {value}: give --{other} {value} as well")
        if self.half_size_epochs and self.half_size_epochs >= self.epochs:
            raise ConfigError(
                f"half-size-epochs {self.half_size_epochs} of {self.epochs} epochs: fewer expected, to end at full size"
            )
        if self.fold is not None and not 1 <= self.fold <= (self.folds or 0):
            remedy = f"1 to {self.folds} expected" if self.folds else "give --folds K as well, with K at least 2"
            raise ConfigError(f"fold {self.fold} of {self.folds or 'no'} folds: {remedy}")

    def _check_direct(self) -> None:
        """Refuse options of training straight from images that do not go together."""
        given = [name.replace("_", "-") for name in DIRECT if getattr(self, name) is not None]
        if given and not (self.images and self.labels):
            lacking = " and ".join(name for name in ("images", "labels") if not getattr(self, name))
            raise ConfigError(f"{', '.join(given)} without {lacking}: give both --images and --labels, or a dataset")
        if self.cache and self.datasets != (Path("dataset"),):
            raise ConfigError(f"cache with dataset {self.datasets[0]}: it is the dataset, give one of them")
        if self.images and len(self.datasets) > 1:
            raise ConfigError(f"images with {len(self.datasets)} datasets: give one folder to write, or none")

    def _check_recipe(self) -> None:
        """Refuse the name of a recipe without its options."""
        plain = RECIPES["reference"]
        own = [name for name, value in RECIPES[self.recipe].items() if value != plain[name]]
        if own and all(getattr(self, name) == plain[name] for name in own):
            raise ConfigError(
                f"recipe {self.recipe} with none of its options: from Python pneumo_fast.recipe({self.recipe!r}, ...) "
                "gives them"
            )

    @property
    def auxiliary(self) -> tuple[AuxiliaryTask, ...]:
        """Its tasks, each once, in alphabetical order."""
        return tuple(sorted(set(self.teach)))

    @property
    def auxiliary_weights(self) -> dict[AuxiliaryTask, float]:
        """Weight of each auxiliary task's loss."""
        return {"boxes": self.teach_boxes_weight, "classes": self.teach_classes_weight}

    @property
    def all_folds(self) -> bool:
        """Whether every fold of a cross-validation is to be trained."""
        return self.folds is not None and self.fold is None


def recipe(name: RecipeName, **options: Any) -> TrainConfig:
    """The options of a recipe, but for those that are given.

    Parameters
    ----------
    name : str
        One of :data:`~pneumo_fast.training.recipes.RECIPES`.
    **options
        Fields of :class:`TrainConfig`, for instance ``datasets`` and ``out``.

    Raises
    ------
    ConfigError
        If the recipe is unknown, or an option cannot work.
    """
    return TrainConfig(recipe=name, **{**RECIPES.get(name, {}), **options})


def describe_recipe(config: TrainConfig) -> str:
    """The recipe's name and options, and what was given in the place of some."""
    recipe_values = RECIPES[config.recipe]
    found = {name: getattr(config, name) for name in recipe_values}
    kept = {name: value for name, value in found.items() if value == recipe_values[name] and value is not None}
    given = {name: value for name, value in found.items() if value != recipe_values[name]}
    words = [", ".join(f"{name.replace('_', '-')} {value}" for name, value in part.items()) for part in (kept, given)]
    return f"{config.recipe}: {words[0]}" + (f"; overridden: {words[1]}" if given else "")
