"""What a threshold gives: counts, rates with intervals, net benefit; and how a threshold is chosen.

torchmetrics counts; the rates are quotients of the counts; intervals are the bootstrap's over patients. A rate that the
images do not define is None, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional import classification as tm

from pneumo_fast.metrics.catalogue import SENSITIVITY, SPECIFICITY, Metric
from pneumo_fast.metrics.intervals import Bootstrap, Estimate, Values, estimate, extreme_interval, percentile_interval
from pneumo_fast.metrics.scored import Sample, call_positive


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """How many images of each class were called what; :data:`pneumo_fast.metrics.catalogue.COUNTS` has the terms."""

    tn: int
    fp: int
    fn: int
    tp: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdMetrics:
    """What one threshold gives; rates lie in [0, 1], :mod:`pneumo_fast.metrics.catalogue` says what each means."""

    name: str
    """How people call it: the number, or how it was chosen."""
    threshold: float | None
    """Probability in [0, 1] from which an image is called positive; None for 'always negative'."""
    scale: str
    """Which probability: ``plain`` or ``calibrated``."""
    accuracy: Estimate
    precision: Estimate
    """The positive predictive value."""
    recall: Estimate
    """The sensitivity."""
    specificity: Estimate
    npv: Estimate
    """The negative predictive value."""
    f1: Estimate
    """Harmonic mean of precision and recall, 2 tp / (2 tp + fp + fn)."""
    mcc: Estimate
    """Matthews correlation of labels and calls, in [-1, 1]."""
    risk: float | None
    """Calibrated probability that the threshold stands for, in [0, 1]; None without calibration."""
    net_benefit: Estimate
    """tp / n - fp / n * risk / (1 - risk): Vickers and Elkin, Medical Decision Making 26 (2006) 565."""
    ppv_at_prevalence: Estimate | None
    """The positive predictive value at the prevalence that was stated; None where none was."""
    npv_at_prevalence: Estimate | None
    confusion: Confusion


@dataclass(frozen=True, kw_only=True, slots=True)
class AtThreshold(ThresholdMetrics):
    """Those of a threshold that is a number."""

    threshold: float


M = TypeVar("M", bound=ThresholdMetrics)


def at_threshold(
    sample: Sample,
    threshold: float,
    bootstrap: Bootstrap,
    *,
    name: str = "",
    prevalence: float | None = None,
    risk: float | None = None,
) -> AtThreshold:
    """Count what a threshold on the plain probability calls right and wrong; compute the rates and their intervals.

    Parameters
    ----------
    threshold : float
        In [0, 1].
    prevalence : float, optional
        Share of positives, between 0 and 1, for which predictive values are wanted as well.
    risk : float, optional
        Calibrated probability that the threshold stands for; without it there is no net benefit.
    """
    called = call_positive(sample.probabilities, threshold)
    return _judge_calls(AtThreshold, sample, called, threshold, bootstrap, name or f"{threshold}", prevalence, risk)


def always_negative(sample: Sample, bootstrap: Bootstrap, *, prevalence: float | None = None) -> ThresholdMetrics:
    """The same figures for calling every image negative."""
    none = np.zeros(sample.n, bool)
    return _judge_calls(ThresholdMetrics, sample, none, None, bootstrap, "always negative", prevalence, 0.0)


def _judge_calls(
    kind: type[M],
    sample: Sample,
    called: NDArray[np.bool_],
    threshold: float | None,
    bootstrap: Bootstrap,
    name: str,
    prevalence: float | None,
    risk: float | None,
) -> M:
    # torchmetrics itself would compare with ">"; given classes instead of probabilities it only counts.
    (tn, fp), (fn, tp) = tm.binary_confusion_matrix(
        torch.from_numpy(called.astype(np.int64)), torch.tensor(sample.labels)
    ).tolist()
    positive = sample.labels == 1
    cells = np.stack([~positive & ~called, ~positive & called, positive & ~called, positive & called], axis=1)
    again = rates(bootstrap.sums(sample.groups, cells.astype(np.float64)), risk, prevalence)
    values = rates(np.array([[tn, fp, fn, tp]], dtype=np.float64), risk, prevalence)
    intervals = {key: percentile_interval(again[key]) for key in values}
    wholes = {
        "accuracy": positive | ~positive,
        "precision": called,
        "recall": positive,
        "specificity": ~positive,
        "npv": ~called,
    }
    for key, whole in wholes.items():
        intervals[key] = extreme_interval(float(values[key][0]), sample.groups[whole]) or intervals[key]
    estimates = {key: estimate(float(value[0]), intervals[key]) for key, value in values.items()}
    ppv, npv = (estimates.pop(key, None) for key in ("ppv_at_prevalence", "npv_at_prevalence"))
    return kind(
        name=name,
        threshold=threshold,
        scale="plain",
        risk=None if threshold is None else risk,
        confusion=Confusion(tn=tn, fp=fp, fn=fn, tp=tp),
        ppv_at_prevalence=ppv,
        npv_at_prevalence=npv,
        **estimates,
    )


def rates(counts: Values, risk: float | None, prevalence: float | None = None) -> dict[str, Values]:
    """Rates that follow from confusion matrices.

    Parameters
    ----------
    counts : ndarray of float64, shape (b, 4)
        tn, fp, fn, tp.
    risk : float, optional
        In [0, 1], for the net benefit: false positives weigh risk / (1 - risk).
    prevalence : float, optional
        Between 0 and 1; adds ``ppv_at_prevalence`` and ``npv_at_prevalence``.

    Returns
    -------
    dict of ndarray of float64, shape (b,)
        Not a number where a rate divides by nothing.
    """
    tn, fp, fn, tp = counts.T
    n = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        odds = np.float64(np.nan if risk is None else risk) / np.float64(np.nan if risk is None else 1.0 - risk)
        found = {
            "accuracy": (tp + tn) / n,
            "precision": tp / (tp + fp),
            "recall": sensitivity,
            "specificity": specificity,
            "npv": tn / (tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "mcc": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
            "net_benefit": (tp - fp * odds) / n,
        }
        if prevalence is not None:
            positive, negative = prevalence, 1.0 - prevalence  # a part over a sum that has it is never above 1
            true_positive, true_negative = sensitivity * positive, specificity * negative
            found["ppv_at_prevalence"] = true_positive / (true_positive + fp / (tn + fp) * negative)
            found["npv_at_prevalence"] = true_negative / (true_negative + fn / (tp + fn) * positive)
    return found


def net_benefits(sample: Sample, thresholds: Sequence[float]) -> tuple[list[float], list[float]]:
    """Net benefit of calling positive by the sigmoid of the logits, and of calling every image positive.

    Parameters
    ----------
    thresholds : sequence of float
        In [0, 1).

    Returns
    -------
    model, treat_all : list of float
        One value per threshold; calling none positive has the benefit 0.
    """
    at = np.asarray(thresholds)
    tp, fp = (count_from(sample.probabilities[sample.labels == label], at) for label in (1, 0))
    odds = at / (1 - at)
    share = sample.positives / sample.n
    return ((tp - fp * odds) / sample.n).tolist(), (share - (1 - share) * odds).tolist()


# ---- choosing


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A threshold on the plain probability that was chosen on some images, to be judged on others."""

    name: str
    """How it was chosen."""
    threshold: float


ROUNDING: Final = 1e-9
"""By so much a quotient may miss a target that it reaches."""


def target_name(metric: Metric, target: float) -> str:
    """What a threshold is called that was chosen for a target."""
    return f"{metric.label} at least {target:g}"


def choose(
    sample: Sample, target_sensitivity: float, target_specificity: float, cost_ratio: float | None
) -> tuple[Chosen, ...]:
    """Choose thresholds among the probabilities of a sample that holds both classes; of equals the highest.

    Parameters
    ----------
    target_sensitivity, target_specificity : float
        In (0, 1]: the highest threshold that reaches the one, the lowest that reaches the other.
    cost_ratio : float, optional
        False positives that one false negative costs, above 0.

    Notes
    -----
    W. J. Youden, "Index for rating diagnostic tests", Cancer 3 (1950) 32.
    """
    values = np.unique(sample.probabilities)[::-1]
    tp, fp = (count_from(sample.probabilities[sample.labels == label], values) for label in (1, 0))
    positives, negatives = sample.positives, sample.n - sample.positives
    sensitivity, specificity = tp / positives, 1 - fp / negatives
    youden = tp * negatives - fp * positives  # in whole numbers, whose ties no rounding breaks
    chosen = {"Youden's J": int(np.argmax(youden))}
    reached = int(np.argmax(sensitivity >= target_sensitivity - ROUNDING))
    chosen[target_name(SENSITIVITY, target_sensitivity)] = reached
    if (reaching := np.flatnonzero(specificity >= target_specificity - ROUNDING)).size:
        chosen[target_name(SPECIFICITY, target_specificity)] = int(reaching[-1])
    if cost_ratio is not None:
        cost = cost_ratio * (positives - tp) + fp
        chosen[f"least cost, a false negative worth {cost_ratio:g} false positives"] = int(np.argmin(cost))
    return tuple(Chosen(name=name, threshold=float(values[place])) for name, place in chosen.items())


def count_from(probabilities: Values, thresholds: Values) -> NDArray[np.int64]:
    """How many are at or above each threshold, int64, of the thresholds' shape."""
    return len(probabilities) - np.searchsorted(np.sort(probabilities), thresholds, side="left")
