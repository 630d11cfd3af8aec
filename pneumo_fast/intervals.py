"""How far a figure can be trusted: what an estimate is, and intervals that follow from a formula.

:mod:`pneumo_fast.bootstrap` makes the intervals that do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEVEL: Final = 0.95
"""Confidence level of every interval."""
Z: Final = NormalDist().inv_cdf(0.5 + LEVEL / 2)
"""The standard normal's quantile that belongs to it."""

Labels = NDArray[np.int64]
Logits = NDArray[np.float32]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure with its interval; each is None where the images do not define it."""

    value: float | None
    """The figure."""
    low: float | None = None
    """Lower end of the interval at :data:`LEVEL`; None exactly where ``high`` is."""
    high: float | None = None
    """Upper end."""


def estimate(value: float, interval: Interval | None) -> Estimate:
    """Put a figure and its interval together; a figure that is no number has neither."""
    if not math.isfinite(value):
        return Estimate(value=None)
    low, high = interval if interval is not None else (None, None)
    return Estimate(value=float(value), low=low, high=high)


def wilson_interval(part: int, whole: int) -> Interval:
    """Score interval of a proportion at :data:`LEVEL`.

    Parameters
    ----------
    part, whole : int
        ``0 <= part <= whole``, ``whole`` at least 1.

    Returns
    -------
    (low, high) : tuple of float
        Within [0, 1].

    Notes
    -----
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927) 209;
    method 3 of R. G. Newcombe, Statistics in Medicine 17 (1998) 857.
    """
    share, weight = part / whole, Z**2 / whole
    middle = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / whole + weight / (4 * whole)) / (1 + weight)
    low = max(0.0, middle - half) if part else 0.0
    high = min(1.0, middle + half) if part < whole else 1.0
    return low, high


def placements(labels: Labels, scores: Logits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """DeLong's structural components, whose means are both the AUROC.

    Returns
    -------
    found : ndarray of float64, shape (positives,)
        For each positive, the share of negatives that it outranks; a tie counts one half.
    passed : ndarray of float64, shape (negatives,)
        For each negative, the share of positives that outrank it.

    Notes
    -----
    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988) 837; by sorting, as in X. Sun and W. Xu,
    IEEE Signal Processing Letters 21 (2014) 1389.
    """
    positive, negative = scores[labels == 1], scores[labels == 0]
    return _share_below(positive, negative), 1.0 - _share_below(negative, positive)


def _share_below(values: Logits, others: Logits) -> NDArray[np.float64]:
    """For each value the share of the others that are lower; a tie counts one half."""
    ordered = np.sort(others)
    below, not_above = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return (below + not_above) / (2.0 * len(others))
