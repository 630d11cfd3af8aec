"""Probabilities as probabilities: each figure a second way, and a temperature that is known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from torchmetrics.functional import classification as tm

from pneumo_fast.metrics.calibration import COLDEST, HOTTEST, Calibration, calibrate, judge_probability
from pneumo_fast.metrics.intervals import Bootstrap
from pneumo_fast.metrics.scored import Sample, sigmoid
from tests.support.judged import FEW, IMAGES, both_classes, drawn, sample_of


@given(IMAGES)
def test_brier_and_log_loss_a_second_way(images: list[tuple[int, float]]) -> None:
    sample = sample_of(images)
    target = torch.from_numpy(sample.labels).double()
    logits = torch.from_numpy(sample.logits).double()
    quality = judge_probability(sample, FEW)
    assert quality.brier.value == pytest.approx(torch.nn.functional.mse_loss(logits.sigmoid(), target).item())
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    assert quality.log_loss.value == pytest.approx(loss.item())


@given(IMAGES)
def test_expected_calibration_error_is_torchmetrics(images: list[tuple[int, float]]) -> None:
    sample = sample_of(images)
    assume(sample.probabilities.max() < 1)  # to which torchmetrics gives a bin of its own, and we the last one
    target = torch.from_numpy(sample.labels)
    error = tm.binary_calibration_error(torch.from_numpy(sample.probabilities), target, n_bins=10, norm="l1")
    assert judge_probability(sample, FEW).ece.value == pytest.approx(error.item(), abs=1e-5)


def test_calibration_worked_example() -> None:
    # two bins: 0.25 and 0.75 with shares 0 and 1/2 of positives, two images each: (0.25 + 0.25) / 2
    odds = math.log(3)
    quality = judge_probability(sample_of([(0, -odds), (0, -odds), (1, odds), (0, odds)]), FEW)
    assert quality.ece.value == pytest.approx(0.25)
    assert quality.brier.value == pytest.approx((3 * 0.0625 + 0.5625) / 4)
    bins = [(b.low, b.high, b.n, b.positive_share) for b in quality.reliability]
    assert bins == [(0.2, 0.3, 2, 0.0), (0.7, 0.8, 2, 0.5)]
    assert [b.mean_probability for b in quality.reliability] == pytest.approx([0.25, 0.75])


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    assert [b.low for b in judge_probability(sample_of([(1, 99.0)]), FEW).reliability] == [0.9]


def test_intervals_cover_the_truth() -> None:
    large = judge_probability(drawn(0, 100_000, 100_000, 1.5), FEW)
    covered: dict[str, list[bool]] = {"brier": [], "log_loss": []}
    for seed in range(1, 201):
        quality = judge_probability(drawn(seed, 100, 100, 1.5), Bootstrap(resamples=300, seed=seed))
        for name, values in covered.items():
            e = getattr(quality, name)
            values.append(e.low <= getattr(large, name).value <= e.high)
    assert all(0.90 <= np.mean(values) <= 0.985 for values in covered.values()), covered


@pytest.mark.parametrize(("shift", "true"), [(0.0, 0.0), (0.3, 0.0462), (1.0, 0.1392)])
def test_the_interval_of_the_calibration_error_covers_the_truth_and_holds_the_value(shift: float, true: float) -> None:
    covered, width = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        logits = rng.normal(-1, 1.5, 400)
        labels = (rng.random(400) < sigmoid(logits - shift)).astype(np.int64)
        sample = Sample(labels=labels, logits=logits, groups=np.arange(400))
        error = judge_probability(sample, Bootstrap(resamples=300, seed=seed)).ece
        assert error.value is not None
        assert error.low is not None
        assert error.high is not None
        assert 0 <= error.low <= error.value <= error.high <= 1
        covered.append(error.low <= true <= error.high)
        width.append(error.high - error.low)
    assert np.mean(covered) >= 0.93
    assert np.mean(width) < 0.11  # that of the percentiles is 0.06


def test_a_bin_without_any_distance_counts_at_the_upper_end() -> None:
    error = judge_probability(sample_of([(0, 0.0), (1, 0.0)] * 100), FEW).ece
    assert error.value == error.low == 0.0
    assert error.high is not None
    assert 0.0 < error.high < 0.2


def test_a_calibration_error_that_no_resample_changes_has_no_interval() -> None:
    assert judge_probability(sample_of([(1, 0.0)]), FEW).ece.low is None


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("pos_weight", [1.0, 3.5])
@pytest.mark.parametrize("known", [True, False])
def test_the_temperature_that_spoiled_the_logits_is_found(temperature: float, pos_weight: float, known: bool) -> None:
    rng = np.random.default_rng(4)
    true = rng.normal(size=40_000)
    labels = (rng.random(40_000) < sigmoid(true)).astype(np.int64)
    spoiled = temperature * true + math.log(pos_weight)
    sample = Sample(labels=labels, logits=spoiled, groups=np.arange(40_000))
    calibration = calibrate(sample, math.log(pos_weight) if known else None)
    assert calibration is not None
    assert calibration.temperature == pytest.approx(temperature, rel=0.05)
    assert calibration.apply(spoiled) == pytest.approx(true, rel=0.05, abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_temperature_has_a_lower_log_loss(seed: int) -> None:
    sample = drawn(seed, 30, 70, 1.0)
    calibration = calibrate(sample, math.log(2.0))
    assert calibration is not None

    def loss(temperature: float) -> float:
        logits = Calibration(shift=math.log(2.0), temperature=temperature).apply(sample.logits)
        judged = Sample(labels=sample.labels, logits=logits, groups=sample.groups)
        return judge_probability(judged, FEW).log_loss.value or math.nan

    best = loss(calibration.temperature)
    assert all(best <= loss(t) + 1e-12 for t in np.geomspace(COLDEST, HOTTEST, 200))


@pytest.mark.parametrize(
    ("images", "temperature"),
    [
        ([(1, 3.0), (0, -3.0)], COLDEST),  # separated: the surer, the better
        ([(1, -3.0), (0, 3.0)], HOTTEST),  # the wrong way round
    ],
)
def test_without_a_best_temperature_it_is_the_nearer_bound(images: list[tuple[int, float]], temperature: float) -> None:
    calibration = calibrate(sample_of(images), 0.0)
    assert calibration is not None
    assert calibration.temperature == pytest.approx(temperature)


def test_one_class_cannot_be_calibrated_on() -> None:
    assert calibrate(sample_of([(1, 0.0), (1, 2.0)]), 0.0) is None


@given(IMAGES.filter(both_classes))
def test_what_is_fitted_without_a_known_shift_keeps_the_prevalence(images: list[tuple[int, float]]) -> None:
    sample = sample_of(images)
    calibration = calibrate(sample, None)
    assert calibration is not None
    assert COLDEST <= calibration.temperature <= HOTTEST
    targets = [(sample.positives + 1) / (sample.positives + 2), 1 / (sample.n - sample.positives + 2)]
    expected = sample.positives * targets[0] + (sample.n - sample.positives) * targets[1]  # Platt's
    assert sigmoid(calibration.apply(sample.logits)).sum() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("probability", "calibrated"), [(0.5, 1 / 3), (0.0, 0.0), (1.0, 1.0), (2 / 3, 0.5)])
def test_the_calibrated_probability_of_a_plain_one(probability: float, calibrated: float) -> None:
    assert Calibration(shift=math.log(2.0), temperature=1.0).at(probability) == pytest.approx(calibrated)
