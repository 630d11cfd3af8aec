"""The permutation: every row once, and as random as it has to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.loading.rng import permute
from tests.support.strategies import SEEDS


@given(n=st.integers(1, 2000), seed=SEEDS, epoch=st.integers(0, 2**63))
def test_the_permutation_is_one_to_one(n: int, seed: int, epoch: int) -> None:
    assert sorted(permute(np.arange(n, dtype=np.int64), n, seed, epoch).tolist()) == list(range(n))


def test_a_position_does_not_depend_on_what_is_asked_with_it() -> None:
    n = 10_000_019
    positions = np.array([0, 1, n // 2, n - 1], dtype=np.int64)
    together = permute(positions, n, 3, 4)
    assert together.tolist() == [int(permute(positions[[k]], n, 3, 4)[0]) for k in range(4)]
    assert positions.tolist() == [0, 1, n // 2, n - 1], "the positions are left as they were"
    assert (together >= 0).all()
    assert (together < n).all()


@pytest.mark.parametrize("vary", ["epoch", "seed"])
def test_every_row_is_as_likely_at_every_position(vary: str) -> None:
    """A chi-square test at about five standard deviations; nothing random in it."""
    n, draws = 13, 2600
    counts = np.zeros((n, n))
    positions = np.arange(n, dtype=np.int64)
    for draw in range(draws):
        rows = permute(positions, n, 5, draw) if vary == "epoch" else permute(positions, n, draw, 5)
        counts[positions, rows] += 1
    expected, freedom = draws / n, (n - 1) ** 2
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("vary", ["epoch", "seed"])
def test_neighbours_are_drawn_apart(vary: str) -> None:
    """The step from one position's row to the next one's is any step, as often as any other."""
    n, draws = 17, 2000
    steps = np.zeros(n)
    for draw in range(draws):
        rows = permute(np.arange(n, dtype=np.int64), n, *((5, draw) if vary == "epoch" else (draw, 5)))
        np.add.at(steps, np.diff(rows) % n, 1)
    expected = steps.sum() / (n - 1)
    assert steps[0] == 0
    assert ((steps[1:] - expected) ** 2 / expected).sum() < (n - 2) + 5 * np.sqrt(2 * (n - 2))
