"""What depends on the order alone, each figure against a second way to get it."""

from __future__ import annotations

import math
import time
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.functional import classification as tm

from pneumo_fast.metrics.intervals import Bootstrap, percentile_interval
from pneumo_fast.metrics.ranking import (
    LEVELS,
    RankOrder,
    auroc,
    average_precision,
    precision_recall_curve,
    rank,
    resampled,
    roc_curve,
)
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


@given(IMAGES, st.data())
def test_a_patient_drawn_twice_is_as_good_as_repeated_images(
    images: list[tuple[int, float]], data: st.DataObject
) -> None:
    sample = sample_of(images)
    names = data.draw(st.lists(st.integers(0, 9), min_size=sample.n, max_size=sample.n))
    groups = np.unique(names, return_inverse=True)[1]
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=10, max_size=10)))
    order = RankOrder.of(sample.labels, sample.logits, groups)
    figures = order.figures(times[None].astype(np.float32), LEVELS)[0]
    labels, logits = np.repeat(sample.labels, times[groups]), np.repeat(sample.logits, times[groups])
    if len(set(labels.tolist())) < 2:
        assert np.isnan(figures[0])
        return
    expected = [auroc(labels, logits), average_precision(labels, logits)]
    calls = [logits >= t for t in (*np.unique(logits), math.inf)]
    pairs = [(c[labels == 1].mean(), 1 - c[labels == 0].mean()) for c in calls]
    expected += [max(sens for sens, spec in pairs if spec >= level - 1e-9) for level in LEVELS]
    expected += [max(spec for sens, spec in pairs if sens >= level - 1e-9) for level in LEVELS]
    assert figures == pytest.approx(expected, abs=1e-6)


def clustered(seed: int, patients: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """One to four images a patient, alike in label and mostly in score: AUROC 0.76 whatever the cluster."""
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 5, patients)
    ill = rng.random(patients) < 0.3
    shared = rng.normal(size=patients)
    groups = np.repeat(np.arange(patients), images)
    scores = ill[groups] + 0.95 * shared[groups] + math.sqrt(1 - 0.95**2) * rng.normal(size=len(groups))
    return ill[groups].astype(np.int64), groups, scores


@pytest.mark.parametrize(("by", "low", "high"), [("patient", 0.92, 0.98), ("image", 0.5, 0.88)])
def test_intervals_by_patient_cover_the_truth_and_by_image_do_not(by: str, low: float, high: float) -> None:
    # the truth holds for pairs of images drawn as this sampling draws them: each patient's images weigh by number
    truth = NormalDist().cdf(1 / math.sqrt(2))
    covered = []
    for seed in range(300):
        labels, groups, scores = clustered(seed, 150)
        units = groups if by == "patient" else np.arange(len(groups))
        replicates = resampled(labels, scores, units, Bootstrap(resamples=300, seed=seed))[:, 0]
        interval = percentile_interval(replicates)
        assert interval is not None
        covered.append(interval[0] <= truth <= interval[1])
    assert low <= np.mean(covered) <= high


def test_intervals_of_ranking_figures_cover_the_truth() -> None:
    columns = {"AUROC": 0, "average precision": 1, "sensitivity at 0.9": 2, "specificity at 0.9": 4}
    large = drawn(0, 60_000, 140_000, 1.5)
    order = RankOrder.of(large.labels, large.logits, large.groups)
    truth = order.figures(np.ones((1, large.n), np.float32), LEVELS)[0]
    covered: dict[str, list[bool]] = {name: [] for name in columns}
    for seed in range(1, 301):
        sample = drawn(seed, 60, 140, 1.5)
        replicates = resampled(sample.labels, sample.logits, sample.groups, Bootstrap(resamples=300, seed=seed), LEVELS)
        for name, column in columns.items():
            low, high = percentile_interval(replicates[:, column]) or (math.nan, math.nan)
            covered[name].append(low <= truth[column] <= high)
    for name, found in covered.items():
        assert 0.90 <= np.mean(found) <= 0.985, name


@pytest.mark.slow  # a figure of time, so not for machines that are busy with other things
def test_two_thousand_resamples_of_five_thousand_images_take_seconds() -> None:
    sample = drawn(0, 1100, 3900, 1.0)
    began = time.perf_counter()
    rank(sample, Bootstrap())
    Bootstrap().sums(sample.groups, np.ones((sample.n, 33)))
    assert time.perf_counter() - began < 5


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
    assert [a.sensitivity.value for a in found.sensitivity_at_specificity] == [None, None]


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
