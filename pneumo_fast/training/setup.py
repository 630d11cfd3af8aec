"""What training needs before its first step: images, model, optimizer, and which options decide the result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pneumo_fast.configuration import settings
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.selection import join_datasets, limit_images, select_fold
from pneumo_fast.errors import ConfigError, DatasetError, memory_ran_out
from pneumo_fast.loading.augment import Augmentation
from pneumo_fast.loading.batches import Rank
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.loading.samplers import Part, parts_by_share
from pneumo_fast.loading.targets import Targets
from pneumo_fast.run.checkpoint import Trained
from pneumo_fast.run.model import build_model, check_choice, memory_format, with_small_map_products
from pneumo_fast.run.model_input import ModelInput
from pneumo_fast.training.auxiliary import Taught, check_teachable
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.observers import summary_writer
from pneumo_fast.training.options import BATCH_SIZE, NEEDS, TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingData:
    """The images to train and validate on."""

    dataset: Dataset
    parts: tuple[Part, ...]
    """How much of each dataset an epoch uses; empty where it uses all."""
    classes: tuple[str, ...] = ()
    """Names of the classes that are taught, in the order of their numbers."""

    @property
    def epoch_length(self) -> int:
        """Training images in an epoch."""
        return sum(part.used for part in self.parts) or len(self.dataset.rows("train"))


def open_data(config: TrainConfig) -> TrainingData:
    """Open the datasets, each once.

    Raises
    ------
    DatasetError
        If a dataset is missing or damaged, one of the splits has images of one label only, or the training images
        lack what is taught.
    """
    datasets = [Dataset.open(path) for path in config.datasets]
    dataset = join_datasets(datasets)
    if config.folds and config.fold:
        dataset = select_fold(dataset, config.folds, config.fold, config.seed)
    if config.limit_images:
        dataset = limit_images(dataset, config.limit_images, [len(each.index) for each in datasets])
    remedy = "convert with more images or another --seed or --val-fraction"
    if config.folds or config.limit_images:
        remedy = "use fewer --folds or more --limit-images"
    for split in ("train", "val"):
        found = dataset.rows(split)["label"].unique()
        if len(found) < 2:
            raise DatasetError(f"the {split} split of {dataset.path} has images of label {found[0]} only: {remedy}")
    parts = parts_by_share([len(each.rows("train")) for each in datasets], config.shares) if config.shares else ()
    return TrainingData(dataset=dataset, parts=parts, classes=check_teachable(dataset, config.auxiliary))


def choose_pos_weight(dataset: Dataset, config: TrainConfig) -> float:
    """Weight of a positive image."""
    if config.pos_weight != "auto":
        return config.pos_weight
    if config.order == "weighted" and config.balance == "label":
        return 1.0  # both classes are equally frequent already
    labels = dataset.rows("train")["label"]
    return float((labels == 0).sum() / (labels == 1).sum())


def choose_prior_shift(dataset: Dataset, config: TrainConfig, pos_weight: float) -> float | None:
    """Logarithm of how many times higher the odds of a positive are to the loss than among the training images.

    It is one number where images are weighed and drawn by their label alone. Other recipes (label smoothing, shares of
    several datasets, balance by another column) move the odds of some images further than those of others: None.
    """
    if config.label_smoothing or config.shares or (config.order == "weighted" and config.balance != "label"):
        return None
    labels = dataset.rows("train")["label"]
    drawn = float((labels == 0).sum() / (labels == 1).sum()) if config.order == "weighted" else 1.0
    return math.log(pos_weight * drawn)


def settings_of(
    config: TrainConfig, data: TrainingData, pos_weight: float, amp_dtype: torch.dtype | None
) -> dict[str, Any]:
    """The options that shape the result, which must be the same when resuming.

    A batch size that is still to be chosen is left out.
    """
    options, dataset = dict(sorted(settings(config).items())), data.dataset
    if config.schedule != "none":
        options["epochs"] = config.epochs  # on which the learning rate of every step depends
    values = {"image size": dataset.size} | {name.replace("_", "-"): value for name, value in options.items()}
    values |= {"dataset": dataset.identity, "pos-weight": pos_weight, "amp-dtype": str(amp_dtype)}
    if isinstance(config.batch_size, int):
        values["batch-size"] = config.batch_size
    values["teach"] = list(config.auxiliary) or None  # as in a checkpoint of a release without them
    taught = {name: getattr(config, name) for name, (_, needed) in NEEDS.items() if needed in config.teach}
    values |= {name.replace("_", "-"): value for name, value in taught.items()}
    if data.classes:
        values["classes"] = data.classes
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def training_loader(
    config: TrainConfig, data: TrainingData, device: torch.device, rank: Rank, batch_size: int
) -> Loader:
    """Batches to train on."""
    strength = config.augment
    augmentation = None if strength == "none" else Augmentation(strength=strength, flip=config.flip, seed=config.seed)
    load = LoadConfig(
        batch_size=batch_size, order=config.order, seed=config.seed, parts=data.parts, balance=config.balance,
        window=config.window, engine=config.loader, resident_share=config.resident_share, augmentation=augmentation,
        targets=bool(config.teach), classes=data.classes,
    )  # fmt: skip
    return Loader(data.dataset, "train", load, device=device, rank=rank)


def validation_loader(
    config: TrainConfig, dataset: Dataset, device: torch.device, rank: Rank, batch_size: int
) -> Loader:
    """Batches to validate on: every image once, whatever the number of processes."""
    load = LoadConfig(batch_size=batch_size, engine=config.loader)
    return Loader(dataset, "val", load, device=device, rank=rank)


def make_learner(
    config: TrainConfig,
    device: torch.device,
    rank: Rank,
    *,
    size: int,
    batches: int,
    pos_weight: float,
    amp_dtype: torch.dtype | None,
    classes: int = 0,
) -> Learner:
    """The model and all that changes it.

    Parameters
    ----------
    size : int
        Height and width of the images, in pixels.
    batches : int
        Steps in an epoch.
    classes : int
        Number of classes, where they are taught.

    Raises
    ------
    ConfigError
        If the model is unknown or not of the right kind, its weights do not fit, or images of this size, or it cannot
        be taught.
    RunError
        If the file with its weights cannot be read.
    """
    torch.manual_seed(config.seed)
    model = build_model(config.model, config.weights, size).to(device)
    if config.half_size_epochs and size % 2:
        raise ConfigError(f"half-size-epochs with images of {size} x {size} pixels: convert with an even --size")
    for side in {size, size // 2 if config.half_size_epochs else size}:
        _check_size(model, config.model, torch.zeros(2, 1, side, side, device=device))
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TF32
    model = model.to(memory_format=memory_format(device, size, amp_dtype))
    if device.type == "cpu" and amp_dtype is not None:
        model = with_small_map_products(model)
    if config.sync_bn and rank.world_size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    taught = None
    if config.teach:
        taught = Taught(model, config.auxiliary, stage=config.teach_stage, classes=classes, size=size)
    torch.manual_seed(config.seed + rank.number)  # dropout differs between processes
    make = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    network: nn.Module = taught or model
    optimizer = make(network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    if rank.world_size > 1:
        network = nn.parallel.DistributedDataParallel(network, [device.index] if device.type == "cuda" else None)
    return Learner(
        config=config,
        model=model,
        network=torch.compile(network) if config.compile else network,  # type: ignore[arg-type]
        taught=taught,
        optimizer=optimizer,
        device=device,
        pos_weight=pos_weight,
        amp_dtype=amp_dtype,
        total_steps=config.epochs * batches,
        warmup_steps=math.ceil(config.warmup_epochs * batches),
        world_size=rank.world_size,
    )


@torch.no_grad()
def _check_size(model: nn.Module, name: str, images: torch.Tensor) -> None:
    """See whether a model takes images of this size: some are made for one size, others shrink them to nothing."""
    try:
        model.eval()(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        size, reason = images.shape[-1], " ".join(str(error).split())
        raise ConfigError(
            f"model {name!r} does not take images of {size} x {size} pixels ({reason}): convert with another --size, "
            "or use resnet18, for instance"
        ) from error
    model.train()


def untrained(config: TrainConfig, data: TrainingData, amp_dtype: torch.dtype | None) -> Trained:
    """What there is before the first step; the weights come with the first checkpoint."""
    dataset = data.dataset
    pos_weight = choose_pos_weight(dataset, config)
    return Trained(
        arch=config.model, size=dataset.size, mean=dataset.mean, std=dataset.std, pos_weight=pos_weight,
        prior_shift=choose_prior_shift(dataset, config, pos_weight), dataset_identity=dataset.identity,
        input=ModelInput.of(dataset), epoch=0, best=math.nan, best_epoch=0, monitor=config.monitor, history=[],
        settings=settings_of(config, data, pos_weight, amp_dtype), model={},
    )  # fmt: skip


def warm_up_compiler(learner: Learner, batch_size: int, size: int, targets: Targets | None = None) -> None:
    """Have the model compiled for full batches, outside of what is timed; nothing of the learner changes.

    Parameters
    ----------
    batch_size : int
        Images in a batch of this process.
    size : int
        Their height and width in the epoch that comes first, in pixels.
    targets : Targets, optional
        Of a full batch, with auxiliary supervision.

    Raises
    ------
    ConfigError
        If the compiler fails.
    """
    buffers = [buffer.clone() for buffer in learner.model.buffers()]
    images = torch.zeros(batch_size, 1, size, size, device=learner.device)
    parts = {len(part): part for part in images.tensor_split(learner.parts(batch_size))}  # one of each size
    learner.model.train()
    with torch.random.fork_rng([learner.device] if learner.device.type == "cuda" else []):
        try:
            for part in parts.values():
                logits, losses = learner.forward(part, targets and targets.first(len(part)))
                (logits.sum() + losses.sum()).backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:  # what it compiled may be wrong about a layout
            if memory_ran_out(error):
                raise
            reason = str(error).strip().partition("\n")[0][:200]
            raise ConfigError(
                f"torch.compile fails for images of {size} x {size} pixels ({reason}): omit --compile"
            ) from error
    learner.optimizer.zero_grad(set_to_none=True)
    for buffer, kept in zip(learner.model.buffers(), buffers, strict=True):
        buffer.copy_(kept)


def check_options(config: TrainConfig, device: torch.device, rank: Rank) -> None:
    """Refuse with a ConfigError what cannot work on this device or with so many processes."""
    check_choice(config.model, config.weights)
    if config.sync_bn and device.type != "cuda":
        raise ConfigError("sync-bn without a GPU: omit it")
    if config.tensorboard:
        summary_writer()
    if config.batch_size == "auto":
        if device.type != "cuda":
            raise ConfigError("batch-size auto without a GPU: give a number of images")
    elif (batch_size := config.batch_size or BATCH_SIZE) < 2 * rank.world_size:
        raise ConfigError(f"batch-size {batch_size} for {rank.world_size} processes: two images each at least")
