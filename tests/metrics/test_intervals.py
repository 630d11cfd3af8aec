"""Resampling patients: the same figures as with images really repeated, and intervals that cover the truth."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.metrics import intervals
from pneumo_fast.metrics.delong import placements
from pneumo_fast.metrics.intervals import (
    Bootstrap,
    Estimate,
    estimate,
    group_numbers,
    mean_interval,
    percentile_interval,
    wilson_interval,
)
from tests.support.judged import IMAGES, both_classes, mann_whitney, sample_of

LEVELS = (0.9, 0.95)


@pytest.mark.parametrize(
    ("groups", "numbers"),
    [(["a", "b", "a"], [0, 1, 0]), (["", "a", ""], [0, 1, 2]), (["i0", "", "i1"], [0, 1, 2]), (["b", "b"], [0, 0])],
)
def test_patients_are_numbered_and_the_unknown_stand_alone(groups: list[str], numbers: list[int]) -> None:
    assert group_numbers(pd.Series(groups, dtype=str)).tolist() == numbers


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 99))
def test_every_resample_draws_as_many_patients_as_there_are(patients: int, images: int, seed: int) -> None:
    groups = np.repeat(np.arange(patients), images)
    blocks = list(Bootstrap(resamples=7, seed=seed).draws(groups))
    assert np.concatenate(blocks).shape == (7, patients)
    assert (np.concatenate(blocks).sum(axis=1) == patients).all()


def test_draws_do_not_depend_on_the_images_of_a_patient_and_differ_by_seed() -> None:
    draws = [np.concatenate(list(Bootstrap(resamples=9, seed=s).draws(np.arange(40)))) for s in (1, 1, 2)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


def test_draws_are_the_same_whether_they_are_kept_or_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    keeping = Bootstrap(resamples=300, seed=3)
    samples = [np.arange(40), np.arange(5).repeat(2_000), np.arange(40)]
    first, other, again = (np.concatenate(list(keeping.draws(groups))) for groups in samples)
    monkeypatch.setattr(intervals, "KEPT", 0)
    for found, groups in zip((first, other, again), samples, strict=True):
        assert (found == np.concatenate(list(Bootstrap(resamples=300, seed=3).draws(groups)))).all()


def test_sums_are_those_of_the_drawn_images() -> None:
    groups = np.array([0, 1, 0, 2, 1])
    columns = np.random.default_rng(0).random((5, 3))
    bootstrap = Bootstrap(resamples=50)
    counts = np.concatenate(list(bootstrap.draws(groups)))
    expected = [sum(count[g] * columns[i] for i, g in enumerate(groups)) for count in counts]
    assert bootstrap.sums(groups, columns) == pytest.approx(np.array(expected))


def test_percentiles() -> None:
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    mostly = np.append(np.arange(95.0), [np.nan] * 5)
    assert percentile_interval(mostly) == pytest.approx((0.025 * 94, 0.975 * 94))
    assert percentile_interval(np.append(np.arange(89.0), [np.nan] * 11)) is None
    assert percentile_interval(np.full(100, 0.7)) is None


def test_the_interval_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(100) * 7, 2)
    values = np.repeat(rng.normal(size=100), 2)
    low, high = mean_interval(values, groups, resamples=2000, seed=0) or (math.nan, math.nan)
    error = values[::2].std() / math.sqrt(100)
    assert (values.mean() - low, high - values.mean()) == pytest.approx((1.96 * error, 1.96 * error), rel=0.15)


Z = NormalDist().inv_cdf(0.975)


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),  # Newcombe 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(part: int, whole: int, low: float, high: float) -> None:
    assert wilson_interval(part, whole) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_are_where_the_score_test_just_rejects(count: tuple[int, int]) -> None:
    part, whole = count
    for end in wilson_interval(part, whole):
        distance = abs(part / whole - end)
        assert distance == pytest.approx(Z * math.sqrt(end * (1 - end) / whole), abs=1e-9)


@given(IMAGES.filter(both_classes))
def test_placements_are_the_means_of_the_table_of_all_pairs(images: list[tuple[int, float]]) -> None:
    sample = sample_of(images)
    positive, negative = sample.logits[sample.labels == 1], sample.logits[sample.labels == 0]
    wins = np.array([[1.0 if p > n else 0.5 if p == n else 0.0 for n in negative] for p in positive])
    found, passed = placements(sample.labels, sample.logits)
    assert found == pytest.approx(wins.mean(axis=1))
    assert passed == pytest.approx(wins.mean(axis=0))
    assert found.mean() == pytest.approx(mann_whitney(sample.labels, sample.logits))


def test_a_figure_that_is_no_number_has_no_interval_either() -> None:
    assert estimate(math.nan, (0.0, 1.0)) == Estimate(value=None, low=None, high=None)
    assert estimate(0.5, None) == Estimate(value=0.5, low=None, high=None)
    assert estimate(0.5, (0.4, 0.6)) == Estimate(value=0.5, low=0.4, high=0.6)
