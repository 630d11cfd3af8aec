"""Hashing of numbers: what is drawn by it depends on the numbers alone, not on what was drawn before."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MASK: Final = (1 << 64) - 1
"""Keeps the low 64 bits of a Python integer."""


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalizer of SplitMix64 (Steele et al. 2014), which spreads every bit over all the others."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def mix_int(x: int) -> int:
    """One SplitMix64 step on a Python integer."""
    return int(mix(np.array([(x + 0x9E3779B97F4A7C15) & MASK], dtype=np.uint64))[0])
