"""The order of the rows: a permutation per epoch, cut into batches, the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.order import Order
from pneumo_fast.loading.rng import permute
from pneumo_fast.loading.samplers import Sequential, Shuffle, Weighted, Windowed, balanced_weights, shard_sizes

SEEDS = st.integers(-(2**70), 2**70)


def epoch_of(order: Order, epoch: int) -> list[list[int]]:
    """All batches of an epoch."""
    return [order.rows(epoch, batch).tolist() for batch in range(len(order))]


def flat(order: Order, epoch: int) -> list[int]:
    return [row for batch in epoch_of(order, epoch) for row in batch]


@given(n=st.integers(2, 300), batch_size=st.integers(2, 70), seed=SEEDS, epoch=st.integers(0, 10**9))
def test_a_shuffled_epoch_has_every_row_once_and_no_batch_of_one(
    n: int, batch_size: int, seed: int, epoch: int
) -> None:
    batch_size = min(batch_size, n)
    order = Order(sampler=Shuffle(n, seed), batch_size=batch_size, training=True)
    batches = epoch_of(order, epoch)
    sizes = [len(batch) for batch in batches]
    assert sorted(row for batch in batches for row in batch) == list(range(n))
    assert min(sizes) >= 2
    assert all(size == batch_size for size in sizes[:-1])
    assert sizes[-1] <= batch_size + 1
    assert max(sizes) == order.max_batch


@given(n=st.integers(1, 300), batch_size=st.integers(1, 70), epoch=st.integers(0, 5))
def test_an_epoch_in_storage_order_is_cut_plainly(n: int, batch_size: int, epoch: int) -> None:
    order = Order(sampler=Sequential(n), batch_size=batch_size)
    assert epoch_of(order, epoch) == [list(range(n))[at : at + batch_size] for at in range(0, n, batch_size)]
    assert order.max_batch == min(n, batch_size)


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [(9, 4, [4, 5]), (5, 4, [5]), (4, 4, [4]), (10, 4, [4, 4, 2]), (3, 2, [3]), (2, 2, [2])],
)
def test_a_left_over_row_joins_the_batch_before(n: int, batch_size: int, sizes: list[int]) -> None:
    assert [
        len(batch) for batch in epoch_of(Order(sampler=Shuffle(n), batch_size=batch_size, training=True), 0)
    ] == sizes


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


def test_epochs_and_seeds_differ() -> None:
    orders = {(seed, epoch): tuple(flat(Order(sampler=Shuffle(60, seed), batch_size=7, training=True), epoch))
              for seed in (-1, 0, 1, 2) for epoch in range(5)}  # fmt: skip
    assert len(set(orders.values())) == len(orders)
    assert orders[1, 2] != orders[2, 1]


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


def test_the_order_is_the_same_in_every_release() -> None:
    """A run that is resumed by a later release must go on with the same batches."""
    assert epoch_of(Order(sampler=Shuffle(13, 0), batch_size=4, training=True), 0) == [
        [10, 3, 8, 6],
        [11, 5, 1, 12],
        [0, 4, 9, 7, 2],
    ]
    assert permute(np.arange(5, dtype=np.int64), 26_684, 2018, 9).tolist() == [25139, 3697, 8953, 13443, 9310]
    assert permute(np.array([0, 10**12 - 1], dtype=np.int64), 10**12, -1, 0).tolist() == [667779764738, 49043847886]


@pytest.mark.parametrize("batch", [-1, 3, 100])
def test_a_batch_that_an_epoch_lacks(batch: int) -> None:
    with pytest.raises(IndexError, match=f"batch {batch} of an epoch of 3"):
        Order(sampler=Sequential(10), batch_size=4).rows(0, batch)


@pytest.mark.parametrize(
    ("n", "batch_size", "training", "message"),
    [
        (10, 0, False, "batch size 0 is too small: use at least 1"),
        (10, 1, True, "batch size 1 is too small: use at least 2"),
        (0, 4, False, "0 images: at least 1"),
        (1, 4, True, "1 images: at least 2"),
        (3, 4, True, "batch size 4 is larger than an epoch of 3 images: use at most that many"),
    ],
)
def test_numbers_that_cannot_work(n: int, batch_size: int, training: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Order(sampler=Shuffle(n), batch_size=batch_size, training=training)


# ---- with replacement, by weight


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


def test_balanced_weights_make_categories_equal() -> None:
    categories = np.array(["a", "b", "a", "a", "c", "b"])
    weights = balanced_weights(categories)
    assert {name: weights[categories == name].sum() for name in "abc"} == pytest.approx({"a": 1, "b": 1, "c": 1})


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [np.nan, 1.0], [np.inf, 1.0], []])
def test_weights_that_cannot_be(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="must be finite, at least 0 and not all 0"):
        Weighted(np.array(weights))


# ---- windows of shards


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


@pytest.mark.parametrize("sampler", [Shuffle(100, 1), Weighted(np.ones(100)), Windowed((10,) * 10, 3), Sequential(100)])
def test_batches_worked_out_at_once_are_the_same(sampler: Shuffle | Weighted | Windowed | Sequential) -> None:
    order = Order(sampler=sampler, batch_size=9, training=True)
    for batches in (range(11), range(3, 5), range(10, 11)):
        found = order.rows_of(2, batches)
        assert [rows.tolist() for rows in found] == [order.rows(2, batch).tolist() for batch in batches]
