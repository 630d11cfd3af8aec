"""What depends on the order of the images alone: AUROC, average precision, the curves.

Areas and curves are torchmetrics' own, from ranks (see :func:`ranks`); intervals are the bootstrap's over patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional import classification as tm

from pneumo_fast.metrics.intervals import Bootstrap, Estimate, Labels, estimate, percentile_interval, rank_figures
from pneumo_fast.metrics.scored import Sample, Scores

LEVELS: Final = (0.9, 0.95)
"""Specificities at which the sensitivity is given, and the reverse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SensitivityAt:
    """The highest sensitivity that some threshold gives at no less than a specificity, one of :data:`LEVELS`."""

    specificity: float
    sensitivity: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecificityAt:
    """The highest specificity that some threshold gives at no less than a sensitivity, one of :data:`LEVELS`."""

    sensitivity: float
    specificity: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """What depends on the order of the images alone, in [0, 1]; one sensitivity and one specificity per level."""

    auroc: Estimate
    average_precision: Estimate
    sensitivity_at_specificity: tuple[SensitivityAt, ...]
    specificity_at_sensitivity: tuple[SpecificityAt, ...]


def rank(sample: Sample, bootstrap: Bootstrap, levels: tuple[float, ...] = LEVELS) -> Ranking:
    """Judge the order of the images; every figure is None where they are all of one class.

    Parameters
    ----------
    levels : tuple of float, optional
        Specificities at which the sensitivity is wanted, and the reverse; without them it takes less time.
    """
    count = 2 + 2 * len(levels)
    estimates = [Estimate(value=None)] * count
    if sample.two_classes:
        order = np.argsort(-sample.logits, kind="stable")
        once = np.ones((1, sample.n), np.float32)
        values = rank_figures(sample.labels[order], sample.logits[order], once, levels)[0].tolist()
        values[:2] = [auroc(sample.labels, sample.logits), average_precision(sample.labels, sample.logits)]
        again = bootstrap.ranked(sample.labels, sample.logits, sample.groups, levels)
        estimates = [estimate(v, percentile_interval(r)) for v, r in zip(values, again.T, strict=True)]
    at_specificity, at_sensitivity = estimates[2 : 2 + len(levels)], estimates[2 + len(levels) :]
    return Ranking(
        auroc=estimates[0],
        average_precision=estimates[1],
        sensitivity_at_specificity=tuple(
            SensitivityAt(specificity=level, sensitivity=e) for level, e in zip(levels, at_specificity, strict=True)
        ),
        specificity_at_sensitivity=tuple(
            SpecificityAt(sensitivity=level, specificity=e) for level, e in zip(levels, at_sensitivity, strict=True)
        ),
    )


def rank_by_area(sample: Sample, bootstrap: Bootstrap) -> Estimate:
    """The AUROC of :func:`rank` alone, in a part of the time."""
    if not sample.two_classes:
        return Estimate(value=None)
    again = bootstrap.areas(sample.labels, sample.logits, sample.groups)
    return estimate(auroc(sample.labels, sample.logits), percentile_interval(again))


def auroc(labels: Labels, scores: Scores) -> float:
    """Area under the ROC curve, in [0, 1].

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        0 or 1, both at least once.
    scores : ndarray of float, shape (n,)
        Finite; the higher, the more likely positive.
    """
    return _rounded(tm.binary_auroc(ranks(scores), torch.tensor(labels)))


def average_precision(labels: Labels, scores: Scores) -> float:
    """Area under the precision-recall steps, in [0, 1]; parameters as of :func:`auroc`."""
    return _rounded(tm.binary_average_precision(ranks(scores), torch.tensor(labels)))


def ranks(scores: Scores) -> torch.Tensor:
    """Scores in [0, 1] with the order and the ties of the given ones.

    torchmetrics guesses from the range whether it was given logits, and would squash them into float32 ties.

    Returns
    -------
    Tensor of float64, shape (n,)
    """
    _, place = np.unique(scores, return_inverse=True)
    return torch.from_numpy(place / max(int(place.max()), 1))


def _rounded(area: torch.Tensor) -> float:
    """Seven decimals, which is what the float32 of torchmetrics carries."""
    return min(1.0, round(float(area), 7))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """Points of a curve in the order of falling thresholds; both axes in [0, 1]."""

    x: NDArray[np.float64]
    """Shape (points,): false positive rate (ROC) or recall (precision-recall), never falling."""
    y: NDArray[np.float64]
    """Shape (points,): true positive rate (ROC) or precision (precision-recall)."""


def roc_curve(labels: Labels, logits: Scores) -> Curve:
    """Every point of the ROC curve, from (0, 0) to (1, 1); parameters as of :func:`auroc`."""
    x, y, _ = tm.binary_roc(ranks(logits), torch.tensor(labels))
    return Curve(x=x.double().numpy(), y=y.double().numpy())


def precision_recall_curve(labels: Labels, logits: Scores) -> Curve:
    """Every measured point of the precision-recall curve, by rising recall; parameters as of :func:`auroc`.

    Average precision is the area under the steps that hold each precision from the recall before it.
    """
    precision, recall, _ = tm.binary_precision_recall_curve(ranks(logits), torch.tensor(labels))
    x, y = (values.flip(0)[1:].double().numpy() for values in (recall, precision))  # without the made-up (0, 1)
    return Curve(x=x, y=y)
