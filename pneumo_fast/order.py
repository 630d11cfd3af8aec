"""Which rows make up which batch: a pure function of (seed, epoch, batch), at any position in constant time.

Nothing is stored between calls, so two readers that agree on the numbers agree on the rows, a run can resume
anywhere, and a permutation of ten million rows costs no memory. The permutation is a Feistel network over
``ceil(sqrt(n))`` squared (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): positions that fall
outside ``n`` are encrypted again until they fall inside.

A sampler maps positions in an epoch to rows; :class:`Order` cuts the positions into batches. The number of processes
plays no part in either: each process takes its share of every batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.errors import ConfigError
from pneumo_fast.mixing import MASK, mix, mix_int

Rows = NDArray[np.int64]

ROUNDS = 8  # four make a Feistel network hard to tell from random (Luby and Rackoff 1988); eight leave a margin


class Sampler(Protocol):
    """Which row stands at which position of an epoch."""

    @property
    def length(self) -> int:
        """Positions in an epoch."""

    def rows(self, positions: Rows, epoch: int) -> Rows:
        """Rows at some positions (each in ``0 .. length - 1``), int64, of the same shape."""


@dataclass(frozen=True, slots=True)
class Sequential:
    """Storage order; every row once."""

    length: int

    def rows(self, positions: Rows, epoch: int) -> Rows:
        """See :class:`Sampler`."""
        del epoch
        return positions


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Another permutation each epoch; every row once."""

    length: int
    seed: int = 0

    def rows(self, positions: Rows, epoch: int) -> Rows:
        """See :class:`Sampler`."""
        return permute(positions, self.length, self.seed, epoch)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A stretch of rows of which each epoch uses some."""

    rows: int
    """Rows in the stretch."""
    used: int
    """Rows of it in an epoch, 0 to ``rows``."""


@dataclass(frozen=True, slots=True)
class Shares:
    """A part of each stretch of rows, another each epoch, shuffled together; no row twice."""

    parts: tuple[Part, ...]
    seed: int = 0

    @property
    def length(self) -> int:
        """See :class:`Sampler`."""
        return sum(part.used for part in self.parts)

    def rows(self, positions: Rows, epoch: int) -> Rows:
        """See :class:`Sampler`."""
        places = permute(positions, self.length, self.seed, epoch)
        rows = np.empty_like(places)
        first_place = first_row = 0
        for number, part in enumerate(self.parts, start=1):
            mine = (places >= first_place) & (places < first_place + part.used)
            chosen = permute(places[mine] - first_place, part.rows, mix_int(self.seed + number), epoch)
            rows[mine] = first_row + chosen
            first_place, first_row = first_place + part.used, first_row + part.rows
        return rows


@dataclass(frozen=True, eq=False)
class Weighted:
    """Rows drawn with replacement, each with a chance in proportion to its weight; as many as there are rows."""

    weights: NDArray[np.float64] = field(repr=False)
    """Shape (rows,), each finite and at least 0, not all 0."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the weights.

        Raises
        ------
        ConfigError
            If one is negative or not finite, or all are 0.
        """
        if not (np.isfinite(self.weights).all() and (self.weights >= 0).all() and self.weights.any()):
            raise ConfigError("the weights of the images must be finite, at least 0 and not all 0")

    @property
    def length(self) -> int:
        """See :class:`Sampler`."""
        return len(self.weights)

    @cached_property
    def _cumulative(self) -> NDArray[np.float64]:
        return np.cumsum(self.weights)

    def rows(self, positions: Rows, epoch: int) -> Rows:
        """See :class:`Sampler`."""
        key = np.uint64(mix_int(mix_int(self.seed & MASK) ^ (epoch & MASK)))
        uniform = (mix(mix(positions.astype(np.uint64)) ^ key) >> np.uint64(11)) * 2.0**-53
        drawn = np.searchsorted(self._cumulative, uniform * self._cumulative[-1], side="right")
        rows: Rows = np.minimum(
            drawn, int(np.flatnonzero(self.weights)[-1])
        )  # the product may be rounded up to the end
        return rows


def balanced_weights(categories: NDArray[np.generic]) -> NDArray[np.float64]:
    """Weights (n,) that make every category as likely as any other: one over the number of its rows."""
    _, code, counts = np.unique(categories, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = 1.0 / counts[code]
    return weights


@dataclass(frozen=True, eq=False)
class Windowed:
    """Shards in random order, shuffled within a window of a few of them; every row once.

    For data that do not fit in memory: at any time only ``window`` shards are read from.
    """

    shards: tuple[int, ...] = field(repr=False)
    """Rows of each shard, in storage order."""
    window: int
    """Shards in a window, at least 1."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the window.

        Raises
        ------
        ConfigError
            If it holds no shard.
        """
        if self.window < 1:
            raise ConfigError(f"window {self.window}: at least 1 shard expected")

    @property
    def length(self) -> int:
        """See :class:`Sampler`."""
        return sum(self.shards)

    def rows(self, positions: Rows, epoch: int) -> Rows:
        """See :class:`Sampler`."""
        layout = _windows(self, epoch)
        window = np.searchsorted(layout.window_ends, positions, side="right")
        places = np.empty_like(positions)
        for number in np.unique(window).tolist():
            first = int(layout.window_ends[number - 1]) if number else 0
            length = int(layout.window_ends[number]) - first
            mine = window == number
            places[mine] = first + permute(positions[mine] - first, length, mix_int(self.seed + 1 + number), epoch)
        shard = np.searchsorted(layout.ends, places, side="right")
        return layout.offsets[shard] + places


@dataclass(frozen=True, slots=True)
class _Layout:
    """An epoch's positions, shard after shard in the epoch's order of shards."""

    ends: Rows
    """Where each shard ends, in positions."""
    offsets: Rows
    """What makes a row of a position in each shard, when added."""
    window_ends: Rows


@lru_cache(maxsize=4)
def _windows(sampler: Windowed, epoch: int) -> _Layout:
    """The layout of an epoch; takes a time in proportion to the number of shards, once an epoch."""
    sizes = np.array(sampler.shards, dtype=np.int64)
    order = permute(np.arange(len(sizes), dtype=np.int64), len(sizes), mix_int(sampler.seed), epoch)
    ends = np.cumsum(sizes[order])
    first_rows = (np.cumsum(sizes) - sizes)[order]
    last = np.arange(sampler.window, len(sizes) + sampler.window, sampler.window).clip(max=len(sizes)) - 1
    return _Layout(ends=ends, offsets=first_rows - (ends - sizes[order]), window_ends=ends[last])


def shard_sizes(shards: NDArray[np.generic]) -> tuple[int, ...]:
    """Rows of each shard, given the shard of each row in storage order."""
    starts = np.flatnonzero(np.concatenate([[True], shards[1:] != shards[:-1]]))
    return tuple(np.diff([*starts, len(shards)]).tolist())


def parts_by_share(sizes: Sequence[int], shares: Sequence[float]) -> tuple[Part, ...]:
    """The longest epoch in which the stretches have the given shares and no row comes twice.

    Raises
    ------
    ConfigError
        If a share is not above 0, or their number is not that of the stretches.
    """
    if len(sizes) != len(shares) or any(not 0 < share < math.inf for share in shares):
        raise ConfigError(f"shares {list(shares)} for {len(sizes)} datasets: one number above 0 for each expected")
    total = min(size / share for size, share in zip(sizes, shares, strict=True))
    used = [min(size, round(share * total)) for size, share in zip(sizes, shares, strict=True)]
    return tuple(Part(rows=size, used=count) for size, count in zip(sizes, used, strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The batches of every epoch."""

    sampler: Sampler
    batch_size: int
    """Rows in a batch of all processes together, at least 1; for training at least 2."""
    training: bool = False
    """Never make a batch of a single image, which BatchNorm may refuse: a single left-over row joins the batch before
    it, which then has ``batch_size + 1`` rows."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises
        ------
        ConfigError
            If there are no rows, or fewer than two for training, or the batch size does not fit.
        """
        least = 2 if self.training else 1
        if self.batch_size < least:
            raise ConfigError(f"batch size {self.batch_size} is too small: use at least {least}")
        if self.length < least:
            raise ConfigError(f"an epoch has {self.length} images: at least {least} are needed")
        if self.training and self.batch_size > self.length:
            raise ConfigError(
                f"batch size {self.batch_size} is larger than an epoch of {self.length} images: use at most that many"
            )

    @property
    def length(self) -> int:
        """Rows in an epoch."""
        return self.sampler.length

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, left = divmod(self.length, self.batch_size)
        return whole if left == 0 or self._joins_last else whole + 1

    @property
    def max_batch(self) -> int:
        """Rows in the largest batch."""
        return min(self.length, self.batch_size + self._joins_last)

    @property
    def _joins_last(self) -> bool:
        return self.training and self.length % self.batch_size == 1

    def rows_in(self, batch: int) -> int:
        """Rows in one batch."""
        last = batch == len(self) - 1
        return self.length - batch * self.batch_size if last else self.batch_size

    def rows(self, epoch: int, batch: int) -> Rows:
        """Row numbers of one batch, int64, shape (rows,).

        Raises
        ------
        IndexError
            If the epoch has no such batch.
        """
        return self.rows_of(epoch, range(batch, batch + 1))[0]

    def rows_of(self, epoch: int, batches: range) -> list[Rows]:
        """Row numbers of some batches that follow each other: the same, worked out at once."""
        if not 0 <= batches.start < batches.stop <= len(self):
            lacking = batches.start if not 0 <= batches.start < len(self) else batches.stop - 1
            raise IndexError(f"batch {lacking} of an epoch of {len(self)}")
        ends = [min(batch * self.batch_size, self.length) for batch in batches[1:]]
        first = batches.start * self.batch_size
        last = self.length if batches.stop == len(self) else batches.stop * self.batch_size
        rows = self.sampler.rows(np.arange(first, last, dtype=np.int64), epoch)
        return np.split(rows, np.array(ends, dtype=np.int64) - first)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """Which process this is, of how many that share every batch."""

    number: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises
        ------
        ConfigError
            If there is no such process.
        """
        if self.world_size < 1:
            raise ConfigError(f"world size {self.world_size}: at least 1 process expected")
        if not 0 <= self.number < self.world_size:
            raise ConfigError(
                f"rank {self.number} of a world of {self.world_size}: 0 to {self.world_size - 1} expected"
            )

    def share(self, rows: Rows) -> Rows:
        """The rows of a batch that are this process's: a stretch of it, at most one row longer than any other's."""
        first, stop = (len(rows) * number // self.world_size for number in (self.number, self.number + 1))
        return rows[first:stop]


def permute(positions: Rows, n: int, seed: int, epoch: int) -> Rows:
    """Map positions through the permutation of ``0 .. n - 1`` that ``seed`` and ``epoch`` choose.

    Parameters
    ----------
    positions : ndarray of int64, shape (k,)
        Each in ``0 .. n - 1``.
    """
    width = math.isqrt(max(0, n - 1)) + 1
    keys = _round_keys(seed, epoch)
    out = _encrypt(positions, width, keys)
    while (outside := out >= n).any():
        out[outside] = _encrypt(out[outside], width, keys)
    return out


def _encrypt(values: Rows, width: int, keys: list[np.uint64]) -> Rows:
    """One pass of the Feistel network on ``0 .. width**2 - 1``; addition modulo ``width`` makes it a bijection."""
    left, right = np.divmod(values, width)
    for key in keys:
        left, right = (
            right,
            (left + (mix(right.astype(np.uint64) ^ key) % np.uint64(width)).astype(np.int64)) % width,
        )
    return left * width + right


def _round_keys(seed: int, epoch: int) -> list[np.uint64]:
    """A 64-bit key for each round; seed and epoch are mixed one after the other so that (1, 2) is not (2, 1)."""
    state = mix_int(mix_int(seed & MASK) ^ (epoch & MASK))
    return [np.uint64(mix_int(state + r)) for r in range(1, ROUNDS + 1)]
