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

from pneumo_fast.metrics.intervals import (
    Bootstrap,
    Drawn,
    Estimate,
    Groups,
    Labels,
    Values,
    estimate,
    percentile_interval,
)
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
    estimates = [Estimate(value=None)] * (2 + 2 * len(levels))
    if sample.two_classes:
        order = RankOrder.of(sample.labels, sample.logits, sample.groups)
        once = np.ones((1, int(sample.groups.max()) + 1), np.float32)
        values = order.figures(once, levels)[0].tolist()
        values[:2] = [auroc(sample.labels, sample.logits), average_precision(sample.labels, sample.logits)]
        again = bootstrap.each(sample.groups, lambda drawn: order.figures(drawn, levels))
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


def resampled(
    labels: Labels, scores: Scores, groups: Groups, bootstrap: Bootstrap, levels: tuple[float, ...] = ()
) -> Values:
    """Figures of the resamples: parameters of :meth:`RankOrder.of`, figures of :meth:`RankOrder.figures`.

    Returns
    -------
    ndarray of float64, shape (resamples, 2 + 2 * len(levels))
    """
    order = RankOrder.of(labels, scores, groups)
    return bootstrap.each(groups, lambda drawn: order.figures(drawn, levels))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RankOrder:
    """What figures need to know that depend on the order of the scores alone, however often each patient is drawn.

    The counts are by the distinct scores of the positives, falling: between two of them only false positives are added,
    so that no best value lies there.
    """

    positives: Groups
    """Shape (positives,): patients of the positives, from the highest score down."""
    negatives: Groups
    """Shape (negatives,): those of the negatives."""
    tp: NDArray[np.int64]
    """Shape (scores,): positives with at least this score."""
    fp: NDArray[np.int64]
    """Shape (scores,): negatives with at least this score."""
    fp_above: NDArray[np.int64]
    """Shape (scores,): negatives with a higher one."""

    @classmethod
    def of(cls, labels: Labels, scores: Scores, groups: Groups) -> RankOrder:
        """Sort images.

        Parameters
        ----------
        labels, groups : ndarray of int64, shape (n,)
        scores : ndarray of float, shape (n,)
            Finite.
        """
        (up, positives), (down, negatives) = (_sorted(scores[labels == y], groups[labels == y]) for y in (1, 0))
        at = np.unique(up)[::-1]
        return cls(
            positives=positives,
            negatives=negatives,
            tp=len(up) - np.searchsorted(up, at, side="left"),
            fp=len(down) - np.searchsorted(down, at, side="left"),
            fp_above=len(down) - np.searchsorted(down, at, side="right"),
        )

    def figures(self, drawn: Drawn, levels: tuple[float, ...]) -> Values:
        """AUROC, average precision, and best sensitivity and specificity at given levels of the other.

        Parameters
        ----------
        drawn : ndarray of float32, shape (b, patients)
        levels : tuple of float
            Specificities at which the highest sensitivity is wanted, and the reverse.

        Returns
        -------
        ndarray of float64, shape (b, 2 + 2 * len(levels))
            AUROC, average precision, sensitivity at each level of specificity, specificity at each of sensitivity; NaN
            where a class is not there.
        """
        positives, negatives = _running_sum(drawn, self.positives), _running_sum(drawn, self.negatives)
        all_positives, all_negatives = positives[:, -1:], negatives[:, -1:]
        tp = np.take(positives, self.tp, axis=1)
        fp, fp_above = (np.take(negatives, places, axis=1) for places in (self.fp, self.fp_above))
        new_tp = np.diff(tp, prepend=0.0, axis=1)
        pairs = (all_positives * all_negatives)[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            # Halves and whole numbers: every sum is exact, whatever its order.
            area = (pairs - np.einsum("ij,ij->i", new_tp, fp_above + fp) / 2) / pairs
            average = (new_tp * tp / np.maximum(tp + fp, 1.0)).sum(axis=1) / all_positives[:, 0]
            figures = [area, np.where(pairs > 0, average, np.nan)]
            for level in levels:
                allowed = (1 - level + 1e-9) * all_negatives  # the rest of a rounded level must not cost one
                most_tp = np.where(fp <= allowed, tp, 0.0).max(axis=1, initial=0.0)
                figures.append(np.where(pairs > 0, most_tp / all_positives[:, 0], np.nan))
            for level in levels:
                needed = (level - 1e-9) * all_positives
                least_fp = np.where(tp >= needed, fp, np.inf).min(axis=1, initial=np.inf)
                figures.append(np.where(pairs > 0, 1 - least_fp / all_negatives[:, 0], np.nan))
        return np.stack(figures, axis=1)


def _sorted(scores: Scores, groups: Groups) -> tuple[Scores, Groups]:
    """Scores from the lowest up, and patients from the highest score down."""
    order = np.argsort(scores, kind="stable")
    return scores[order], groups[order[::-1]]


def _running_sum(drawn: Drawn, groups: Groups) -> Values:
    """How many of the first 0, 1, 2, ... images are drawn; float64, shape (b, len(groups) + 1)."""
    sums = np.zeros((len(drawn), len(groups) + 1))
    np.cumsum(np.take(drawn, groups, axis=1), axis=1, dtype=np.float64, out=sums[:, 1:])
    return sums


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
