"""How good probabilities are as probabilities, and how they are made better.

A loss with ``pos_weight`` w, or positives drawn w times as often as they are, teach the odds w times too high: log w
comes off the logit. A network is also too sure of itself: one temperature divides the logit (Guo et al. 2017,
https://arxiv.org/abs/1706.04599). Where what comes off is not known, both are fitted: Platt 1999, "Probabilistic
outputs for support vector machines". ``docs/decisions/0006-calibration.md`` says why not always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from pneumo_fast.metrics import intervals
from pneumo_fast.metrics.intervals import Bootstrap, Estimate, Interval, Labels, Values, estimate, percentile_interval
from pneumo_fast.metrics.scored import Sample, Scores, sigmoid

BINS: Final = 10
"""Equal bins of the probability."""
CLEARLY_APART: Final = 3.0
"""Standard errors from which mean probability and share of positives of a bin surely differ."""
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
    once, again = columns.sum(axis=0, keepdims=True), bootstrap.sums(sample.groups, columns)
    values, resampled = _probability_figures(once), _probability_figures(again)
    ends = {key: percentile_interval(replicates) for key, replicates in resampled.items() if key != "ece"}
    ends["ece"] = calibration_error_interval(_apart(once)[0], _apart(again))
    estimates = {key: estimate(float(value[0]), ends[key]) for key, value in values.items()}
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
    return {"brier": sums[:, 1] / n, "log_loss": sums[:, 2] / n, "ece": np.abs(_apart(sums)).sum(axis=1)}


def _apart(sums: Values) -> Values:
    """How far mean probability and share of positives are apart in each bin, weighted by images: (rows, BINS)."""
    _, probability, positive = np.split(sums[:, 3:], 3, axis=1)
    return (probability - positive) / sums[:, :1]


def calibration_error_interval(apart: Values, resampled: Values) -> Interval | None:
    """Interval at 95 % of the sum of the bins' absolute distances.

    Sampling noise biases a sum of absolute values upwards: the value lies above the truth, and resamples lie above the
    value, so that a percentile interval is too high. The width is therefore taken from the signed distances. At the
    lower end bins that are clearly apart keep their sign, and all others count by the absolute value of their
    deviation; at the upper end every bin keeps its sign.

    Parameters
    ----------
    apart : ndarray of float64, shape (bins,)
        Distances with their signs, weighted by images.
    resampled : ndarray of float64, shape (resamples, bins)

    Returns
    -------
    (low, high) : tuple of float, or None
        Within [0, 1], the value between them; None where all resamples give the same.

    Notes
    -----
    Z. Fang and A. Santos, "Inference on directionally differentiable functions", Review of Economic Studies 86 (2019)
    377. ``docs/metrics.md`` has the coverage.
    """
    moved = resampled - apart
    signed = np.where(apart < 0, -moved, moved)
    clear = np.abs(apart) > CLEARLY_APART * moved.std(axis=0)
    at_most = np.quantile(np.where(clear, signed, np.abs(moved)).sum(axis=1), (1 + intervals.LEVEL) / 2)
    at_least = np.quantile(signed.sum(axis=1), (1 - intervals.LEVEL) / 2)
    value = np.abs(apart).sum()
    low, high = max(0.0, float(value - at_most)), min(1.0, float(value - at_least))
    return None if high - low < 1e-12 else (low, high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What makes a logit's sigmoid a better probability: (logit - shift) / temperature."""

    shift: float
    """Comes off the logit: natural logarithm of how many times too high the odds are."""
    temperature: float
    """Divides the logit; from :data:`COLDEST` to :data:`HOTTEST`."""

    def apply(self, logits: Scores) -> Values:
        """Calibrated logits, float64, shape (n,), in the order of ``logits``."""
        return (logits.astype(np.float64) - self.shift) / self.temperature

    def at(self, probability: float) -> float:
        """The calibrated probability, in [0, 1], of a plain one."""
        with np.errstate(divide="ignore"):
            logit = np.log(np.float64(probability)) - np.log1p(-np.float64(probability))
        return float(sigmoid(self.apply(np.array([logit])))[0])


def calibrate(sample: Sample, shift: float | None) -> Calibration | None:
    """Find the temperature at which the log loss of a sample is least, and the shift where it is not known.

    A model that separates the classes, or ranks them the wrong way round, has no best temperature: it gets the nearer
    bound.

    Parameters
    ----------
    shift : float or None
        Natural logarithm of how many times too high training has made the odds of a positive; None if not known.

    Returns
    -------
    Calibration or None
        None where the sample is of one class.
    """
    if not sample.two_classes:
        return None
    logits = sample.logits.astype(np.float64)
    return _fit_both(logits, sample.labels) if shift is None else _fit_temperature(logits, sample.labels, shift)


def _fit_temperature(logits: Values, labels: Labels, shift: float) -> Calibration:
    """The loss is convex in 1 / temperature; its slope's sign is searched by halving."""
    shifted = logits - shift

    def falls(log_scale: float) -> bool:
        return float(((sigmoid(np.exp(log_scale) * shifted) - labels) * shifted).sum()) <= 0

    return Calibration(shift=shift, temperature=float(np.exp(-_turn(falls, -np.log(HOTTEST), -np.log(COLDEST)))))


def _fit_both(logits: Values, labels: Labels) -> Calibration:
    """Platt scaling: Newton's steps to the least log loss against his targets, which a separated sample has as well."""
    positives = int(labels.sum())
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    centre, spread = float(logits.mean()), float(logits.std()) or 1.0
    columns = np.stack([(logits - centre) / spread, np.ones_like(logits)], axis=1)
    weights = np.array([0.0, np.log(positives / (len(labels) - positives))])
    for _ in range(STEPS):
        p = sigmoid(columns @ weights)
        curvature = (columns * (p * (1 - p))[:, None]).T @ columns + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, columns.T @ (p - targets))
        weights -= step * min(1.0, 1.0 / max(np.abs(step).max(), 1e-12))  # a longer one may go past the least
    scale = float(np.clip(weights[0] / spread, 1 / HOTTEST, 1 / COLDEST))
    low, high = -np.abs(logits).max() - LARGEST_SHIFT, np.abs(logits).max() + LARGEST_SHIFT
    shift = _turn(lambda shift: float((sigmoid(scale * (logits - shift)) - targets).sum()) >= 0, low, high)
    return Calibration(shift=shift, temperature=1 / scale)


STEPS: Final = 50
"""Of Newton's; ten are enough for most samples."""
RIDGE: Final = 1e-9
"""Keeps equations solvable where every logit is the same."""
LARGEST_SHIFT: Final = 20.0 * HOTTEST
"""Beyond the largest logit, in logits."""


def _turn(below: Callable[[float], bool], low: float, high: float) -> float:
    """Where something that holds below a point and not above ceases to hold, by halving."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return float((low + high) / 2)
