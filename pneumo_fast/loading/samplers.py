"""Samplers: which row stands at which position of an epoch, at any position in constant time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.rng import MASK, Rows, mix, mix_int, permute


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
        """Check the weights; ConfigError where one is negative or not finite, or all are 0."""
        if not (np.isfinite(self.weights).all() and (self.weights >= 0).all() and self.weights.any()):
            raise ConfigError("the weights of the images must be finite, at least 0 and not all 0")

    @property
    def length(self) -> int:
        """See :class:`Sampler`."""
        return len(self.weights)

    @cached_property
    def _cumulative(self) -> NDArray[np.float64]:
        return np.cumsum(self.weights)

    @cached_property
    def _last(self) -> int:
        """The last row that can be drawn."""
        return int(np.flatnonzero(self.weights)[-1])

    def rows(self, positions: Rows, epoch: int) -> Rows:
        """See :class:`Sampler`."""
        key = np.uint64(mix_int(mix_int(self.seed & MASK) ^ (epoch & MASK)))
        uniform = (mix(mix(positions.astype(np.uint64)) ^ key) >> np.uint64(11)) * 2.0**-53
        drawn = np.searchsorted(self._cumulative, uniform * self._cumulative[-1], side="right")
        rows: Rows = np.minimum(drawn, self._last)  # the product may be rounded up to the end
        return rows


def balanced_weights(categories: NDArray[np.generic]) -> NDArray[np.float64]:
    """Weights that make every category as likely as any other: one over the number of its rows.

    Parameters
    ----------
    categories : ndarray, shape (n,)

    Returns
    -------
    ndarray of float64, shape (n,)
        In (0, 1].
    """
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
        """Check the window; ConfigError where it holds no shard."""
        if self.window < 1:
            raise ConfigError(f"window {self.window}: at least 1 shard expected")

    @property
    def length(self) -> int:
        """See :class:`Sampler`."""
        return sum(self.shards)

    def rows(self, positions: Rows, epoch: int) -> Rows:
        """See :class:`Sampler`."""
        ends, offsets, window_ends = _windows(self, epoch)
        window = np.searchsorted(window_ends, positions, side="right")
        places = np.empty_like(positions)
        for number in np.unique(window).tolist():
            first = int(window_ends[number - 1]) if number else 0
            length = int(window_ends[number]) - first
            mine = window == number
            places[mine] = first + permute(positions[mine] - first, length, mix_int(self.seed + 1 + number), epoch)
        return offsets[np.searchsorted(ends, places, side="right")] + places


@lru_cache(maxsize=4)
def _windows(sampler: Windowed, epoch: int) -> tuple[Rows, Rows, Rows]:
    """The layout of an epoch; takes a time in proportion to the number of shards, once an epoch.

    For each shard, in the epoch's order: the position at which it ends, and what makes a row of a position in it, when
    added. For each window: the position at which it ends.
    """
    sizes = np.array(sampler.shards, dtype=np.int64)
    order = permute(np.arange(len(sizes), dtype=np.int64), len(sizes), mix_int(sampler.seed), epoch)
    ends = np.cumsum(sizes[order])
    first_rows = (np.cumsum(sizes) - sizes)[order]
    last = np.arange(sampler.window, len(sizes) + sampler.window, sampler.window).clip(max=len(sizes)) - 1
    return ends, first_rows - (ends - sizes[order]), ends[last]


def shard_sizes(shards: NDArray[np.generic]) -> tuple[int, ...]:
    """Rows of each shard, given the shard of each row (shape (n,)) in storage order."""
    starts = np.flatnonzero(np.concatenate([[True], shards[1:] != shards[:-1]]))
    return tuple(np.diff([*starts, len(shards)]).tolist())


def parts_by_share(sizes: Sequence[int], shares: Sequence[float]) -> tuple[Part, ...]:
    """The longest epoch in which the stretches have the given shares and no row comes twice.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each stretch.
    shares : sequence of float
        Each above 0; their ratios count.

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
