"""Samplers: with replacement by weight, and windows of shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.batches import Order
from pneumo_fast.loading.samplers import Shares, Weighted, Windowed, balanced_weights, parts_by_share, shard_sizes
from tests.support.strategies import SEEDS


@given(
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 7.0]), min_size=1, max_size=40).filter(any),
    seed=SEEDS,
    epoch=st.integers(0, 10**6),
)
def test_rows_of_no_weight_are_never_drawn(weights: list[float], seed: int, epoch: int) -> None:
    sampler = Weighted(np.array(weights), seed)
    rows = sampler.rows(np.arange(sampler.length), epoch)
    assert len(rows) == len(weights)
    assert all(weights[row] > 0 for row in rows.tolist())


def test_rows_are_drawn_in_proportion_to_their_weights() -> None:
    """A chi-square test at about five standard deviations; nothing random in it."""
    weights = np.array([1.0, 2.0, 0.5, 4.0, 2.5])
    sampler, counts = Weighted(weights, seed=9), np.zeros(5)
    for epoch in range(3000):
        counts += np.bincount(sampler.rows(np.arange(5), epoch), minlength=5)
    expected = weights / weights.sum() * counts.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 4 + 5 * np.sqrt(8)


def test_a_position_draws_the_same_row_whatever_is_asked_with_it() -> None:
    sampler = Weighted(np.arange(1.0, 101.0), seed=3)
    together = sampler.rows(np.arange(100), 7)
    assert together.tolist() == [int(sampler.rows(np.array([k]), 7)[0]) for k in range(100)]
    assert together.tolist() != sampler.rows(np.arange(100), 8).tolist()
    assert together.tolist() != Weighted(sampler.weights, seed=4).rows(np.arange(100), 7).tolist()


def test_a_batch_takes_no_time_in_proportion_to_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worked out of all weights is worked out once."""
    sampler = Weighted(np.arange(1.0, 101.0), seed=3)
    expected = sampler.rows(np.arange(4), 0)
    for name in ("flatnonzero", "cumsum"):
        monkeypatch.setattr(np, name, lambda *_: pytest.fail("all weights are gone through again"))
    np.testing.assert_array_equal(sampler.rows(np.arange(4), 0), expected)


def test_balanced_weights_make_categories_equal() -> None:
    categories = np.array(["a", "b", "a", "a", "c", "b"])
    weights = balanced_weights(categories)
    assert {name: weights[categories == name].sum() for name in "abc"} == pytest.approx({"a": 1, "b": 1, "c": 1})


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [np.nan, 1.0], [np.inf, 1.0], []])
def test_weights_that_cannot_be(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="must be finite, at least 0 and not all 0"):
        Weighted(np.array(weights))


SHARDS = st.lists(st.integers(1, 9), min_size=1, max_size=20)


@given(shards=SHARDS, window=st.integers(1, 25), seed=SEEDS, epoch=st.integers(0, 10**6))
def test_windows_hold_every_row_once_and_few_shards_at_a_time(
    shards: list[int], window: int, seed: int, epoch: int
) -> None:
    sampler = Windowed(tuple(shards), window, seed)
    rows = sampler.rows(np.arange(sampler.length), epoch)
    assert sorted(rows.tolist()) == list(range(sum(shards)))
    shard = np.repeat(np.arange(len(shards)), shards)[rows]
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for position, number in enumerate(shard.tolist()):
        first.setdefault(number, position)
        last[number] = position
    open_at_once = [sum(first[n] <= at <= last[n] for n in first) for at in range(len(rows))]
    assert max(open_at_once) <= window
    pieces = [sampler.rows(np.array([position]), epoch)[0] for position in range(len(rows))]
    assert pieces == rows.tolist()


def test_windows_shuffle_shards_and_rows() -> None:
    """Each row is as likely at each position, by a chi-square test, where all shards have one size."""
    shards, epochs = (3, 3, 3, 3), 3000
    sampler, counts = Windowed(shards, 2, seed=1), np.zeros((12, 12))
    for epoch in range(epochs):
        counts[np.arange(12), sampler.rows(np.arange(12), epoch)] += 1
    expected, freedom = epochs / 12, 121
    assert ((counts - expected) ** 2 / expected).sum() < 2 * (freedom + 5 * np.sqrt(2 * freedom))
    assert counts.min() > 0.7 * expected


def test_shard_sizes() -> None:
    assert shard_sizes(np.array(["a", "a", "b", "c", "c", "c"])) == (2, 1, 3)


@pytest.mark.parametrize("shares", [(1.0,), (1.0, 0.0), (1.0, float("nan"))])
def test_shares_that_cannot_work(shares: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="one number above 0 for each"):
        parts_by_share([10, 20], shares)


@given(
    sizes=st.lists(st.integers(2, 60), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.1, 10), min_size=4, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_an_epoch_has_the_shares_and_no_row_twice(sizes: list[int], weights: list[float], seed: int) -> None:
    shares = weights[: len(sizes)]
    parts = parts_by_share(sizes, shares)
    order = Order(sampler=Shares(parts, seed), batch_size=8)
    rows = np.concatenate([order.rows(0, batch) for batch in range(len(order))])
    assert len(set(rows.tolist())) == len(rows) == sum(part.used for part in parts)
    starts = np.cumsum([0, *sizes])
    used = np.histogram(rows, bins=starts)[0]
    total = min(size / share for size, share in zip(sizes, shares, strict=True))
    np.testing.assert_allclose(used, np.array(shares) * total, atol=0.5 + 1e-9)


def test_another_choice_of_rows_each_epoch() -> None:
    order = Order(sampler=Shares(parts_by_share([100, 100], [1, 0.5])), batch_size=50)
    epochs = [{int(r) for batch in range(len(order)) for r in order.rows(epoch, batch)} for epoch in (0, 1)]
    assert epochs[0] != epochs[1]
