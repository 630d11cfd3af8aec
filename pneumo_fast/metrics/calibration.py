"""How good probabilities are as probabilities, and how they are made better.

A loss with ``pos_weight`` w teaches the odds w times too high: log w comes off the logit. A network is also too sure of
itself: one temperature divides the logit (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pneumo_fast.metrics.intervals import Bootstrap, Estimate, Values, estimate, percentile_interval
from pneumo_fast.metrics.scored import Sample, Scores, sigmoid

BINS: Final = 10
"""Equal bins of the probability."""
COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures that are tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """The ``n`` images, at least one, whose probability lies in [low, high); the last bin holds 1 as well."""

    low: float
    high: float
    n: int
    mean_probability: float
    positive_share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """How good the probabilities are as probabilities; the lower, the better."""

    brier: Estimate
    """Mean squared difference from the label, in [0, 1]: Brier, Monthly Weather Review 78 (1950) 1, for one class."""
    log_loss: Estimate
    """Mean of -ln(probability of the true class), in nats."""
    ece: Estimate
    """Expected calibration error, in [0, 1]: over :data:`BINS` equal bins, the mean distance between the mean
    probability and the share of positives, weighted by images (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""
    reliability: tuple[Bin, ...]
    """The bins that hold an image."""


def judge_probability(sample: Sample, bootstrap: Bootstrap) -> Quality:
    """Judge the sigmoid of the logits as a probability."""
    columns = _probability_columns(sample)
    values = _probability_figures(columns.sum(axis=0, keepdims=True))
    again = _probability_figures(bootstrap.sums(sample.groups, columns))
    estimates = {key: estimate(float(value[0]), percentile_interval(again[key])) for key, value in values.items()}
    bins = enumerate(columns.sum(axis=0)[3:].reshape(3, BINS).T.tolist())
    reliability = tuple(
        Bin(low=i / BINS, high=(i + 1) / BINS, n=int(n), mean_probability=p / n, positive_share=y / n)
        for i, (n, p, y) in bins
        if n
    )
    return Quality(**estimates, reliability=reliability)


def _probability_columns(sample: Sample) -> Values:
    """Per image: 1, squared error, log loss, and for each bin whether it is there, its probability and its label."""
    y, p = sample.labels.astype(np.float64), sample.probabilities
    signed = np.where(sample.labels == 1, -1.0, 1.0) * sample.logits.astype(np.float64)
    place = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    inside = (place[:, None] == np.arange(BINS)).astype(np.float64)
    single = np.stack([np.ones_like(p), (p - y) ** 2, np.logaddexp(0.0, signed)], axis=1)
    return np.concatenate([single, inside, inside * p[:, None], inside * y[:, None]], axis=1)


def _probability_figures(sums: Values) -> dict[str, Values]:
    n = sums[:, 0]
    _, probability, positive = np.split(sums[:, 3:], 3, axis=1)
    return {"brier": sums[:, 1] / n, "log_loss": sums[:, 2] / n, "ece": np.abs(probability - positive).sum(axis=1) / n}


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What makes a logit's sigmoid a better probability: (logit - log_pos_weight) / temperature."""

    log_pos_weight: float
    """Natural logarithm of the loss's weight of a positive image."""
    temperature: float
    """Divides the logit; from :data:`COLDEST` to :data:`HOTTEST`."""

    def apply(self, logits: Scores) -> Values:
        """Calibrated logits, float64, shape (n,), in the order of ``logits``."""
        return (logits.astype(np.float64) - self.log_pos_weight) / self.temperature


def calibrate(sample: Sample, pos_weight: float) -> Calibration | None:
    """Find the temperature at which the log loss of a sample is least; None where it is of one class.

    The loss is convex in 1 / temperature, and its slope's sign is searched by halving. A model that separates the
    classes, or ranks them the wrong way round, has no best temperature: it gets the nearer bound.

    Parameters
    ----------
    pos_weight : float
        The loss's weight of a positive image, above 0.
    """
    if not sample.two_classes:
        return None
    log_weight = float(np.log(pos_weight))
    shifted = sample.logits.astype(np.float64) - log_weight
    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    for _ in range(60):
        middle = (low + high) / 2
        slope = ((sigmoid(np.exp(middle) * shifted) - sample.labels) * shifted).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return Calibration(log_pos_weight=log_weight, temperature=float(np.exp(-(low + high) / 2)))
