"""Counts at every step of the slider."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.reporting.sources import Scored
from pneumo_fast.reporting.threshold_slider import STEPS, count, step_of


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.one_of(st.floats(0, 1), st.integers(0, 1000).map(lambda k: k / 1000))),
        min_size=1,
        max_size=60,
    )
)
def test_counts_are_those_of_the_rule(images: list[tuple[int, float]]) -> None:
    labels, probabilities = (np.array(values) for values in zip(*images, strict=True))
    counts = count(Scored(labels=labels, logits=probabilities, probabilities=probabilities.astype(np.float64)))
    for step in range(0, STEPS + 1, 7):
        called = probabilities >= step / 1000
        assert counts.tp[step] == (called & (labels == 1)).sum()
        assert counts.fp[step] == (called & (labels == 0)).sum()


@pytest.mark.parametrize(
    ("threshold", "step"), [(0.5, 500), (0.25, 250), (0.0, 0), (1.0, 1000), (0.007, 7), (0.1234, None)]
)
def test_steps_of_the_slider(threshold: float, step: int | None) -> None:
    assert step_of(threshold) == step
