"""Opens a run to be judged: its best checkpoint as a model, and the images; and has the model say its logits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.selection import open_datasets, select_fold
from pneumo_fast.devices import resolve_device
from pneumo_fast.errors import ConfigError, RunError
from pneumo_fast.files import open_regular, sha256_of
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.metrics.intervals import Logits
from pneumo_fast.progress import OnProgress
from pneumo_fast.records import Fault, build, path_text
from pneumo_fast.run.checkpoint import Trained, load_trained
from pneumo_fast.run.folder import read_config
from pneumo_fast.run.layout import BEST
from pneumo_fast.run.model import build_model

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """Which checkpoint was judged."""

    path: str
    """The run folder, as it was named."""
    checkpoint: str
    """File name of the checkpoint in it."""
    sha256: str
    """In hexadecimal."""
    arch: str
    """Name of the torchvision classifier."""
    epoch: int
    """Finished epochs at the checkpoint."""
    mean: float
    """What the images were normalized with, in [0, 1], as ``std``."""
    std: float
    dataset_identity: str
    """Identity of the dataset that the run was trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetIdentity:
    """Which images it was judged on."""

    path: str
    """The dataset folder, as it was named."""
    identity: str
    """SHA-256 of its manifest."""
    trained_on: bool
    """Whether it is the dataset that the run was trained on."""
    name: str = ""
    """Name of the folder; of several datasets as one, all names, joined by ``+``. An earlier release left it out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A run and the images that it is judged on."""

    run: Path
    checkpoint: Trained
    dataset: Dataset
    """With the splits that the run was trained with."""
    model: nn.Module
    """On the device, in evaluation mode."""
    device: torch.device
    run_identity: RunIdentity
    dataset_identity: DatasetIdentity

    @property
    def trained_on(self) -> bool:
        """Whether it is the dataset that the run was trained on."""
        return self.dataset_identity.trained_on


def best_of(run: Path) -> Trained:
    """A run's best checkpoint.

    Raises
    ------
    RunError
        If it is missing or damaged, or a file is given in the place of a run folder.
    """
    if run.is_file():
        raise RunError(f"{run} is a file: name the run folder that holds it")
    return load_trained(run / BEST)


def identify(run: Path, checkpoint: Trained) -> RunIdentity:
    """Which checkpoint a run's best one is, by its checksum among others."""
    with open_regular(run / BEST) as file:
        sha256 = sha256_of(file)
    return RunIdentity(
        path=path_text(run),
        checkpoint=BEST,
        sha256=sha256,
        arch=checkpoint.arch,
        epoch=checkpoint.epoch,
        mean=checkpoint.mean,
        std=checkpoint.std,
        dataset_identity=checkpoint.dataset_identity,
    )


def load_model(run: Path, checkpoint: Trained) -> nn.Module:
    """A run's best checkpoint as a model in evaluation mode, on the CPU.

    Raises
    ------
    RunError
        If the weights do not fit the model.
    """
    try:
        model = build_model(checkpoint.arch)
        model.load_state_dict(checkpoint.model)
    except (ConfigError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"checkpoint {run / BEST} does not fit model {checkpoint.arch!r} ({reason}): train again"
        ) from error
    return model.eval()


def open_run(run: Path, dataset: Path | None, device: str) -> Judged:
    """Open a run's best checkpoint and a dataset, by default the run's own.

    Raises
    ------
    RunError
        If the run or its checkpoint is missing or damaged, or does not fit the dataset.
    DatasetError
        If the dataset is missing or damaged.
    DeviceError
        If the device is not there.
    """
    checkpoint = best_of(run)
    paths = named_datasets(run) if dataset is None else [dataset]
    if dataset is None and (missing := [path for path in paths if not path.is_dir()]):
        raise RunError(f"run {run} was trained on {missing[0]}, which is not there: say where with --dataset")
    opened = _fold_of(checkpoint, open_datasets(paths))
    identity = identify(run, checkpoint)
    place = resolve_device(device)
    _check_size(checkpoint, opened, run)
    return Judged(
        run=run,
        checkpoint=checkpoint,
        dataset=opened,
        model=load_model(run, checkpoint).to(place),
        device=place,
        run_identity=identity,
        dataset_identity=DatasetIdentity(
            path=path_text(opened.path),
            identity=opened.identity,
            trained_on=opened.identity == checkpoint.dataset_identity,
            name="+".join(path_text(Path(path.resolve().name)) for path in paths),
        ),
    )


def named_datasets(run: Path) -> list[Path]:
    """The datasets that a run was trained on, by its configuration; they need not be there.

    Raises
    ------
    RunError
        If the run does not say.
    """
    try:
        return [Path(path) for path in build(read_config(run).config.get("datasets"), list[str])]
    except Fault as error:
        raise RunError(f"run {run} does not say which dataset it was trained on: give --dataset") from error


def infer(judged: Judged, split: str, batch_size: int, on_progress: OnProgress) -> Logits:
    """Logits of a split, float32, shape (n,), in storage order.

    Raises
    ------
    RunError
        If a batch does not fit into memory, or a logit is no number.
    """
    rows = judged.dataset.rows(split)
    logits = torch.empty(len(rows), dtype=torch.float32, device=judged.device)
    done = 0
    _log.info("evaluating %s on %d images of split %s", judged.run / BEST, len(rows), split)
    options, normalization = LoadConfig(batch_size=batch_size), (judged.checkpoint.mean, judged.checkpoint.std)
    try:
        loader = Loader(judged.dataset, split, options, device=judged.device, normalization=normalization)
        with loader, torch.inference_mode():
            for images, _ in loader.epoch(0):
                logits[done : done + len(images)] = judged.model(images).squeeze(1)
                done += len(images)
                on_progress(done, len(rows))
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"batches of {batch_size} do not fit into the memory of {judged.device}: use a smaller --batch-size"
        ) from error
    values = logits.cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise RunError(
            f"checkpoint {judged.run / BEST} gives the logit {values[bad[0]]} for image "
            f"{rows['image_id'][bad[0]]!r} ({len(bad)} of {len(rows)} images of split {split!r} have none that is a "
            "number): train again, with a smaller --lr or without --amp"
        )
    return values


def _fold_of(checkpoint: Trained, dataset: Dataset) -> Dataset:
    """The splits that the run was trained with, if it was trained on this dataset."""
    folds, fold = checkpoint.settings.get("folds"), checkpoint.settings.get("fold")
    if not (folds and fold) or dataset.identity != checkpoint.dataset_identity:
        return dataset
    return select_fold(dataset, folds, fold, checkpoint.settings["seed"])


def _check_size(checkpoint: Trained, dataset: Dataset, run: Path) -> None:
    if dataset.size != checkpoint.size:
        raise RunError(
            f"run {run} was trained on {checkpoint.size} x {checkpoint.size} images, dataset {dataset.path} has "
            f"{dataset.size} x {dataset.size}: convert with --size {checkpoint.size}"
        )
