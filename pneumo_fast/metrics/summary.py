"""All figures of a judged split, as dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

from pneumo_fast.metrics.calibration import Quality
from pneumo_fast.metrics.folds import FoldFigures, Spread
from pneumo_fast.metrics.ranking import Ranking
from pneumo_fast.metrics.subgroups import Subgroup, ViewOnly
from pneumo_fast.metrics.thresholds import AtThreshold, ThresholdMetrics


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """On which images thresholds and calibration were fitted, and on which they are judged, both in words."""

    chosen_on: str
    reported_on: str
    n: int
    """Images reported on."""
    positives: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """A :class:`~pneumo_fast.metrics.calibration.Calibration`, and what it does to the images reported on."""

    temperature: float
    shift: float
    before: Quality
    """Of the plain probability."""
    after: Quality
    """Of the calibrated one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionCurve:
    """Net benefit by threshold, for ``n`` images; calling no image positive has the benefit 0."""

    scale: str
    """Which probability is compared with the threshold: ``calibrated``, or ``plain`` where there is no calibration."""
    n: int
    prevalence: float
    """Their share of positives, in [0, 1]."""
    threshold: tuple[float, ...]
    """Probabilities between 0 and 1, rising."""
    model: tuple[float, ...]
    """Net benefit of the model's calls at each, at most the prevalence."""
    treat_all: tuple[float, ...]
    """That of calling every image positive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """All figures of ``n`` images, at least one."""

    n: int
    positives: int
    negatives: int
    prevalence: float
    """Positives / n."""
    ranking: Ranking
    probability: Quality
    """Of the plain probability, on all images."""
    thresholds: tuple[AtThreshold, ...]
    """At the thresholds that were asked for, on the plain probability and all images."""
    always_negative: ThresholdMetrics
    """The same for calling every image negative."""
    view_only: ViewOnly | None
    """What the view position alone scores; None where it is not known."""
    parts: Parts | None
    """None where nothing could be chosen."""
    calibration: Calibrated | None
    chosen_thresholds: tuple[AtThreshold, ...]
    """Thresholds that were chosen, on the images reported on."""
    decision_curve: DecisionCurve
    prevalence_stated: float | None
    """Share of positives for which predictive values are given as well."""
    subgroups: tuple[Subgroup, ...]
    tradeoffs: tuple[str, ...]
    """What lowering the threshold traded, one sentence per step down."""
    folds: tuple[FoldFigures, ...] = ()
    """Of a cross-validation."""
    spread: tuple[Spread, ...] = ()
    """Of the folds' figures."""
