"""What an evaluation found, and the files that say so; ``docs/metrics.md`` specifies them.

::

    RUN/eval/predictions.csv        one row per image
    RUN/eval/roc.png                the curves are drawn where the split holds both classes
    RUN/eval/precision_recall.png
    RUN/eval/confusion.png
    RUN/eval/metrics.json           written last: where it is, the other files belong to it
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from pneumo_fast import __version__, plots
from pneumo_fast.errors import RunError
from pneumo_fast.files import write_atomic
from pneumo_fast.intervals import LEVEL, Labels, Logits
from pneumo_fast.metrics import Metrics, Probabilities, call_positive, counted, precision_recall_curve, roc_curve

METRICS: Final = "metrics.json"
PREDICTIONS: Final = "predictions.csv"
FIGURES: Final = ("roc.png", "precision_recall.png", "confusion.png")
FORMAT: Final = "pneumo-fast metrics"
FORMAT_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Predictions:
    """What the model said about each image of a split, in storage order."""

    image_ids: tuple[str, ...]
    """Ids as the dataset's index has them."""
    labels: Labels
    """int64, shape (n,): 0 or 1."""
    logits: Logits
    """float32, shape (n,), finite."""
    probabilities: Probabilities
    """float64, shape (n,), in [0, 1]: the sigmoid of the logits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """Which checkpoint was judged."""

    path: str
    """The run folder, as it was named."""
    checkpoint: str
    """File name of the checkpoint in it."""
    sha256: str
    """Checksum of the checkpoint, in hexadecimal."""
    arch: str
    """Name of the torchvision classifier."""
    epoch: int
    """Finished epochs at the checkpoint."""
    mean: float
    """Mean that the images were normalized with, in [0, 1]."""
    std: float
    """Standard deviation that the images were normalized with, in [0, 1]."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervals:
    """How the intervals were computed, and what they leave out."""

    level: float = LEVEL
    """Confidence level."""
    unit: str = "image"
    """What counts as one independent observation."""
    auroc: str = "DeLong variance, logit scale"
    """Method for the AUROC."""
    rates: str = "Wilson score"
    """Method for accuracy, precision, recall and specificity."""
    groups: int | None
    """Groups (patients) in the split; None where no image's is known."""
    images_without_group: int
    """Images whose group is not known."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """A judged split."""

    folder: Path
    """Where the files are."""
    split: str
    """``train``, ``val`` or ``test``."""
    selected_on_this_data: bool | None
    """Whether the checkpoint was chosen by these very images; None on another dataset, where it cannot be known."""
    metrics: Metrics
    """All figures."""
    predictions: Predictions
    """What they come from."""
    intervals: Intervals
    """How far the intervals go."""
    notes: tuple[str, ...]
    """What a reader has to know beside the figures, one sentence each."""
    run: RunIdentity
    """The checkpoint."""
    dataset: DatasetIdentity
    """The images."""
    device: str
    """Where the model ran."""


def count_groups(groups: pd.Series[str]) -> Intervals:
    """Say how many groups (patients) the images of a split are of; ``""`` is an unknown one."""
    known = groups[groups != ""]
    return Intervals(groups=known.nunique() if len(known) else None, images_without_group=len(groups) - len(known))


def origin_note(split: str, *, trained_on: bool) -> str:
    """Say what the figures are worth, seen from where the images come from."""
    if not trained_on:
        return (
            "This is not the dataset that the run was trained on: whether the model, or the choice of its checkpoint, "
            "has seen these images or patients cannot be known."
        )
    if split == "train":
        return "The model was trained on these images: the figures say nothing about new ones."
    if split == "val":
        return (
            "The figures come from the data that selected the checkpoint (best AUROC on split 'val'), so they flatter "
            "it; a test split (convert --test-fraction) would not."
        )
    return f"Split {split!r} took no part in training or in the choice of the checkpoint."


def interval_note(intervals: Intervals, n: int) -> str:
    """Say what the intervals leave out."""
    base = "The intervals count every image as independent"
    if intervals.groups is None:
        return f"{base}; which images are of one patient is not known."
    without = intervals.images_without_group
    unknown = f" {counted(without, 'image')} {'has' if without == 1 else 'have'} no known patient." if without else ""
    if intervals.groups == n - without:
        return f"{base}, and each image is of another patient.{unknown}"
    several = f"{counted(n - without, 'image')} are of {counted(intervals.groups, 'patient')}"
    return f"{base}, but {several}: they are too narrow.{unknown}"


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but the predictions as plain JSON values; ``docs/metrics.md`` lists the keys."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "created_by": f"pneumo-fast {__version__}",
        "split": evaluation.split,
        "selected_on_this_data": evaluation.selected_on_this_data,
        **asdict(evaluation.metrics),
        "notes": evaluation.notes,  # these hold the notes of the metrics, too
        "intervals": asdict(evaluation.intervals),
        "run": asdict(evaluation.run),
        "dataset": asdict(evaluation.dataset),
        "device": evaluation.device,
    }


def predictions_csv(predictions: Predictions, thresholds: tuple[float, ...]) -> str:
    """Text of ``predictions.csv``.

    A logit has the nine digits that bring back its float32; a probability has those of its float64, so that the
    classes follow from the file.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image_id", "label", "logit", "probability", *(f"class_at_{t}" for t in thresholds)])
    classes = [call_positive(predictions.probabilities, t).astype(int).tolist() for t in thresholds]
    logits = (f"{logit:.9g}" for logit in predictions.logits.tolist())
    values = (predictions.labels.tolist(), logits, predictions.probabilities.tolist(), *classes)
    table.writerows(zip(predictions.image_ids, *values, strict=True))
    return text.getvalue()


def clear(folder: Path) -> None:
    """Make the folder, without what an earlier evaluation left; ``metrics.json`` goes first.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    with _writing(folder):
        folder.mkdir(exist_ok=True)
        for name in (METRICS, PREDICTIONS, *FIGURES):
            (folder / name).unlink(missing_ok=True)


def write(evaluation: Evaluation) -> None:
    """Write every file whole, ``metrics.json`` last.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    thresholds = tuple(r.threshold for r in evaluation.metrics.thresholds if r.threshold is not None)
    files = {PREDICTIONS: predictions_csv(evaluation.predictions, thresholds), **_figures(evaluation)}
    metrics = json.dumps(to_json(evaluation), indent=1, allow_nan=False, ensure_ascii=False)
    with _writing(evaluation.folder):
        for name, content in files.items():
            write_atomic(evaluation.folder / name, content)
        write_atomic(evaluation.folder / METRICS, metrics + "\n")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror or error}): make room or allow writing") from error


def _figures(evaluation: Evaluation) -> dict[str, bytes | str]:
    """PNG files by name; no curves where there is but one class."""
    metrics, split = evaluation.metrics, evaluation.split
    labels, logits = evaluation.predictions.labels, evaluation.predictions.logits
    roc, precision_recall, confusion = FIGURES
    drawn: dict[str, bytes | str] = {confusion: plots.draw_confusion(metrics, split)}
    if metrics.auroc is not None:
        drawn[roc] = plots.draw_roc(metrics, roc_curve(labels, logits), split)
        drawn[precision_recall] = plots.draw_precision_recall(metrics, precision_recall_curve(labels, logits), split)
    return drawn
