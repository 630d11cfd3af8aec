"""What an evaluation found, and the files that say so; ``docs/metrics.md`` specifies them.

::

    RUN/eval/DATA-SPLIT/predictions.csv         one row per image
    RUN/eval/DATA-SPLIT/roc.png                 the curves are drawn where the split holds both classes
    RUN/eval/DATA-SPLIT/precision_recall.png
    RUN/eval/DATA-SPLIT/confusion.png
    RUN/eval/DATA-SPLIT/metrics.json

All of it takes the place of an earlier evaluation of the same data and split at once.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast import __version__
from pneumo_fast.dataset.leaks import Overlap
from pneumo_fast.drawing.confusion import draw_confusion
from pneumo_fast.drawing.curves import draw_precision_recall, draw_roc
from pneumo_fast.errors import RunError
from pneumo_fast.evaluation.identity import DatasetIdentity, RunIdentity
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.files import write_atomic
from pneumo_fast.folders import replaced_folder
from pneumo_fast.metrics.folds import BY_FOLD
from pneumo_fast.metrics.intervals import LEVEL, Groups, Labels, Logits
from pneumo_fast.metrics.ranking import precision_recall_curve, roc_curve
from pneumo_fast.metrics.scored import Probabilities, call_positive, class_at
from pneumo_fast.metrics.summary import Figures
from pneumo_fast.records import Fault, Head, build, parse_file, plain
from pneumo_fast.run.folder import writing
from pneumo_fast.run.layout import EVALUATED, FIGURES, METRICS, METRICS_FORMAT, METRICS_VERSION, PREDICTIONS


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Predictions:
    """What the model said about each image of a split, in storage order."""

    image_ids: tuple[str, ...]
    labels: Labels
    """int64, shape (n,): 0 or 1."""
    logits: Logits
    """float32, shape (n,), finite."""
    probabilities: Probabilities
    """float64, shape (n,), in [0, 1]: the sigmoid of the logits."""
    calibrated: Probabilities | None
    """The calibrated probabilities; None where there is no calibration."""
    reported: NDArray[np.bool_]
    """bool, shape (n,): false for images that thresholds and calibration were fitted on."""
    groups: Groups
    """int64, shape (n,): number of each image's patient."""
    folds: NDArray[np.int64] | None = None
    """int64, shape (n,): of a cross-validation, each image's fold, from 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervals:
    """How the intervals were computed."""

    level: float = LEVEL
    unit: str
    """What is drawn: ``patient``, or ``image`` where no patient is known."""
    method: str = (
        "percentile bootstrap; Wilson score for shares of 0 and 1; bootstrap of signed deviations for the calibration "
        "error"
    )
    resamples: int
    seed: int
    groups: int | None
    """Groups (patients) in the split; None where no image's is known."""
    images_without_group: int
    """Images whose group is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricsFile(Figures):
    """Content of ``metrics.json``; ``docs/metrics.md`` lists the keys."""

    created_by: str
    split: str
    selected_on_this_data: bool | None
    """As in :class:`Evaluation`."""
    shared_patients: int | None = None
    """Patients that another dataset shares with training; None for the run's own, or where it cannot be known."""
    shared_images: int | None = None
    """The same for images."""
    notes: tuple[str, ...]
    intervals: Intervals
    run: RunIdentity
    dataset: DatasetIdentity
    device: str
    options: EvaluateConfig | None = None
    """The options of ``evaluate``; None in a file of an earlier release."""

    def __post_init__(self) -> None:
        """Refuse lists that are shorter than what reads them expects."""
        curve = self.decision_curve
        if not self.thresholds:
            raise RunError("$.thresholds: at least one expected")
        if not len(curve.threshold) == len(curve.model) == len(curve.treat_all):
            raise RunError("$.decision_curve: lists of one length expected")
        folds = len(self.folds)
        if folds not in {0, len(self.run.folds)} or len(self.spread) != (len(BY_FOLD) if folds else 0):
            raise RunError("$.folds: none, or one for each of run.folds, and their spread, expected")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """A judged split."""

    folder: Path
    """Where the files are."""
    split: str
    selected_on_this_data: bool | None
    """Whether the checkpoint was chosen by these very images; None on another dataset, where it cannot be known."""
    figures: Figures
    predictions: Predictions
    intervals: Intervals
    overlap: Overlap | None
    """What another dataset shares with training; None for the run's own."""
    notes: tuple[str, ...]
    """What a reader has to know beside the figures, one sentence each."""
    run: RunIdentity
    dataset: DatasetIdentity
    device: str
    options: EvaluateConfig


def describe_intervals(groups: pd.Series[str], resamples: int, seed: int) -> Intervals:
    """Say what the bootstrap draws, for the images of a split."""
    known = groups[groups != ""]
    return Intervals(
        unit="patient" if len(known) else "image",
        resamples=resamples,
        seed=seed,
        groups=known.nunique() if len(known) else None,
        images_without_group=len(groups) - len(known),
    )


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but the predictions as plain JSON values; ``docs/metrics.md`` lists the keys."""
    return {
        "format": METRICS_FORMAT,
        "format_version": METRICS_VERSION,
        "created_by": f"pneumo-fast {__version__}",
        "split": evaluation.split,
        "selected_on_this_data": evaluation.selected_on_this_data,
        **asdict(evaluation.figures),
        "shared_patients": evaluation.overlap.patients if evaluation.overlap else None,
        "shared_images": evaluation.overlap.images if evaluation.overlap else None,
        "notes": evaluation.notes,
        "intervals": asdict(evaluation.intervals),
        "run": asdict(evaluation.run),
        "dataset": asdict(evaluation.dataset),
        "device": evaluation.device,
        "options": plain(evaluation.options),
    }


def read_metrics(folder: Path) -> MetricsFile:
    """Read the ``metrics.json`` of an evaluation.

    Raises
    ------
    RunError
        If it is missing, damaged or of another version.
    """
    path, again = folder / METRICS, "run pneumo-fast evaluate again"
    try:
        values = parse_file(path)
        head = build(values, Head)
        if head.format != METRICS_FORMAT:
            raise RunError(f"{path} holds no metrics ({METRICS_FORMAT!r} expected): {again}")
        if head.format_version != METRICS_VERSION:
            raise RunError(
                f"{path} has format version {head.format_version!r}, this release reads {METRICS_VERSION}: {again}"
            )
        return build(values, MetricsFile)
    except (OSError, Fault) as error:
        raise RunError(f"{path} cannot be read ({error}): {again}") from error


def predictions_csv(predictions: Predictions, thresholds: tuple[float, ...]) -> str:
    """Text of ``predictions.csv``.

    A logit has the nine digits that bring back its float32; a probability has those of its float64, so that the
    classes follow from the file.
    """
    table = {
        "image_id": predictions.image_ids,
        "label": predictions.labels,
        "logit": [f"{logit:.9g}" for logit in predictions.logits.tolist()],
        "probability": predictions.probabilities,
        "calibrated_probability": "" if predictions.calibrated is None else predictions.calibrated,
        **({} if predictions.folds is None else {"fold": predictions.folds}),
        "part": np.where(predictions.reported, "report", "choose"),
        **{class_at(t): call_positive(predictions.probabilities, t).astype(int) for t in thresholds},
    }
    return pd.DataFrame(table).to_csv(index=False, lineterminator="\n")


def write(evaluation: Evaluation) -> None:
    """Write every file beside, then put all of them in the place of an earlier evaluation at once.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    thresholds = tuple(result.threshold for result in evaluation.figures.thresholds)
    files = {PREDICTIONS: predictions_csv(evaluation.predictions, thresholds), **_figures(evaluation)}
    metrics = json.dumps(to_json(evaluation), indent=1, allow_nan=False, ensure_ascii=False)
    with writing(evaluation.folder), replaced_folder(evaluation.folder, EVALUATED) as folder:
        for name, content in {**files, METRICS: metrics + "\n"}.items():
            write_atomic(folder / name, content)


def _figures(evaluation: Evaluation) -> dict[str, bytes | str]:
    """PNG files by name; no curves where there is but one class."""
    figures, split = evaluation.figures, "out of fold" if evaluation.figures.folds else evaluation.split
    labels, logits = evaluation.predictions.labels, evaluation.predictions.logits
    roc, precision_recall, confusion = FIGURES
    drawn: dict[str, bytes | str] = {confusion: draw_confusion(figures, split)}
    if figures.ranking.auroc.value is not None:
        drawn[roc] = draw_roc(figures, roc_curve(labels, logits), split)
        drawn[precision_recall] = draw_precision_recall(figures, precision_recall_curve(labels, logits), split)
    return drawn
