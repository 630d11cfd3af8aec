"""Counts at every step of the slider, and where it stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.reporting.sources import Scored
from pneumo_fast.reporting.threshold_slider import MOST_STEPS, count, thresholds_of, written

PROBABILITIES = st.one_of(st.floats(0, 1), st.integers(0, 1000).map(lambda k: k / 1000), st.floats(0.011, 0.012))


@given(st.lists(st.tuples(st.integers(0, 1), PROBABILITIES), min_size=1, max_size=60))
def test_counts_are_those_of_the_rule(images: list[tuple[int, float]]) -> None:
    labels, probabilities = np.array([label for label, _ in images]), np.array([p for _, p in images], np.float64)
    at = thresholds_of(probabilities, [0.5, 0.123456789])
    counts = count(Scored(labels=labels, logits=probabilities, probabilities=probabilities), at)
    assert list(counts.at) == sorted(at)
    assert {0.0, 0.5, 0.123456789, 1.0} <= set(at)
    for threshold, tp, fp in zip(counts.at, counts.tp, counts.fp, strict=True):
        called = probabilities >= threshold
        assert (tp, fp) == ((called & (labels == 1)).sum(), (called & (labels == 0)).sum())


@given(st.lists(PROBABILITIES, min_size=1, max_size=60))
def test_every_probability_is_reached_from_below(probabilities: list[float]) -> None:
    at = np.array(thresholds_of(np.array(probabilities), []))
    for probability in probabilities:
        below = at[at <= probability].max()
        assert probability - below <= 1e-3 * probability


def test_probabilities_that_lie_close_together_are_told_apart() -> None:
    probabilities = np.linspace(0.010, 0.080, 200)
    assert len(thresholds_of(probabilities, [0.5])) == 200 + 3


def test_there_are_not_too_many_steps() -> None:
    assert len(thresholds_of(np.linspace(0, 1, 100_000), [])) <= MOST_STEPS + 2


@pytest.mark.parametrize(
    ("threshold", "text"),
    [(0.5, "0.500"), (0.0, "0.000"), (1.0, "1.000"), (0.4372, "0.4372"), (0.01234, "0.01234"), (0.98765432, "0.9877")],
)
def test_how_a_threshold_is_written(threshold: float, text: str) -> None:
    assert written(threshold) == text
