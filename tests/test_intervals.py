"""Intervals by formula, against published examples and plain loops."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import IMAGES, both_classes, mann_whitney, sample_of

from pneumo_fast.evaluation.compare import placements
from pneumo_fast.metrics.intervals import Estimate, estimate, wilson_interval

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
