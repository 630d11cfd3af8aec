"""Judges a run's best checkpoint on one split; :mod:`pneumo_fast.evaluation` says what is written."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from torch import nn

from pneumo_fast.checkpoint import BEST, Checkpoint, load_checkpoint
from pneumo_fast.combine import open_datasets
from pneumo_fast.devices import resolve_device
from pneumo_fast.errors import ConfigError, RunError
from pneumo_fast.evaluation import (
    DatasetIdentity,
    Evaluation,
    Predictions,
    RunIdentity,
    clear,
    count_groups,
    interval_note,
    origin_note,
    write,
)
from pneumo_fast.intervals import Logits
from pneumo_fast.judge_options import EvaluateConfig
from pneumo_fast.loader import LoadConfig, Loader
from pneumo_fast.metrics import judge, sigmoid
from pneumo_fast.model import build_model
from pneumo_fast.runs import read_config
from pneumo_fast.shards import Dataset
from pneumo_fast.subsets import select_fold

FOLDER: Final = "eval"

Progress = Callable[[int, int], None]

_log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig, on_progress: Progress | None = None) -> Evaluation:
    """Judge a run's best checkpoint and write ``RUN/eval/``.

    Parameters
    ----------
    config : EvaluateConfig
    on_progress : callable, optional
        Called as (images done, images) after each batch.

    Returns
    -------
    Evaluation
        What was written.

    Raises
    ------
    RunError
        If the run or its checkpoint is missing or damaged, does not fit the dataset, gives a logit that is no
        number, or the folder cannot be written.
    DatasetError
        If the dataset is missing or damaged or has no image in the split.
    DeviceError
        If the device is not there.
    """
    checkpoint = load_checkpoint(config.run / BEST)
    dataset = _fold_of(checkpoint, open_datasets(_dataset_paths(config)))
    rows = dataset.rows(config.split)
    device = resolve_device(config.device)
    model = _load_model(checkpoint, dataset, config.run).to(device)
    clear(config.run / FOLDER)  # from here on, files of an older checkpoint would pass for this one's
    _log.info("judging %s on %d images of split %s", config.run / BEST, len(rows), config.split)
    logits = _infer(model, dataset, checkpoint, config, device, on_progress or _silent)
    predictions = _predictions(rows, logits, config)
    evaluation = _evaluation(config, checkpoint, dataset, rows, predictions, device)
    write(evaluation)
    return evaluation


def _silent(_done: int, _total: int) -> None:
    """Report no progress."""


def _dataset_paths(config: EvaluateConfig) -> list[Path]:
    """The dataset asked for, or those that the run was trained on."""
    if config.dataset is not None:
        return [config.dataset]
    try:
        paths = [Path(path) for path in read_config(config.run)["config"]["datasets"]]
    except (KeyError, TypeError) as error:
        raise RunError(f"run {config.run} does not say which dataset it was trained on: give --dataset") from error
    for path in paths:
        if not path.is_dir():
            raise RunError(f"run {config.run} was trained on {path}, which is not there: say where with --dataset")
    return paths


def _fold_of(checkpoint: Checkpoint, dataset: Dataset) -> Dataset:
    """The splits that the run was trained with, if it was trained on this dataset."""
    folds, fold = checkpoint.settings.get("folds"), checkpoint.settings.get("fold")
    if not (folds and fold) or dataset.identity != checkpoint.dataset_identity:
        return dataset
    return select_fold(dataset, folds, fold, checkpoint.settings["seed"])


def _load_model(checkpoint: Checkpoint, dataset: Dataset, run: Path) -> nn.Module:
    """The checkpoint's model, ready to judge images of the dataset's size."""
    if dataset.size != checkpoint.size:
        raise RunError(
            f"run {run} was trained on {checkpoint.size} x {checkpoint.size} images, dataset {dataset.path} has "
            f"{dataset.size} x {dataset.size}: convert with --size {checkpoint.size}"
        )
    try:
        model = build_model(checkpoint.arch)
        model.load_state_dict(checkpoint.model)
    except (ConfigError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"checkpoint {run / BEST} does not fit model {checkpoint.arch!r} ({reason}): train again"
        ) from error
    return model.eval()


def _infer(
    model: nn.Module,
    dataset: Dataset,
    checkpoint: Checkpoint,
    config: EvaluateConfig,
    device: torch.device,
    on_progress: Progress,
) -> Logits:
    """Logits of a split, float32, shape (n,), in storage order."""
    n, done = len(dataset.rows(config.split)), 0
    logits = torch.empty(n, dtype=torch.float32, device=device)
    normalization = checkpoint.mean, checkpoint.std
    load = LoadConfig(batch_size=config.batch_size)
    loader = Loader(dataset, config.split, load, device=device, normalization=normalization)
    try:
        with loader, torch.inference_mode():
            for images, _ in loader.epoch(0):
                logits[done : done + len(images)] = model(images).squeeze(1)
                done += len(images)
                on_progress(done, n)
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"batches of {config.batch_size} do not fit into the memory of {device}: use a smaller --batch-size"
        ) from error
    return logits.cpu().numpy()


def _predictions(rows: pd.DataFrame, logits: Logits, config: EvaluateConfig) -> Predictions:
    """Put ids, labels and logits side by side, if every logit is a number."""
    bad = np.flatnonzero(~np.isfinite(logits))
    if len(bad):
        raise RunError(
            f"checkpoint {config.run / BEST} gives the logit {logits[bad[0]]} for image {rows['image_id'][bad[0]]!r} "
            f"({len(bad)} of {len(rows)} images of split {config.split!r} have none that is a number): train again, "
            "with a smaller --lr or without --amp"
        )
    return Predictions(
        image_ids=tuple(rows["image_id"]),
        labels=rows["label"].to_numpy(dtype=np.int64),
        logits=logits,
        probabilities=sigmoid(logits),
    )


def _evaluation(
    config: EvaluateConfig,
    checkpoint: Checkpoint,
    dataset: Dataset,
    rows: pd.DataFrame,
    predictions: Predictions,
    device: torch.device,
) -> Evaluation:
    metrics = judge(predictions.labels, predictions.logits, config.thresholds)
    intervals = count_groups(rows["group"])
    trained_on = dataset.identity == checkpoint.dataset_identity
    return Evaluation(
        folder=config.run / FOLDER,
        split=config.split,
        selected_on_this_data=config.split == "val" if trained_on else None,
        metrics=metrics,
        predictions=predictions,
        intervals=intervals,
        notes=(origin_note(config.split, trained_on=trained_on), interval_note(intervals, len(rows)), *metrics.notes),
        run=_run_identity(config.run, checkpoint),
        dataset=DatasetIdentity(path=_text(dataset.path), identity=dataset.identity, trained_on=trained_on),
        device=str(device),
    )


def _run_identity(run: Path, checkpoint: Checkpoint) -> RunIdentity:
    return RunIdentity(
        path=_text(run),
        checkpoint=BEST,
        sha256=hashlib.sha256((run / BEST).read_bytes()).hexdigest(),
        arch=checkpoint.arch,
        epoch=checkpoint.epoch,
        mean=checkpoint.mean,
        std=checkpoint.std,
        dataset_identity=checkpoint.dataset_identity,
    )


def _text(path: Path) -> str:
    """A path as text that JSON can hold, whatever bytes it is made of."""
    return os.fsencode(path).decode("utf-8", "replace")
