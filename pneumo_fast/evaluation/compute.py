"""All figures of a judged split, computed from its labels, logits and patients; ``docs/metrics.md`` defines each."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast.evaluation.notes import tradeoffs
from pneumo_fast.evaluation.operating_points import Operating
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.metrics.calibration import judge_probability
from pneumo_fast.metrics.folds import judge_folds, spread_of
from pneumo_fast.metrics.intervals import Bootstrap
from pneumo_fast.metrics.ranking import rank
from pneumo_fast.metrics.scored import Sample
from pneumo_fast.metrics.subgroups import judge_subgroups, judge_view
from pneumo_fast.metrics.summary import Calibrated, DecisionCurve, Figures, Parts
from pneumo_fast.metrics.thresholds import AtThreshold, always_negative, at_threshold, net_benefits

CURVE: Final = tuple(percent / 100 for percent in range(1, 100))
"""Thresholds of the decision curve."""


def judge(
    sample: Sample,
    rows: pd.DataFrame,
    config: EvaluateConfig,
    operating: Operating | None = None,
    reported: NDArray[np.bool_] | None = None,
    reported_on: str = "",
    train: pd.DataFrame | None = None,
    folds: NDArray[np.int64] | None = None,
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
    folds : ndarray of int64, shape (n,), optional
        Of a cross-validation, each image's fold, from 1.
    """
    bootstrap = Bootstrap(resamples=config.resamples, seed=config.seed)
    calibrated = operating.calibration.at if operating else None

    def at(images: Sample, threshold: float, name: str = "") -> AtThreshold:
        risk = calibrated(threshold) if calibrated else None
        return at_threshold(images, threshold, bootstrap, name=name, prevalence=config.prevalence, risk=risk)

    fixed = tuple(at(sample, threshold) for threshold in config.thresholds)
    part = sample if reported is None else sample.take(reported)
    judged, parts, calibration = sample, None, None
    if operating is not None:
        judged = Sample(labels=part.labels, logits=operating.calibration.apply(part.logits), groups=part.groups)
        parts = Parts(chosen_on=operating.chosen_on, reported_on=reported_on, n=part.n, positives=part.positives)
        calibration = Calibrated(
            temperature=operating.calibration.temperature,
            shift=operating.calibration.shift,
            before=judge_probability(part, bootstrap),
            after=judge_probability(judged, bootstrap),
        )
    by_fold = () if folds is None else judge_folds(sample, folds, config.thresholds[0], bootstrap)
    return Figures(
        n=sample.n,
        positives=sample.positives,
        negatives=sample.n - sample.positives,
        prevalence=sample.positives / sample.n,
        ranking=rank(sample, bootstrap),
        probability=judge_probability(sample, bootstrap),
        thresholds=fixed,
        always_negative=always_negative(sample, bootstrap, prevalence=config.prevalence),
        view_only=None if train is None else judge_view(sample, rows, train, bootstrap),
        parts=parts,
        calibration=calibration,
        chosen_thresholds=tuple(
            at(part, chosen.threshold, chosen.name) for chosen in (operating.thresholds if operating else ())
        ),
        decision_curve=_decision_curve(judged, "plain" if operating is None else "calibrated"),
        prevalence_stated=config.prevalence,
        subgroups=judge_subgroups(sample, rows, config.thresholds[0], bootstrap),
        tradeoffs=tradeoffs(fixed),
        folds=by_fold,
        spread=spread_of(by_fold) if by_fold else (),
    )


def _decision_curve(judged: Sample, scale: str) -> DecisionCurve:
    model, treat_all = net_benefits(judged, CURVE)
    return DecisionCurve(
        scale=scale,
        n=judged.n,
        prevalence=judged.positives / judged.n,
        threshold=CURVE,
        model=tuple(model),
        treat_all=tuple(treat_all),
    )
