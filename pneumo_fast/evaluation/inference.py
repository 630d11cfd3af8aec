"""Opens a run to be judged: its best checkpoint as a model, and the images; and has the model say its logits."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.selection import open_datasets, pool_folds, select_fold
from pneumo_fast.devices import resolve_device, too_large
from pneumo_fast.errors import ConfigError, DatasetError, RunError
from pneumo_fast.evaluation.identity import DatasetIdentity, RunIdentity, identify, identify_all
from pneumo_fast.folder_kinds import check_kind
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.metrics.intervals import Logits
from pneumo_fast.progress import OnProgress, part_of_whole
from pneumo_fast.records import Fault, build, path_text
from pneumo_fast.run.checkpoint import Trained, load_trained
from pneumo_fast.run.folder import read_config
from pneumo_fast.run.folds import is_cross_validation, open_folds
from pneumo_fast.run.layout import BEST, fold_folder
from pneumo_fast.run.model import build_model, for_inference

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldModel:
    """A best checkpoint as a model, and the images as they are to it."""

    run: Path
    """The run folder; of a cross-validation that of a fold."""
    checkpoint: Trained
    dataset: Dataset
    """With the splits that it was trained with."""
    network: nn.Module
    """On the device, in evaluation mode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A run and the images that it is judged on."""

    run: Path
    models: tuple[FoldModel, ...]
    """One; of a cross-validation that of each fold, from the first."""
    dataset: Dataset
    """With the splits that the run was trained with; of a cross-validation its own are ``val``, but ``test``."""
    device: torch.device
    run_identity: RunIdentity
    dataset_identity: DatasetIdentity

    @property
    def trained_on(self) -> bool:
        """Whether it is the dataset that the run was trained on."""
        return self.dataset_identity.trained_on

    @property
    def is_cross_validation(self) -> bool:
        """Whether there is a model for each fold: the one not trained on an image judges it, or all do."""
        return bool(self.run_identity.folds)

    @property
    def checkpoint(self) -> Trained:
        """The first model's, for what is the same in all folds: architecture, normalization, most settings."""
        return self.models[0].checkpoint

    def rows(self, split: str) -> pd.DataFrame:
        """Rows of the index that belong to a split, in storage order, numbered from 0.

        Raises
        ------
        ConfigError
            If a cross-validation is to be judged on what its folds were trained on.
        DatasetError
            If the split is not there or holds no image.
        """
        if self.is_cross_validation and self.trained_on and split == "train":
            raise ConfigError(
                "split 'train' of a cross-validation: its images are in split 'val', each evaluated by the fold that "
                f"was not trained on it; name one of the folds, for instance {shlex.quote(str(self.models[0].run))}"
            )
        return self.dataset.rows(split)

    def averages(self, split: str) -> bool:
        """Whether the folds of a cross-validation judge the images together: those that none of them has seen."""
        return self.is_cross_validation and (split == "test" or not self.trained_on)

    def judges(self, split: str) -> NDArray[np.int64]:
        """Place in ``models`` of the one that judges each image of a split, shape (n,)."""
        inside = self.dataset.index["split"] == split
        numbers = np.zeros(int(inside.sum()), dtype=np.int64)
        for number, model in enumerate(self.models):
            numbers[(model.dataset.index["split"] == split)[inside]] = number
        return numbers


def best_of(run: Path) -> Trained:
    """A run's best checkpoint.

    Raises
    ------
    RunError
        If it is missing or damaged, or a file, a dataset or a cross-validation is given instead of a run folder.
    """
    if is_cross_validation(run):
        first = shlex.quote(str(fold_folder(run, 1)))
        raise RunError(f"{run} is a cross-validation: name one of its folds, for instance {first}")
    if run.is_file():
        raise RunError(f"{run} is a file: name the run folder that holds it")
    check_kind(run, "run")
    return load_trained(run / BEST)


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
    """Open a run's best checkpoint, or those of a cross-validation's folds, and a dataset, by default the run's own.

    Raises
    ------
    RunError
        If the run or its checkpoint is missing or damaged, or does not fit the dataset.
    DatasetError
        If the dataset is missing or damaged.
    DeviceError
        If the device is not there.
    """
    cross_validation = is_cross_validation(run)
    members = open_folds(run) if cross_validation else [(run, best_of(run))]
    first, checkpoint = members[0]
    paths = named_datasets(first) if dataset is None else [dataset]
    if dataset is None and (missing := [path for path in paths if not path.is_dir()]):
        raise RunError(f"run {run} was trained on {missing[0]}, which is not there: say where with --dataset")
    opened = open_datasets(paths)
    own = opened.identity == checkpoint.dataset_identity
    identities = tuple(identify(*member) for member in members)
    place = resolve_device(device)
    _check_size(checkpoint, opened, run)
    models = tuple(
        FoldModel(
            run=folder,
            checkpoint=best,
            dataset=_fold_of(best, opened),
            network=for_inference(load_model(folder, best), place, best.size),
        )
        for folder, best in members
    )
    return Judged(
        run=run,
        models=models,
        dataset=pool_folds(opened) if cross_validation and own else models[0].dataset,
        device=place,
        run_identity=identify_all(run, identities) if cross_validation else identities[0],
        dataset_identity=DatasetIdentity(
            path=path_text(opened.path),
            identity=opened.identity,
            trained_on=own,
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
    """Logits of a split, float32, shape (n,), in storage order; of each image by the model that judges it.

    Where several models judge it, the mean of their logits; NaN where the source file of an image cannot be read.

    Raises
    ------
    RunError
        If a batch does not fit into memory, or a logit is no number.
    DatasetError
        If no image can be read.
    """
    logits = (_mean_logits if judged.averages(split) else _own_logits)(judged, split, batch_size, on_progress)
    if np.isnan(logits).all():
        raise DatasetError(f"none of the image files of split {split!r} can be read: bring them back")
    return logits


def _mean_logits(judged: Judged, split: str, batch_size: int, on_progress: OnProgress) -> Logits:
    n, models = len(judged.rows(split)), judged.models
    progress = [part_of_whole(on_progress, number * n, len(models) * n) for number in range(len(models))]
    each = [_infer(m, judged.device, split, batch_size, p) for m, p in zip(models, progress, strict=True)]
    mean: Logits = np.stack(each).mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _own_logits(judged: Judged, split: str, batch_size: int, on_progress: OnProgress) -> Logits:
    judges = judged.judges(split)
    logits, done = np.empty(len(judges), dtype=np.float32), 0
    for number, model in enumerate(judged.models):
        mine = judges == number
        logits[mine] = _infer(model, judged.device, split, batch_size, part_of_whole(on_progress, done, len(logits)))
        done += int(mine.sum())
    return logits


def _infer(model: FoldModel, device: torch.device, split: str, batch_size: int, on_progress: OnProgress) -> Logits:
    """One model's logits of a split, as it was trained with it."""
    rows = model.dataset.rows(split)
    logits = torch.full((len(rows),), torch.nan, device=device)
    done, seen = 0, np.zeros(len(rows), dtype=bool)
    _log.info("evaluating %s on %d images of split %s", model.run / BEST, len(rows), split)
    options, normalization = LoadConfig(batch_size=batch_size), (model.checkpoint.mean, model.checkpoint.std)
    try:
        loader = Loader(model.dataset, split, options, device=device, normalization=normalization)
        with loader, torch.inference_mode():
            for images, _ in loader.epoch(0):
                seen[loader.rows] = True
                logits[torch.from_numpy(loader.rows).to(device)] = model.network(images).squeeze(1)
                done += len(images)
                on_progress(done, len(rows))
    except torch.OutOfMemoryError as error:
        raise RunError(too_large(batch_size, device)) from error
    values = logits.cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(values) & seen)
    if len(bad):
        raise RunError(
            f"checkpoint {model.run / BEST} gives the logit {values[bad[0]]} for image "
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
