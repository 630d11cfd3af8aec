"""Judges a run's best checkpoint on one split; :mod:`pneumo_fast.evaluation.results` says what is written."""

from __future__ import annotations

from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast.dataset.leaks import Overlap, overlap_with_training, overlap_within
from pneumo_fast.evaluation import operating_points as points
from pneumo_fast.evaluation.compute import judge
from pneumo_fast.evaluation.folders import folder_for
from pneumo_fast.evaluation.inference import Judged, infer, named_datasets, open_run
from pneumo_fast.evaluation.notes import notes_of
from pneumo_fast.evaluation.operating_points import Operating
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.evaluation.results import Evaluation, Predictions, describe_intervals, write
from pneumo_fast.metrics.intervals import group_numbers
from pneumo_fast.metrics.scored import Sample, sigmoid
from pneumo_fast.progress import OnProgress, silent
from pneumo_fast.vocabulary import counted


def evaluate(config: EvaluateConfig, on_progress: OnProgress = silent) -> Evaluation:
    """Judge a run's best checkpoint and write ``RUN/eval/DATA-SPLIT/``; of its own data, ``RUN/operating.json`` too.

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
    judged = open_run(config.run, config.dataset, config.device)
    rows, sample, read = _judge(judged, config.split, config, on_progress)
    operating, reported, reported_on = _operating(judged, rows, sample, config)
    out_of_fold = judged.is_cross_validation and not judged.averages(config.split)
    folds = judged.judges(config.split)[read] + 1 if out_of_fold else None
    figures = judge(sample, rows, config, operating, reported, reported_on, _training_rows(judged), folds)
    intervals = describe_intervals(rows["group"], config.resamples, config.seed)
    overlap = _overlap(judged, config.split, rows)
    evaluation = Evaluation(
        folder=folder_for(config.run, judged.dataset_identity, config.split),
        split=config.split,
        selected_on_this_data=config.split == "val" if judged.trained_on else None,
        figures=figures,
        predictions=_predictions(rows["image_id"].tolist(), sample, operating, reported, folds),
        intervals=intervals,
        overlap=overlap,
        notes=tuple(
            notes_of(judged, config.split, sample, figures, intervals, overlap, operating, unread=int((~read).sum()))
        ),
        run=judged.run_identity,
        dataset=judged.dataset_identity,
        device=str(judged.device),
        options=config,
    )
    write(evaluation)
    if operating is not None and judged.trained_on and not judged.is_cross_validation:
        points.save(config.run, operating)
    return evaluation


def _overlap(judged: Judged, split: str, rows: pd.DataFrame) -> Overlap | None:
    """Patients and images that training has seen; None where they need no check."""
    if judged.trained_on:
        out_of_fold = judged.is_cross_validation and split == "val"
        return None if out_of_fold or split == "train" else overlap_within(judged.dataset, split)
    trained_on = named_datasets(judged.models[0].run)
    return overlap_with_training(trained_on, judged.dataset, rows) if trained_on else None


def _training_rows(judged: Judged) -> pd.DataFrame | None:
    """The images that a baseline learns from; of a cross-validation all, most of which each fold was trained on."""
    if not judged.trained_on:
        return None
    return judged.rows("val" if judged.is_cross_validation else "train")


class _Seen(NamedTuple):
    """The images of a split that could be read, and what the model said of them."""

    rows: pd.DataFrame
    sample: Sample
    read: NDArray[np.bool_]
    """Which images of the split they are."""


def _judge(judged: Judged, split: str, config: EvaluateConfig, on_progress: OnProgress) -> _Seen:
    rows, logits = judged.rows(split), infer(judged, split, config.batch_size, on_progress)
    read = np.isfinite(logits)
    rows = rows[read].reset_index(drop=True)
    labels, groups = rows["label"].to_numpy(dtype=np.int64), group_numbers(rows["group"])
    return _Seen(rows, Sample(labels=labels, logits=logits[read], groups=groups), read)


def _operating(
    judged: Judged, rows: pd.DataFrame, sample: Sample, config: EvaluateConfig
) -> tuple[Operating | None, NDArray[np.bool_] | None, str]:
    """Calibration and thresholds, the images to judge them on (None: all), and these in words."""
    whole = f"all {counted(sample.n, 'image')} of split {config.split!r}"
    if judged.averages(config.split):  # a mean of logits has another scale than the logits of single folds
        return None, None, whole
    sha256, shift = judged.run_identity.sha256, _prior_shift(judged)
    if not judged.trained_on:
        return points.load(config.run, sha256), None, whole
    if config.split != "val":
        other = _judge(judged, "val", config, silent).sample
        return points.fit(other, shift, config, sha256, f"split 'val' ({counted(other.n, 'image')})"), None, whole
    chosen = points.halve(rows, config.seed)
    if chosen is None:
        return None, None, whole
    half = sample.take(chosen)
    by = "patients" if (rows["group"] != "").any() else "images"
    said = f"half of the {by} of split 'val' ({counted(half.n, 'image')})"
    return points.fit(half, shift, config, sha256, said), ~chosen, f"the other half ({sample.n - half.n} images)"


def _prior_shift(judged: Judged) -> float | None:
    """That of the checkpoint; of a cross-validation the mean: the folds' shares of positives are alike."""
    shifts = [model.checkpoint.prior_shift for model in judged.models]
    known = [shift for shift in shifts if shift is not None]
    return fmean(known) if len(known) == len(shifts) else None


def _predictions(
    image_ids: list[str],
    sample: Sample,
    operating: Operating | None,
    reported: NDArray[np.bool_] | None,
    folds: NDArray[np.int64] | None,
) -> Predictions:
    """Put ids, labels and what the model said side by side."""
    return Predictions(
        image_ids=tuple(image_ids),
        labels=sample.labels,
        logits=sample.logits.astype(np.float32),
        probabilities=sample.probabilities,
        calibrated=None if operating is None else sigmoid(operating.calibration.apply(sample.logits)),
        reported=np.ones(sample.n, bool) if reported is None else reported,
        groups=sample.groups,
        folds=folds,
    )
