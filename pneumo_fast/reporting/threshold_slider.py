"""The part of a report in which the threshold moves: counts at each step, and what is shown before it moves.

The page's script computes nothing but quotients of these counts, which stand in the page.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from markupsafe import Markup

from pneumo_fast.metrics.catalogue import ACCURACY, F1, NPV, PRECISION, SENSITIVITY, SPECIFICITY
from pneumo_fast.metrics.ranking import precision_recall_curve, roc_curve
from pneumo_fast.reporting.charts import SQUARE, Chart, precision_recall, roc
from pneumo_fast.reporting.sources import RunFiles, Scored

STEPS: Final = 1000
"""Steps of the slider from threshold 0 to 1."""
RATES: Final = {
    "sensitivity": SENSITIVITY,
    "specificity": SPECIFICITY,
    "precision": PRECISION,
    "npv": NPV,
    "accuracy": ACCURACY,
    "f1": F1,
}
"""The figures that move, by the names that the script has for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What each step of the slider calls positive."""

    tp: tuple[int, ...]
    """Positives with probability >= k / 1000, for k from 0 to 1000."""
    fp: tuple[int, ...]
    """Negatives."""
    positives: int
    negatives: int

    def rates(self, step: int) -> dict[str, float | None]:
        """The figures of :data:`RATES` at a step; None where one divides by nothing."""
        tp, fp = self.tp[step], self.fp[step]
        fn, tn = self.positives - tp, self.negatives - fp
        pairs = {
            "sensitivity": (tp, self.positives),
            "specificity": (tn, self.negatives),
            "precision": (tp, tp + fp),
            "npv": (tn, tn + fn),
            "accuracy": (tp + tn, self.positives + self.negatives),
            "f1": (2 * tp, 2 * tp + fp + fn),
        }
        return {name: part / whole if whole else None for name, (part, whole) in pairs.items()}

    def cells(self, step: int) -> dict[str, int]:
        """The confusion matrix at a step."""
        tp, fp = self.tp[step], self.fp[step]
        return {"tp": tp, "fn": self.positives - tp, "fp": fp, "tn": self.negatives - fp}


def count(scored: Scored) -> Counts:
    """Count at every step; an image is called positive from ``probability >= k / 1000`` on, in float64."""
    at = np.arange(STEPS + 1) / STEPS
    ill = scored.labels == 1
    found, alarms = (
        len(values) - np.searchsorted(np.sort(values), at, side="left")
        for values in (scored.probabilities[ill], scored.probabilities[~ill])
    )
    tp, fp = tuple(found.tolist()), tuple(alarms.tolist())
    return Counts(tp=tp, fp=fp, positives=int(ill.sum()), negatives=int((~ill).sum()))


def step_of(threshold: float) -> int | None:
    """The slider's step at a threshold; None where it has none just there."""
    step = round(threshold * STEPS)
    return step if step / STEPS == threshold else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Slider:
    """What the page shows of the threshold, and what its script reads."""

    counts: Counts
    start: int
    """The step where the threshold is at first."""
    buttons: tuple[tuple[float, int], ...]
    """Thresholds to go to, with their steps."""
    curves: tuple[Chart, ...]
    """Both; none where the images are all of one class."""
    data: Markup
    """The counts as JSON, for the script."""


def make_slider(files: RunFiles) -> Slider | None:
    """Count at every step; None where the predictions are not there."""
    if files.scored is None:
        return None
    counts, logits, labels = count(files.scored), files.scored.logits, files.scored.labels
    fixed = [entry.threshold or 0.0 for entry in files.metrics.thresholds]
    start = round(fixed[0] * STEPS)
    curves: tuple[Chart, ...] = ()
    if counts.positives and counts.negatives:
        rates = counts.rates(start)
        curves = (
            roc(files.metrics, roc_curve(labels, logits), rates),
            precision_recall(files.metrics, precision_recall_curve(labels, logits), rates),
        )
    plot = [SQUARE.left, SQUARE.top, SQUARE.plot_width, SQUARE.plot_height]
    content = json.dumps(asdict(counts) | {"plot": plot}, separators=(",", ":"))
    return Slider(
        counts=counts,
        start=start,
        buttons=tuple((threshold, step) for threshold in fixed if (step := step_of(threshold)) is not None),
        curves=curves,
        data=Markup(content.replace("<", "\\u003c")),  # noqa: S704  # numbers alone; a "<" could end the element
    )
