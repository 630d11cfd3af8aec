"""The order of the rows: a permutation per epoch, cut into batches, the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.batches import Order, Rank
from pneumo_fast.loading.rng import permute
from pneumo_fast.loading.samplers import Sequential, Shuffle, Weighted, Windowed
from tests.support.strategies import SEEDS


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


def test_epochs_and_seeds_differ() -> None:
    orders = {(seed, epoch): tuple(flat(Order(sampler=Shuffle(60, seed), batch_size=7, training=True), epoch))
              for seed in (-1, 0, 1, 2) for epoch in range(5)}  # fmt: skip
    assert len(set(orders.values())) == len(orders)
    assert orders[1, 2] != orders[2, 1]


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
        (3, 4, True, "batch size 4 is larger than an epoch of 3 images: give a --batch-size of at most that many"),
    ],
)
def test_numbers_that_cannot_work(n: int, batch_size: int, training: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Order(sampler=Shuffle(n), batch_size=batch_size, training=training)


@pytest.mark.parametrize("sampler", [Shuffle(100, 1), Weighted(np.ones(100)), Windowed((10,) * 10, 3), Sequential(100)])
def test_batches_worked_out_at_once_are_the_same(sampler: Shuffle | Weighted | Windowed | Sequential) -> None:
    order = Order(sampler=sampler, batch_size=9, training=True)
    for batches in (range(11), range(3, 5), range(10, 11)):
        found = order.rows_of(2, batches)
        assert [rows.tolist() for rows in found] == [order.rows(2, batch).tolist() for batch in batches]


def test_the_shares_of_all_processes_are_the_batch() -> None:
    rows = np.arange(10)
    for world in range(1, 14):
        shares = [Rank(number=number, world_size=world).share(rows) for number in range(world)]
        assert np.concatenate(shares).tolist() == rows.tolist()
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("number", "world_size", "message"),
    [(0, 0, "world size 0"), (2, 2, "rank 2 of a world of 2: 0 to 1"), (-1, 2, "rank -1")],
)
def test_ranks_that_are_none(number: int, world_size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rank(number=number, world_size=world_size)
