"""Which rows make up which batch: a pure function of (seed, epoch, batch), at any position in constant time.

Nothing is stored between calls, so two readers that agree on the numbers agree on the rows, a run can resume
anywhere, and a permutation of ten million rows costs no memory. The permutation is a Feistel network over
``ceil(sqrt(n))`` squared (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): positions that fall
outside ``n`` are encrypted again until they fall inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.errors import ConfigError

ROUNDS = 8  # four make a Feistel network hard to tell from random (Luby and Rackoff 1988); eight leave a margin
_MASK = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A stretch of rows of which each epoch uses some."""

    rows: int
    """Rows in the stretch."""
    used: int
    """Rows of it in an epoch, 0 to ``rows``."""


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
    """The batches of every epoch over ``n`` rows.

    Every row comes exactly once in an epoch, unless ``parts`` say otherwise. A training batch never holds a single
    image, which BatchNorm may refuse: a single left-over row joins the batch before it, which then has
    ``batch_size + 1`` rows.
    """

    n: int
    """Rows in the split, at least 1."""
    batch_size: int
    """Rows in a batch, at least 1; with ``shuffle`` at least 2."""
    shuffle: bool = False
    """Shuffle afresh each epoch (for training); else storage order and no joining of a left-over row."""
    seed: int = 0
    """Chooses the permutations."""
    parts: tuple[Part, ...] = ()
    """Where an epoch shall hold a part of the rows only (shuffled orders): one entry per stretch of rows."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises
        ------
        ConfigError
            If there are no rows, or fewer than two for shuffled batches, or the batch size is too small.
        """
        least = 2 if self.shuffle else 1
        if self.batch_size < least:
            raise ConfigError(f"batch size {self.batch_size} is too small: use at least {least}")
        if self.parts and not self.shuffle:
            raise ConfigError("an order with parts must be shuffled")
        if self.length < least:
            raise ConfigError(f"an epoch has {self.length} images: at least {least} are needed")

    @property
    def length(self) -> int:
        """Rows in an epoch."""
        return sum(part.used for part in self.parts) if self.parts else self.n

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, left = divmod(self.length, self.batch_size)
        return whole if left == 0 or (self._joins_last and whole) else whole + 1

    @property
    def max_batch(self) -> int:
        """Rows in the largest batch."""
        return min(self.length, self.batch_size + self._joins_last)

    @property
    def _joins_last(self) -> bool:
        return self.shuffle and self.length % self.batch_size == 1

    def rows(self, epoch: int, batch: int) -> NDArray[np.int64]:
        """Row numbers of one batch, int64, shape (rows,), each in ``0 .. n - 1``.

        Raises
        ------
        IndexError
            If the epoch has no such batch.
        """
        if not 0 <= batch < len(self):
            raise IndexError(f"batch {batch} of an epoch of {len(self)}")
        stop = self.length if batch == len(self) - 1 else (batch + 1) * self.batch_size
        positions = np.arange(batch * self.batch_size, stop, dtype=np.int64)
        if not self.shuffle:
            return positions
        rows = permute(positions, self.length, self.seed, epoch)
        return self._of_parts(rows, epoch) if self.parts else rows

    def _of_parts(self, places: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Fill each part's places of the epoch with rows of it, another choice each epoch, none of them twice."""
        rows = np.empty_like(places)
        first_place = first_row = 0
        for number, part in enumerate(self.parts, start=1):
            mine = (places >= first_place) & (places < first_place + part.used)
            chosen = permute(places[mine] - first_place, part.rows, _mix_int(self.seed + number), epoch)
            rows[mine] = first_row + chosen
            first_place, first_row = first_place + part.used, first_row + part.rows
        return rows


def permute(positions: NDArray[np.int64], n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Map positions through the permutation of ``0 .. n - 1`` that ``seed`` and ``epoch`` choose.

    Parameters
    ----------
    positions : ndarray of int64, shape (k,)
        Each in ``0 .. n - 1``.
    """
    width = int(np.ceil(np.sqrt(n)))
    keys = _round_keys(seed, epoch)
    out = _encrypt(positions, width, keys)
    while (outside := out >= n).any():
        out[outside] = _encrypt(out[outside], width, keys)
    return out


def _encrypt(values: NDArray[np.int64], width: int, keys: list[np.uint64]) -> NDArray[np.int64]:
    """One pass of the Feistel network on ``0 .. width**2 - 1``; addition modulo ``width`` makes it a bijection."""
    left, right = np.divmod(values, width)
    for key in keys:
        left, right = (
            right,
            (left + (_mix(right.astype(np.uint64) ^ key) % np.uint64(width)).astype(np.int64)) % width,
        )
    return left * width + right


def _round_keys(seed: int, epoch: int) -> list[np.uint64]:
    """A 64-bit key for each round; seed and epoch are mixed one after the other so that (1, 2) is not (2, 1)."""
    state = _mix_int(_mix_int(seed & _MASK) ^ (epoch & _MASK))
    return [np.uint64(_mix_int(state + r)) for r in range(1, ROUNDS + 1)]


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalizer of SplitMix64 (Steele et al. 2014), which spreads every bit over all the others."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _mix_int(x: int) -> int:
    """One SplitMix64 step on a Python integer."""
    return int(_mix(np.array([(x + 0x9E3779B97F4A7C15) & _MASK], dtype=np.uint64))[0])
