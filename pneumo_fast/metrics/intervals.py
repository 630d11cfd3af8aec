"""How far a figure can be trusted: what an estimate is, and the intervals by bootstrap over patients and by Wilson.

The bootstrap draws patients with replacement, each with all of its images (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13). Wilson's score interval is for shares of 0 and 1, which no resample changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LEVEL: Final = 0.95
"""Confidence level of every interval."""
Z: Final = NormalDist().inv_cdf(0.5 + LEVEL / 2)
"""The standard normal's quantile that belongs to it."""
CHUNK: Final = 2**19
"""Weights that are worked on together: they stay in a core's cache."""
KEPT: Final = 2**28
"""Draws of patients that are kept at most: a byte of memory each."""
LEAST_DEFINED: Final = 0.9
"""Share of the resamples in which a figure must have a value, for an interval to be given."""

Labels = NDArray[np.int64]
Logits = NDArray[np.float32]
Groups = NDArray[np.int64]
"""Number of each image's patient, from 0, without gaps."""
Values = NDArray[np.float64]
Drawn = NDArray[np.float32]
"""How often each patient is drawn, shape (resamples, patients), in whole numbers."""
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure with its interval; each is None where the images do not define it."""

    value: float | None
    low: float | None = None
    """Lower end of the interval at :data:`LEVEL`; None exactly where ``high`` is."""
    high: float | None = None

    @property
    def complement(self) -> Estimate:
        """That of 1 minus the figure."""
        value, low, high = (None if end is None else 1 - end for end in (self.value, self.high, self.low))
        return Estimate(value=value, low=low, high=high)


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


def extreme_interval(share: float, groups: Groups) -> Interval | None:
    """Wilson's interval, counting patients, of a share of exactly 0 or 1, which no resample changes; None of others.

    Parameters
    ----------
    share : float
        In [0, 1], or not a number.
    groups : ndarray of int64
        Numbers of the patients of the images that the share is of.
    """
    patients = len(np.unique(groups))
    return wilson_interval(round(share * patients), patients) if share in {0.0, 1.0} else None


def group_numbers(groups: pd.Series[str]) -> Groups:
    """Number the patients; an image without one (``""``) gets a number of its own.

    Parameters
    ----------
    groups : Series of str, length ``images``

    Returns
    -------
    ndarray of int64, shape (images,)
    """
    unknown = (groups == "").to_numpy()
    names = np.where(unknown, [f"i{row}" for row in range(len(groups))], "g" + groups.to_numpy(dtype=object))
    return pd.factorize(names)[0].astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bootstrap:
    """How to resample."""

    resamples: int = 2000
    """How often, at least 100."""
    seed: int = 0
    """Chooses the resamples."""
    _kept: dict[tuple[int, int], list[NDArray[np.unsignedinteger]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Blocks of the last draws, by numbers of patients and images: figures of the same images come in a row."""

    def draws(self, groups: Groups) -> Iterator[Drawn]:
        """How often each patient is drawn.

        Parameters
        ----------
        groups : ndarray of int64, shape (n,)

        Yields
        ------
        ndarray of float32, shape (resamples of the block, patients)
            Whole numbers; the blocks together have ``resamples`` rows.
        """
        size = patients, _ = int(groups.max()) + 1, len(groups)
        if size not in self._kept and self.resamples * patients <= KEPT:
            self._kept.clear()
            self._kept[size] = list(self._draw(*size))
        for block in self._kept.get(size) or self._draw(*size):
            yield block.astype(np.float32)

    def _draw(self, patients: int, images: int) -> Iterator[NDArray[np.unsignedinteger]]:
        random = np.random.default_rng(abs(self.seed))
        most = max(1, CHUNK // images)
        for start in range(0, self.resamples, most):
            rows = min(most, self.resamples - start)
            picked = random.integers(patients, size=(rows, patients)) + patients * np.arange(rows)[:, None]
            counts = np.bincount(picked.ravel(), minlength=rows * patients).reshape(rows, patients)
            yield counts.astype(np.min_scalar_type(counts.max()))

    def sums(self, groups: Groups, columns: Values) -> Values:
        """Sums of per-image values, resampled.

        Parameters
        ----------
        groups : ndarray of int64, shape (n,)
        columns : ndarray of float64, shape (n, m)

        Returns
        -------
        ndarray of float64, shape (resamples, m)
        """
        totals = np.stack([np.bincount(groups, column) for column in columns.T], axis=1)
        return self.each(groups, lambda drawn: drawn.astype(np.float64) @ totals)

    def each(self, groups: Groups, figures: Callable[[Drawn], Values]) -> Values:
        """Figures of the resamples, computed from how often each patient is drawn.

        Parameters
        ----------
        groups : ndarray of int64, shape (n,)
        figures : callable
            Takes a block of :meth:`draws`; returns an array of float64 with a row per resample.

        Returns
        -------
        ndarray of float64, with ``resamples`` rows
        """
        return np.concatenate([figures(drawn) for drawn in self.draws(groups)])


def percentile_interval(replicates: Values) -> Interval | None:
    """Interval at :data:`LEVEL` between percentiles of a resampled figure.

    Parameters
    ----------
    replicates : ndarray of float64, shape (resamples,)
        Not finite where a resample does not define the figure.

    Returns
    -------
    (low, high) : tuple of float, or None
        None where too many resamples do not define it, or all give the same: then they say nothing about it.
    """
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < LEAST_DEFINED * len(replicates):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return None if high - low < 1e-12 else (low, high)


def mean_interval(values: Values, groups: Groups, *, resamples: int, seed: int) -> Interval | None:
    """Interval of the mean of per-image values.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
    groups : ndarray of int64, shape (n,)
        Numbers of the patients; they need not be without gaps.

    Returns
    -------
    (low, high) : tuple of float, or None
        See :func:`percentile_interval`.
    """
    groups = np.unique(groups, return_inverse=True)[1]
    sums = Bootstrap(resamples=resamples, seed=seed).sums(groups, np.stack([values, np.ones_like(values)], axis=1))
    return percentile_interval(sums[:, 0] / sums[:, 1])
