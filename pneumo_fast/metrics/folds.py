"""Figures of each fold of a cross-validation, and how far they are apart.

A fold is judged by its own images and patients. The folds share training images, so that their standard deviation is no
standard error (Bengio and Grandvalet, JMLR 5 (2004) 1089).
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.metrics.calibration import judge_probability
from pneumo_fast.metrics.catalogue import AUROC, AVERAGE_PRECISION, BRIER, SENSITIVITY, SPECIFICITY
from pneumo_fast.metrics.intervals import Bootstrap, Estimate
from pneumo_fast.metrics.ranking import rank
from pneumo_fast.metrics.scored import Sample
from pneumo_fast.metrics.thresholds import at_threshold

BY_FOLD: Final = (AUROC, AVERAGE_PRECISION, BRIER, SENSITIVITY, SPECIFICITY)
"""What is given of each fold; the last two at the first threshold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldFigures:
    """The ``n`` images of a fold, at least one, judged by the model that was not trained on them."""

    fold: int
    """From 1."""
    n: int
    positives: int
    auroc: Estimate
    average_precision: Estimate
    brier: Estimate
    recall: Estimate
    specificity: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A figure over the folds; each value is None where a fold does not define the figure."""

    key: str
    """Of :data:`BY_FOLD`."""
    mean: float | None
    sd: float | None
    """Standard deviation of the folds' figures, by n - 1."""
    least: float | None
    most: float | None


def judge_folds(
    sample: Sample, folds: NDArray[np.int64], threshold: float, bootstrap: Bootstrap
) -> tuple[FoldFigures, ...]:
    """Judge every fold by itself.

    Parameters
    ----------
    folds : ndarray of int64, shape (n,)
        Each image's fold, from 1.
    threshold : float
        Probability in [0, 1] from which an image is called positive.
    """
    return tuple(_judge(sample.take(folds == fold), fold, threshold, bootstrap) for fold in np.unique(folds).tolist())


def _judge(own: Sample, fold: int, threshold: float, bootstrap: Bootstrap) -> FoldFigures:
    ranking, at = rank(own, bootstrap, levels=()), at_threshold(own, threshold, bootstrap)
    return FoldFigures(
        fold=fold,
        n=own.n,
        positives=own.positives,
        auroc=ranking.auroc,
        average_precision=ranking.average_precision,
        brier=judge_probability(own, bootstrap).brier,
        recall=at.recall,
        specificity=at.specificity,
    )


def spread_of(folds: tuple[FoldFigures, ...]) -> tuple[Spread, ...]:
    """How far the figures of at least two folds are apart."""
    return tuple(_spread(metric.key, [getattr(fold, metric.key).value for fold in folds]) for metric in BY_FOLD)


def _spread(key: str, found: list[float | None]) -> Spread:
    values = [value for value in found if value is not None]
    if len(values) < len(found):
        return Spread(key=key, mean=None, sd=None, least=None, most=None)
    return Spread(
        key=key, mean=statistics.fmean(values), sd=statistics.stdev(values), least=min(values), most=max(values)
    )
