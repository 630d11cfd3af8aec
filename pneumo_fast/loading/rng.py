"""Random numbers and permutations as hashes: what is drawn depends on (seed, epoch, row) alone, on no draw before it.

The permutation is a Feistel network over ``ceil(sqrt(n))`` squared (Black and Rogaway 2002, "Ciphers with arbitrary
finite domains"): positions that fall outside ``n`` are encrypted again until they fall inside. One of ten million rows
costs no memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Numbers of rows, or of positions."""

MASK: Final = (1 << 64) - 1
"""Keeps the low 64 bits of a Python integer."""
ROUNDS: Final = 8  # four make a Feistel network hard to tell from random (Luby and Rackoff 1988); eight leave a margin
_GOLDEN: Final = 0x9E3779B97F4A7C15  # the step of SplitMix64 (Steele et al. 2014)
_DOMAIN: Final = 0x61756772616E67  # keeps these draws apart from those of the order, which has the same seed


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalizer of SplitMix64 (Steele et al. 2014), which spreads every bit over all the others; any shape."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def mix_int(x: int) -> int:
    """One SplitMix64 step on a Python integer."""
    return int(mix(np.array([(x + _GOLDEN) & MASK], dtype=np.uint64))[0])


def uniform(seed: int, epoch: int, rows: Rows, count: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), float64, shape (count, n): a hash of seed, epoch, row and the place among ``count``.

    Parameters
    ----------
    rows : ndarray of int64, shape (n,)
    """
    key = mix_int(mix_int(mix_int(seed & MASK) ^ (epoch & MASK)) ^ _DOMAIN)
    state = mix(mix(rows.astype(np.uint64)) ^ np.uint64(key))
    steps = np.arange(1, count + 1, dtype=np.uint64)[:, None] * np.uint64(_GOLDEN)
    bits: NDArray[np.float64] = (mix(state + steps) >> np.uint64(11)).astype(np.float64)
    return bits * 2.0**-53


def permute(positions: Rows, n: int, seed: int, epoch: int) -> Rows:
    """Map positions through the permutation of ``0 .. n - 1`` that ``seed`` and ``epoch`` choose.

    Parameters
    ----------
    positions : ndarray of int64, shape (k,)
        Each in ``0 .. n - 1``.

    Returns
    -------
    ndarray of int64, shape (k,)
    """
    width = math.isqrt(max(0, n - 1)) + 1
    keys = _keys(seed & MASK, epoch & MASK)
    out = _encrypt(positions, width, keys)
    while (outside := out >= n).any():
        out[outside] = _encrypt(out[outside], width, keys)
    return out


@lru_cache(maxsize=16)
def _keys(seed: int, epoch: int) -> tuple[np.uint64, ...]:
    """One for each round."""
    state = mix_int(mix_int(seed) ^ epoch)  # one after the other, so that (1, 2) is not (2, 1)
    return tuple(np.uint64(mix_int(state + number)) for number in range(1, ROUNDS + 1))


def _encrypt(values: Rows, width: int, keys: Iterable[np.uint64]) -> Rows:
    """One pass of the Feistel network on ``0 .. width**2 - 1``; addition modulo ``width`` makes it a bijection."""
    left, right = np.divmod(values, width)
    for key in keys:
        mixed = (mix(right.astype(np.uint64) ^ key) % np.uint64(width)).astype(np.int64)
        left, right = right, (left + mixed) % width
    return left * width + right
