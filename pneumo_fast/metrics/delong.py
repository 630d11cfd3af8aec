"""DeLong's test of two AUROCs on the same images, and the components that it is made of."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.metrics.intervals import Labels, Logits
from pneumo_fast.metrics.scored import Scores


def delong_test(labels: Labels, a: Scores, b: Scores) -> float | None:
    """Two-sided p value of the difference of two AUROCs on the same images.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        0 or 1.
    a, b : ndarray of float, shape (n,)
        Scores of the two models.

    Returns
    -------
    float or None
        In [0, 1]; None where the variance says nothing: fewer than two images of a class, or it is zero.

    Notes
    -----
    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988) 837.
    """
    if min(np.bincount(labels, minlength=2)) < 2:
        return None
    of_positives, of_negatives = (
        np.stack(part) for part in zip(placements(labels, a), placements(labels, b), strict=True)
    )
    apart = of_positives[1] - of_positives[0], of_negatives[1] - of_negatives[0]
    variance = sum(float(part.var(ddof=1)) / len(part) for part in apart)
    if variance < 1e-24:  # rounding leaves no exact zero
        return None
    return 2 * NormalDist().cdf(-abs(float(apart[0].mean())) / math.sqrt(variance))


def placements(labels: Labels, scores: Logits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """DeLong's structural components, in [0, 1], whose means are both the AUROC; parameters as of :func:`delong_test`.

    Returns
    -------
    of_positives : ndarray of float64, shape (positives,)
        For each positive, the share of negatives that it outranks; a tie counts one half.
    of_negatives : ndarray of float64, shape (negatives,)
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
