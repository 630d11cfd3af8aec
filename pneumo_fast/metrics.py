"""Figures that judge a classifier, each with its uncertainty: pure functions over labels and logits.

Ranks (AUROC, average precision, the curves) are taken from the logits, which still differ where probabilities
have run into 1. Classes are taken from the probabilities: **probability >= threshold is positive**. A figure that
the data do not define is ``None`` with a note, never 0. Counts, areas and curves come from torchmetrics; rates are
plain quotients of the counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional import classification as tm

from pneumo_fast.intervals import Interval, Labels, Logits, delong_interval, wilson_interval

Probabilities = NDArray[np.float64]

NO_INTERVAL = (
    "The AUROC has no DeLong interval: it needs two images of each class, and scores that neither separate the "
    "classes completely nor are all the same."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """How many images of each class were called what."""

    tn: int
    """Negatives called negative."""
    fp: int
    """Negatives called positive: false alarms."""
    fn: int
    """Positives called negative: missed."""
    tp: int
    """Positives called positive: found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdMetrics:
    """What one threshold gives; rates lie in [0, 1] and are None where they divide by nothing."""

    threshold: float | None
    """Probability from which an image is called positive; None for 'always negative'."""
    accuracy: float
    """Images called right, of all."""
    accuracy_interval: Interval
    """Wilson interval (low, high) of the accuracy."""
    precision: float | None
    """Positives, of the images called positive."""
    precision_interval: Interval | None
    """Wilson interval of the precision."""
    recall: float | None
    """Positives found, of all positives: the sensitivity."""
    recall_interval: Interval | None
    """Wilson interval of the recall."""
    specificity: float | None
    """Negatives called negative, of all negatives."""
    specificity_interval: Interval | None
    """Wilson interval of the specificity."""
    f1: float | None
    """Harmonic mean of precision and recall, 2 tp / (2 tp + fp + fn)."""
    confusion: Confusion
    """The counts behind it all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """All figures of one set of predictions."""

    n: int
    """Images, at least 1."""
    positives: int
    """Images labelled 1."""
    negatives: int
    """Images labelled 0."""
    prevalence: float
    """Positives / n."""
    auroc: float | None
    """Area under the ROC curve; None where the images are all of one class."""
    auroc_interval: Interval | None
    """DeLong interval (low, high); None where it is not defined."""
    average_precision: float | None
    """Area under the precision-recall steps; None where the images are all of one class."""
    thresholds: tuple[ThresholdMetrics, ...]
    """One entry per threshold, in the order they were asked for."""
    always_negative: ThresholdMetrics
    """The same figures for calling every image negative."""
    tradeoffs: tuple[str, ...]
    """What lowering the threshold traded, one sentence per step down."""
    notes: tuple[str, ...]
    """Which figures have no value, and why."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """Points of a curve in the order of falling thresholds; both axes in [0, 1]."""

    x: NDArray[np.float64]
    """False positive rate (ROC) or recall (precision-recall), never falling."""
    y: NDArray[np.float64]
    """True positive rate (ROC) or precision (precision-recall)."""


def sigmoid(logits: Logits) -> Probabilities:
    """Probabilities in float64, so that the stored value decides the class without further rounding."""
    return torch.tensor(logits, dtype=torch.float64).sigmoid().numpy()


def call_positive(probabilities: Probabilities, threshold: float) -> NDArray[np.bool_]:
    """Say which images are called positive: those with ``probability >= threshold``."""
    return probabilities >= threshold


def judge(labels: Labels, logits: Logits, thresholds: Sequence[float]) -> Metrics:
    """Compute every figure.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,), n at least 1
        0 (negative) or 1 (positive).
    logits : ndarray of float32, shape (n,)
        Finite.
    thresholds : sequence of float
        Distinct probabilities in [0, 1].

    Raises
    ------
    ValueError
        If the arrays are empty, differ in length, or hold other values.
    """
    _check(labels, logits)
    positives, n = int(labels.sum()), len(labels)
    probabilities = sigmoid(logits)
    results = tuple(at_threshold(labels, probabilities, threshold) for threshold in thresholds)
    ranked = 0 < positives < n
    interval = delong_interval(labels, logits) if ranked else None
    return Metrics(
        n=n,
        positives=positives,
        negatives=n - positives,
        prevalence=positives / n,
        auroc=auroc(labels, logits) if ranked else None,
        auroc_interval=interval,
        average_precision=average_precision(labels, logits) if ranked else None,
        thresholds=results,
        always_negative=_rates(None, Confusion(tn=n - positives, fp=0, fn=positives, tp=0)),
        tradeoffs=tradeoffs(results),
        notes=(*_rank_notes(n, positives, interval), *_threshold_notes(results)),
    )


def at_threshold(labels: Labels, probabilities: Probabilities, threshold: float) -> ThresholdMetrics:
    """Count what a threshold calls right and wrong, and compute the rates."""
    # torchmetrics itself would compare with ">"; given classes instead of probabilities it only counts.
    called = torch.from_numpy(call_positive(probabilities, threshold).astype(np.int64))
    (tn, fp), (fn, tp) = tm.binary_confusion_matrix(called, torch.tensor(labels)).tolist()
    return _rates(threshold, Confusion(tn=tn, fp=fp, fn=fn, tp=tp))


def _rates(threshold: float | None, c: Confusion) -> ThresholdMetrics:
    n, called = c.tn + c.fp + c.fn + c.tp, c.tp + c.fp
    positives, negatives = c.tp + c.fn, c.tn + c.fp
    return ThresholdMetrics(
        threshold=threshold,
        accuracy=(c.tp + c.tn) / n,
        accuracy_interval=wilson_interval(c.tp + c.tn, n),
        precision=_share(c.tp, called),
        precision_interval=wilson_interval(c.tp, called) if called else None,
        recall=_share(c.tp, positives),
        recall_interval=wilson_interval(c.tp, positives) if positives else None,
        specificity=_share(c.tn, negatives),
        specificity_interval=wilson_interval(c.tn, negatives) if negatives else None,
        f1=_share(2 * c.tp, called + positives),
        confusion=c,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def roc_curve(labels: Labels, logits: Logits) -> Curve:
    """Every point of the ROC curve, from (0, 0) to (1, 1); needs both classes."""
    x, y, _ = tm.binary_roc(_ranks(logits), torch.tensor(labels))
    return Curve(x=x.double().numpy(), y=y.double().numpy())


def precision_recall_curve(labels: Labels, logits: Logits) -> Curve:
    """Every measured point of the precision-recall curve, by rising recall; needs both classes.

    Average precision is the area under the steps that hold each precision from the recall before it.
    """
    precision, recall, _ = tm.binary_precision_recall_curve(_ranks(logits), torch.tensor(labels))
    x, y = (values.flip(0)[1:].double().numpy() for values in (recall, precision))  # without the made-up (0, 1)
    return Curve(x=x, y=y)


def auroc(labels: Labels, logits: Logits) -> float:
    """Area under the ROC curve; both classes are there."""
    return _rounded(tm.binary_auroc(_ranks(logits), torch.tensor(labels)))


def average_precision(labels: Labels, logits: Logits) -> float:
    """Area under the precision-recall steps; both classes are there."""
    return _rounded(tm.binary_average_precision(_ranks(logits), torch.tensor(labels)))


def _ranks(logits: Logits) -> torch.Tensor:
    """Scores in [0, 1] with the order and the ties of the logits.

    torchmetrics guesses from the range whether it was given logits, and would squash them into float32 ties.
    """
    _, rank = np.unique(logits, return_inverse=True)
    return torch.from_numpy(rank / max(int(rank.max()), 1))


def _rounded(area: torch.Tensor) -> float:
    """Seven decimals, which is what the float32 of torchmetrics carries."""
    return min(1.0, round(float(area), 7))


def tradeoffs(results: Sequence[ThresholdMetrics]) -> tuple[str, ...]:
    """One sentence for each step from a threshold to the next lower one."""
    ordered = sorted((r for r in results if r.threshold is not None), key=lambda r: -(r.threshold or 0.0))
    return tuple(tradeoff(higher, lower) for higher, lower in pairwise(ordered))


def tradeoff(higher: ThresholdMetrics, lower: ThresholdMetrics) -> str:
    """Say in a sentence what lowering the threshold gained and what it cost.

    Parameters
    ----------
    higher, lower : ThresholdMetrics
        The same images at a threshold and at a lower one.
    """
    step = f"Lowering the threshold from {higher.threshold} to {lower.threshold}"
    if higher.confusion == lower.confusion:
        return f"{step} changed nothing: no image has a probability between the two."
    return f"{step} {_gained(higher.confusion, lower.confusion)}{_paid(higher.confusion, lower.confusion)}."


def _gained(higher: Confusion, lower: Confusion) -> str:
    positives, gain = lower.tp + lower.fn, lower.tp - higher.tp
    if not positives:
        return "could find nothing, for there are no positives,"
    change = _change("sensitivity", higher.tp / positives, lower.tp / positives)
    return f"found {gain or 'no'} more of {counted(positives, 'positive')} ({change})"


def _paid(higher: Confusion, lower: Confusion) -> str:
    negatives, cost = lower.tn + lower.fp, lower.fp - higher.fp
    if not negatives:
        return "; there are no negatives that could have been false alarms"
    change = _change("specificity", higher.tn / negatives, lower.tn / negatives)
    price = f"at the cost of {counted(cost, 'more false alarm')}" if cost else "without one more false alarm"
    return f" {price} among {counted(negatives, 'negative')} ({change})"


def _change(name: str, before: float, after: float) -> str:
    """Both shares with two decimals, or as many more as it takes to tell them apart."""
    if before == after:
        return f"{name} stays at {after:.2f}"
    digits = next((d for d in range(2, 9) if f"{before:.{d}f}" != f"{after:.{d}f}"), 9)
    return f"{name} {before:.{digits}f} → {after:.{digits}f}"


def counted(number: int, thing: str) -> str:
    """A number with its noun: ``1 image``, ``2 images``."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _rank_notes(n: int, positives: int, interval: Interval | None) -> tuple[str, ...]:
    if positives in (0, n):
        kind = "positive" if positives else "negative"
        note = f"All {n} images are labelled {kind}: AUROC and average precision compare two classes, have no value."
        return (note,)
    if interval is None:
        return (NO_INTERVAL,)
    return ()


def _threshold_notes(results: Sequence[ThresholdMetrics]) -> tuple[str, ...]:
    return tuple(
        f"At threshold {r.threshold} no image is called positive: the precision has no value."
        for r in results
        if r.precision is None
    )


def _check(labels: Labels, logits: Logits) -> None:
    if labels.ndim != 1 or labels.shape != logits.shape or not len(labels):
        raise ValueError(f"labels {labels.shape} and logits {logits.shape}: expected the same shape (n,), n >= 1")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels hold {np.unique(labels)[:5].tolist()}: expected 0 and 1 only")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity: expected finite numbers")
