"""What is concluded from figures, and from how few nothing is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pneumo_fast.evaluation.compute import judge
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.formatting import TERMINAL
from pneumo_fast.metrics.intervals import Estimate
from pneumo_fast.metrics.subgroups import ViewOnly
from pneumo_fast.metrics.summary import Figures
from pneumo_fast.metrics.verdict import conclude, few_of_a_class, warn_of_few, warn_of_useless_thresholds
from tests.support.judged import drawn, rows_of

VIEW = (0.7, 0.6, 0.8)


def figures(positives: int, negatives: int) -> Figures:
    sample = drawn(0, positives, negatives, 1.5)
    return judge(sample, rows_of(sample), EvaluateConfig(resamples=100))


def with_auroc(
    value: float,
    low: float | None,
    high: float | None,
    view: tuple[float, float, float] | None = None,
    apart: tuple[float | None, float | None] | None = None,
) -> Figures:
    """Figures with an AUROC, that of the view alone, and the ends of their difference."""
    found = figures(20, 100)
    auroc: Any = Estimate(value=value, low=low, high=high)
    only = None
    if view is not None:
        difference = None if apart is None else Estimate(value=value - view[0], low=apart[0], high=apart[1])
        baseline = Estimate(value=view[0], low=view[1], high=view[2])
        only = ViewOnly(auroc=baseline, rates={}, difference=difference)
    return replace(found, ranking=replace(found.ranking, auroc=auroc), view_only=only)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (with_auroc(0.8, 0.7, 0.9), "AUROC 0.800 (0.70 to 0.90) is above that of chance (0.500)."),
        (with_auroc(0.6, 0.4, 0.7), "is not distinguishable from that of chance (0.500)."),
        (with_auroc(0.3, 0.2, 0.4), "is below that of chance (0.500)."),
        (
            with_auroc(0.8, 0.75, 0.85, VIEW, (-0.01, 0.2)),
            "is not distinguishable from that of the view position alone (0.700).",
        ),
        (with_auroc(0.75, 0.68, 0.8, VIEW, (0.01, 0.1)), "is above that of the view position alone (0.700)."),
        (with_auroc(0.65, 0.5, 0.8, VIEW, (-0.1, -0.01)), "is below that of the view position alone (0.700)."),
        (
            with_auroc(0.8, 0.75, 0.85, VIEW, (None, None)),
            "is not distinguishable from the view position alone (0.700).",
        ),
        (with_auroc(0.8, 0.7, 0.9, (0.4, 0.3, 0.5), (-0.1, 0.4)), "is above that of chance (0.500)."),
        # of an earlier release, which kept no difference: the intervals have to be apart
        (with_auroc(0.8, 0.75, 0.85, VIEW), "is not distinguishable from that of the view position alone (0.700)."),
        (with_auroc(0.85, 0.81, 0.9, VIEW), "is above that of the view position alone (0.700)."),
        (with_auroc(1.0, None, None), "is not distinguishable from chance (0.500)."),
    ],
)
def test_the_interval_decides_what_is_said(found: Figures, said: str) -> None:
    assert said in conclude(found, TERMINAL)
    assert "At threshold 0.5, sensitivity is 0." in conclude(found, TERMINAL)


def test_one_class_has_no_conclusion() -> None:
    assert (
        conclude(figures(0, 30), TERMINAL) == "The 30 images are of one class: how well the model ranks cannot be said."
    )


@pytest.mark.parametrize(
    ("positives", "negatives", "few"), [(10, 90, False), (9, 91, True), (91, 9, True), (50, 49, True), (0, 200, True)]
)
def test_too_few_to_conclude(positives: int, negatives: int, few: bool) -> None:
    assert (warn_of_few(figures(positives, negatives)) is not None) == few
    assert few_of_a_class(positives + negatives, positives) == (min(positives, negatives) < 10)


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (0.0, None),
        (-9.0, "No fixed threshold is useful: at 0.5 sensitivity is below 0.1, at 0.25 sensitivity is below 0.1."),
        (9.0, "at 0.5 specificity is below 0.1, at 0.25 specificity is below 0.1."),
    ],
)
def test_thresholds_that_are_of_no_use(shift: float, said: str | None) -> None:
    sample = drawn(0, 30, 100, 1.5)
    moved = replace(sample, logits=sample.logits + np.float32(shift))
    found = warn_of_useless_thresholds(judge(moved, rows_of(moved), EvaluateConfig(resamples=100)))
    assert found is None if said is None else said in (found or "")


def test_one_threshold_of_use_is_enough() -> None:
    sample = drawn(0, 30, 100, 1.5)
    moved = replace(sample, logits=sample.logits - np.float32(9))
    options = EvaluateConfig(resamples=100, thresholds=(0.5, 0.0005))
    assert warn_of_useless_thresholds(judge(moved, rows_of(moved), options)) is None
