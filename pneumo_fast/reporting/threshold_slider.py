"""The part of a report in which the threshold moves: counts at each step, and what is shown before it moves.

A step leads to the next probability that some image has, rather than to the next thousandth, so that the thresholds of
a model whose probabilities lie close together can be told apart. The page's script computes nothing but quotients of
the counts, which stand in the page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Final

import numpy as np
from markupsafe import Markup

from pneumo_fast.formatting import number
from pneumo_fast.metrics.catalogue import ACCURACY, F1, NPV, PRECISION, SENSITIVITY, SPECIFICITY
from pneumo_fast.metrics.ranking import precision_recall_curve, roc_curve
from pneumo_fast.metrics.scored import Probabilities
from pneumo_fast.metrics.thresholds import count_from, rates
from pneumo_fast.reporting.charts import SQUARE, Chart, precision_recall, roc
from pneumo_fast.reporting.sources import RunFiles, Scored

MOST_STEPS: Final = 1500
"""Of the slider; where there are more probabilities than that, some are passed over, evenly."""
DIGITS: Final = 4
"""Significant digits of a threshold."""
MOVING: Final = {
    "sensitivity": SENSITIVITY,
    "specificity": SPECIFICITY,
    "precision": PRECISION,
    "npv": NPV,
    "accuracy": ACCURACY,
    "f1": F1,
}
"""The figures that move, by the names that the script has for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCounts:
    """What each of k + 1 thresholds calls positive."""

    at: tuple[float, ...]
    """The thresholds, rising, from 0 to 1."""
    tp: tuple[int, ...]
    """Positives with a probability at or above each."""
    fp: tuple[int, ...]
    """Negatives."""
    positives: int
    negatives: int

    def rates(self, step: int) -> dict[str, float | None]:
        """The figures of :data:`MOVING` at a step; None where one divides by nothing."""
        cells = self.cells(step)
        found = rates(np.array([[cells[name] for name in ("tn", "fp", "fn", "tp")]], dtype=np.float64), risk=None)
        values = {name: float(found[metric.key][0]) for name, metric in MOVING.items()}
        return {name: None if math.isnan(value) else value for name, value in values.items()}

    def cells(self, step: int) -> dict[str, int]:
        """The confusion matrix at a step."""
        tp, fp = self.tp[step], self.fp[step]
        return {"tp": tp, "fn": self.positives - tp, "fp": fp, "tn": self.negatives - fp}


def count(scored: Scored, thresholds: Sequence[float]) -> StepCounts:
    """Count at some thresholds, rising; an image is called positive where ``probability >= threshold``, in float64."""
    positive = scored.labels == 1
    tp, fp = (count_from(scored.probabilities[which], np.asarray(thresholds)) for which in (positive, ~positive))
    return StepCounts(
        at=tuple(thresholds),
        tp=tuple(tp.tolist()),
        fp=tuple(fp.tolist()),
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
    )


def thresholds_of(probabilities: Probabilities, others: Iterable[float]) -> list[float]:
    """Where the slider stops: at the probabilities, rounded down to :data:`DIGITS`, at others, 0 and 1; rising."""
    distinct = np.unique(probabilities)
    places = np.unique(np.linspace(0, len(distinct) - 1, min(len(distinct), MOST_STEPS)).astype(int))
    return sorted({0.0, 1.0, *map(_rounded_down, distinct[places].tolist()), *others})


def _rounded_down(probability: float) -> float:
    exact = Decimal(probability)
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() + 1 - DIGITS), ROUND_FLOOR)) if exact else 0.0


def written(threshold: float) -> str:
    """A threshold as it is shown: three decimals where they are all of it, else :data:`DIGITS` significant digits."""
    short = number(threshold)
    return short if float(short) == threshold else f"{threshold:.{DIGITS}g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Slider:
    """What the page shows of the threshold, and what its script reads."""

    counts: StepCounts
    start: int
    """The step where the threshold is at first."""
    buttons: tuple[tuple[str, int], ...]
    """Thresholds to go to: what they are called, and their steps."""
    table: StepCounts
    """At every twentieth of the probability."""
    curves: tuple[Chart, ...]
    """Both; none where the images are all of one class."""
    data: Markup
    """The counts as JSON, for the script."""


def make_slider(files: RunFiles) -> Slider | None:
    """Count at every step; None where the predictions are not there."""
    if files.scored is None:
        return None
    metrics, logits, labels = files.metrics, files.scored.logits, files.scored.labels
    named = {f"{entry.threshold:g}": entry.threshold for entry in metrics.thresholds}
    named |= {entry.name: entry.threshold for entry in metrics.chosen_thresholds}
    counts = count(files.scored, thresholds_of(files.scored.probabilities, named.values()))
    start = counts.at.index(metrics.thresholds[0].threshold)
    curves: tuple[Chart, ...] = ()
    if counts.positives and counts.negatives:
        at_start = counts.rates(start)
        curves = (
            roc(metrics, roc_curve(labels, logits), at_start),
            precision_recall(metrics, precision_recall_curve(labels, logits), at_start),
        )
    plot = [SQUARE.left, SQUARE.top, SQUARE.plot_width, SQUARE.plot_height]
    content = json.dumps(asdict(counts) | {"at": list(map(written, counts.at)), "plot": plot}, separators=(",", ":"))
    return Slider(
        counts=counts,
        start=start,
        buttons=tuple((name, counts.at.index(threshold)) for name, threshold in named.items()),
        table=count(files.scored, [step / 20 for step in range(21)]),
        curves=curves,
        data=Markup(content.replace("<", "\\u003c")),  # noqa: S704  # numbers alone; a "<" could end the element
    )
