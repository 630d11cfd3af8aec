"""All figures of a judged split, computed from its labels, logits and patients; ``docs/metrics.md`` defines each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast.bootstrap import Bootstrap
from pneumo_fast.calibration import Quality, judge_probability
from pneumo_fast.judge_options import EvaluateConfig
from pneumo_fast.operating import Operating
from pneumo_fast.ranking import Ranking, rank
from pneumo_fast.sample import Sample
from pneumo_fast.subgroups import Subgroup, ViewOnly, judge_subgroups, judge_view
from pneumo_fast.thresholds import ThresholdMetrics, always_negative, at_threshold, net_benefits
from pneumo_fast.wording import calibration_notes, rank_notes, threshold_notes, tradeoffs

CURVE: Final = tuple(percent / 100 for percent in range(1, 100))
"""Thresholds of the decision curve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """On which images thresholds and calibration were fitted, and on which they are judged."""

    chosen_on: str
    reported_on: str
    n: int
    """Images reported on."""
    positives: int
    """Of these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """A calibration, and what it does to the images reported on."""

    temperature: float
    log_pos_weight: float
    before: Quality
    after: Quality


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionCurve:
    """Net benefit by threshold; calling no image positive has the benefit 0."""

    scale: str
    """Which probability is compared with the threshold: ``calibrated``, or ``plain`` where there is no calibration."""
    n: int
    """Images."""
    prevalence: float
    """Their share of positives."""
    threshold: tuple[float, ...]
    model: tuple[float, ...]
    """Of the model's calls."""
    treat_all: tuple[float, ...]
    """Of calling every image positive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """All figures."""

    n: int
    """Images, at least 1."""
    positives: int
    """Images labelled 1."""
    negatives: int
    """Images labelled 0."""
    prevalence: float
    """Positives / n."""
    ranking: Ranking
    probability: Quality
    """Of the plain probability, on all images."""
    thresholds: tuple[ThresholdMetrics, ...]
    """At the thresholds that were asked for, on the plain probability and all images."""
    always_negative: ThresholdMetrics
    """The same for calling every image negative."""
    view_only: ViewOnly | None
    """What the view position alone scores; None where it is not known."""
    parts: Parts | None
    """None where nothing could be chosen."""
    calibration: Calibrated | None
    chosen_thresholds: tuple[ThresholdMetrics, ...]
    """Thresholds that were chosen, on the images reported on."""
    decision_curve: DecisionCurve
    prevalence_stated: float | None
    """Share of positives for which predictive values are given as well."""
    subgroups: tuple[Subgroup, ...]
    tradeoffs: tuple[str, ...]
    """What lowering the threshold traded, one sentence per step down."""


def judge(
    sample: Sample,
    rows: pd.DataFrame,
    config: EvaluateConfig,
    operating: Operating | None = None,
    reported: NDArray[np.bool_] | None = None,
    reported_on: str = "",
    train: pd.DataFrame | None = None,
) -> Figures:
    """Compute every figure.

    Parameters
    ----------
    rows : DataFrame
        The sample's rows of the index, in its order.
    operating : Operating, optional
        Calibration and thresholds that were fitted elsewhere.
    reported : ndarray of bool, shape (n,), optional
        The images to judge these on; all by default.
    reported_on : str
        Those, in words.
    train : DataFrame, optional
        Rows of the train split, for the baseline by view.
    """
    bootstrap = Bootstrap(resamples=config.resamples, seed=config.seed)
    fixed = tuple(at_threshold(sample, t, bootstrap, prevalence=config.prevalence) for t in config.thresholds)
    part = sample if reported is None else sample.take(reported)
    return Figures(
        n=sample.n,
        positives=sample.positives,
        negatives=sample.n - sample.positives,
        prevalence=sample.positives / sample.n,
        ranking=rank(sample, bootstrap),
        probability=judge_probability(sample, bootstrap),
        thresholds=fixed,
        always_negative=always_negative(sample, bootstrap),
        view_only=None if train is None else judge_view(sample, rows, train, bootstrap),
        parts=None if operating is None else _parts(operating, part, reported_on),
        calibration=None if operating is None else _calibrated(operating, part, bootstrap),
        chosen_thresholds=tuple(
            at_threshold(part, chosen.threshold, bootstrap, name=chosen.name, prevalence=config.prevalence)
            for chosen in (operating.thresholds if operating else ())
        ),
        decision_curve=_decision_curve(sample if operating is None else part, operating),
        prevalence_stated=config.prevalence,
        subgroups=judge_subgroups(sample, rows, config.thresholds[0], bootstrap),
        tradeoffs=tradeoffs(fixed),
    )


def _parts(operating: Operating, part: Sample, reported_on: str) -> Parts:
    return Parts(chosen_on=operating.chosen_on, reported_on=reported_on, n=part.n, positives=part.positives)


def _recalibrated(operating: Operating, part: Sample) -> Sample:
    return Sample(labels=part.labels, logits=operating.calibration.apply(part.logits), groups=part.groups)


def _calibrated(operating: Operating, part: Sample, bootstrap: Bootstrap) -> Calibrated:
    return Calibrated(
        temperature=operating.calibration.temperature,
        log_pos_weight=operating.calibration.log_pos_weight,
        before=judge_probability(part, bootstrap),
        after=judge_probability(_recalibrated(operating, part), bootstrap),
    )


def _decision_curve(part: Sample, operating: Operating | None) -> DecisionCurve:
    judged = part if operating is None else _recalibrated(operating, part)
    model, treat_all = net_benefits(judged, CURVE)
    return DecisionCurve(
        scale="plain" if operating is None else "calibrated",
        n=part.n,
        prevalence=part.positives / part.n,
        threshold=CURVE,
        model=tuple(model),
        treat_all=tuple(treat_all),
    )


def notes(figures: Figures, sample: Sample, operating: Operating | None) -> tuple[str, ...]:
    """Which figures have no value, and why."""
    found = (*rank_notes(sample, figures.ranking), *threshold_notes(figures.thresholds))
    return found if operating is None else (*found, *calibration_notes(operating.calibration))
