"""Drawings: fewer points, round ticks, and text that stays text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from pneumo_fast.reporting.svg import nice_ticks, tag, thin, tick


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=80), st.integers(1, 12))
def test_thinned_curves_look_the_same(points: list[tuple[float, float]], columns: int) -> None:
    """Every point left out lies near the line that is drawn, but for the height of points within one column."""
    x, y = np.sort(np.array([p[0] for p in points])), np.array([p[1] for p in points])
    fewer_x, fewer_y = thin(x, y, columns=600, tolerance=0.001)
    assert (fewer_x[[0, -1]] == x[[0, -1]]).all()
    for px, py in zip(x, y, strict=True):
        assert distance(px, py, fewer_x, fewer_y) <= 0.001 + 1e-12
    few_x, few_y = thin(x, y, columns=columns)
    assert (few_y.min(), few_y.max()) == pytest.approx((y.min(), y.max()), abs=0.0008)
    assert len(few_x) <= max(4 * columns + 4, 2)


def distance(x: float, y: float, curve_x: Any, curve_y: Any) -> float:
    """From a point to a drawn line."""
    ends = np.stack([curve_x, curve_y], axis=1)
    starts, ways = ends[:-1], np.diff(ends, axis=0)
    lengths = np.maximum((ways**2).sum(axis=1), 1e-300)
    along = np.clip((([x, y] - starts) * ways).sum(axis=1) / lengths, 0, 1)
    return float(np.hypot(*([x, y] - starts - along[:, None] * ways).T).min())


def test_a_curve_of_a_million_points_becomes_some_hundred() -> None:
    rng = np.random.default_rng(0)
    label = rng.random(1_000_000) < 0.2
    called = label[np.argsort(-(rng.normal(size=len(label)) + 2.0 * label))]
    found, alarms = np.cumsum(called) / called.sum(), np.cumsum(~called) / (~called).sum()
    x, y = thin(alarms, found)
    assert 20 < len(x) < 600
    assert max(distance(alarms[k], found[k], x, y) for k in range(0, len(label), 1009)) < 0.003


def test_attributes_and_text_are_escaped() -> None:
    assert tag("text", "<&", x='"<', class_="a", id=None) == '<text x="&#34;&lt;" class="a">&lt;&amp;</text>'
    assert tag("g", Markup("<a></a>"), stroke_width="2") == '<g stroke-width="2"><a></a></g>'


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 0.9, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, 0.33, [0.31, 0.315, 0.32, 0.325, 0.33]),
        (0, 4, [0, 1, 2, 3, 4]),
    ],
)
def test_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high, 6) == pytest.approx(ticks)
    assert len({tick(value, ticks) for value in ticks}) == len(ticks)
