"""What depends on the order alone, each figure against a second way to get it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from numpy.typing import NDArray
from torchmetrics.functional import classification as tm

from pneumo_fast.metrics.ranking import precision_recall_curve, rank, roc_curve
from tests.support.judged import FEW, IMAGES, average_precision_by_hand, both_classes, drawn, mann_whitney, sample_of


@given(IMAGES.filter(both_classes))
def test_auroc_is_the_mann_whitney_count(images: list[tuple[int, float]]) -> None:
    sample = sample_of(images)
    assert rank(sample, FEW).auroc.value == pytest.approx(mann_whitney(sample.labels, sample.logits), abs=1e-6)


@given(IMAGES.filter(both_classes))
def test_average_precision_is_the_sum_by_hand(images: list[tuple[int, float]]) -> None:
    sample = sample_of(images)
    expected = average_precision_by_hand(sample.labels, sample.logits)
    assert rank(sample, FEW).average_precision.value == pytest.approx(expected, abs=1e-6)


def test_average_precision_worked_example() -> None:
    # Found at ranks 1, 3 and 4 of 5: precisions 1/1, 2/3, 3/4.
    sample = sample_of([(1, 3.0), (0, 2.0), (1, 1.0), (1, 0.0), (0, -1.0)])
    assert rank(sample, FEW).average_precision.value == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_best_sensitivity_and_specificity_are_torchmetrics(seed: int) -> None:
    sample = drawn(seed, 37, 83, 1.2)
    probabilities, target = torch.from_numpy(sample.probabilities), torch.from_numpy(sample.labels)
    found = rank(sample, FEW)
    for at in found.sensitivity_at_specificity:
        best, _ = tm.binary_sensitivity_at_specificity(probabilities, target, min_specificity=at.specificity)
        assert at.sensitivity.value == pytest.approx(best.item(), abs=1e-6)
    for other in found.specificity_at_sensitivity:
        best, _ = tm.binary_specificity_at_sensitivity(probabilities, target, min_sensitivity=other.sensitivity)
        assert other.specificity.value == pytest.approx(best.item(), abs=1e-6)


def test_a_specificity_that_is_just_reached_counts() -> None:
    # one false alarm of ten negatives is a specificity of 0.9, though 1 - 0.9 is less than 0.1 in floating point
    sample = sample_of([(1, 5.0), (0, 4.0), (1, 3.0), *[(0, -float(i)) for i in range(9)]])
    at = rank(sample, FEW).sensitivity_at_specificity
    assert [(a.specificity, a.sensitivity.value) for a in at] == [(0.9, 1.0), (0.95, 0.5)]


@given(IMAGES.filter(both_classes))
def test_every_interval_is_in_order(images: list[tuple[int, float]]) -> None:
    found = rank(sample_of(images), FEW)
    for e in (found.auroc, found.average_precision, found.sensitivity_at_specificity[0].sensitivity):
        assert e.low is None or e.high is None or 0 <= e.low < e.high <= 1


def test_logits_that_share_a_float32_probability_are_still_ranked() -> None:
    sample = sample_of([(1, 30.0), (0, 25.0)])
    assert torch.from_numpy(sample.logits).sigmoid().tolist() == [1.0, 1.0]
    assert rank(sample, FEW).auroc.value == 1.0


def test_one_class_has_no_ranking() -> None:
    found = rank(sample_of([(1, 1.0), (1, 2.0)]), FEW)
    assert (found.auroc.value, found.average_precision.value) == (None, None)
    assert all(a.sensitivity.value is None for a in found.sensitivity_at_specificity)


def area_under(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


@given(IMAGES.filter(both_classes))
def test_the_drawn_curves_hold_the_areas(images: list[tuple[int, float]]) -> None:
    sample = sample_of(images)
    labels, logits = sample.labels, sample.logits
    roc, steps = roc_curve(labels, logits), precision_recall_curve(labels, logits)
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert area_under(roc.x, roc.y) == pytest.approx(mann_whitney(labels, logits), abs=1e-6)
    assert (np.diff(steps.x) >= 0).all()
    area = float((np.diff(steps.x, prepend=0.0) * steps.y).sum())
    assert area == pytest.approx(average_precision_by_hand(labels, logits), abs=1e-6)
