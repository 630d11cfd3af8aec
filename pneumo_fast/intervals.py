"""How far a figure can be trusted: confidence intervals of a proportion and of an AUROC.

Both take every image as an independent one. Several images of one patient are not, and make the intervals too
narrow.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEVEL: Final = 0.95
"""Confidence level of every interval."""
_Z: Final = NormalDist().inv_cdf(0.5 + LEVEL / 2)

Labels = NDArray[np.int64]
Logits = NDArray[np.float32]
Interval = tuple[float, float]


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
    share, weight = part / whole, _Z**2 / whole
    middle = (share + weight / 2) / (1 + weight)
    half = _Z * math.sqrt(share * (1 - share) / whole + weight / (4 * whole)) / (1 + weight)
    low = max(0.0, middle - half) if part else 0.0
    high = min(1.0, middle + half) if part < whole else 1.0
    return low, high


def delong_interval(labels: Labels, logits: Logits) -> Interval | None:
    """Interval of the AUROC at :data:`LEVEL`, by DeLong's variance on the logit scale.

    The logit scale keeps the interval within (0, 1) and its coverage right near the ends.

    Returns
    -------
    (low, high) : tuple of float, or None
        None where the variance says nothing: fewer than two images of a class, or it is zero (the classes are
        separated completely, or every score is the same).

    Notes
    -----
    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988) 837; the logit scale as in G. Qin and
    L. Hotilovac, Statistical Methods in Medical Research 17 (2008) 207.
    """
    positive, negative = logits[labels == 1], logits[labels == 0]
    if min(len(positive), len(negative)) < 2:
        return None
    found = _share_below(positive, negative)  # for each positive, the share of negatives that it outranks
    passed = 1.0 - _share_below(negative, positive)  # for each negative, the share of positives that outrank it
    area = float(found.mean())
    variance = float(found.var(ddof=1) / len(positive) + passed.var(ddof=1) / len(negative))
    if not 0.0 < area < 1.0 or variance < 1e-24:  # rounding leaves no exact zero
        return None
    middle, half = math.log(area / (1 - area)), _Z * math.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-min(max(end, -700.0), 700.0))) for end in (middle - half, middle + half))
    return low, high


def _share_below(values: Logits, others: Logits) -> NDArray[np.float64]:
    """For each value the share of the others that are lower; a tie counts one half."""
    ordered = np.sort(others)
    below, not_above = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return (below + not_above) / (2.0 * len(others))
