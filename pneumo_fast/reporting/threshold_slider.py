"""The part of a report in which the threshold moves: its figures, its two curves, and what the page's script needs.

The script computes nothing but quotients of counts that stand in the page, one pair for each step of the slider.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import numpy as np

from pneumo_fast.formatting import number
from pneumo_fast.metrics.ranking import precision_recall_curve, roc_curve
from pneumo_fast.reporting.curves import FRAME, draw_precision_recall, draw_roc
from pneumo_fast.reporting.markup import Html, details, join, paragraph, table, tag, text
from pneumo_fast.reporting.sources import Json, RunFiles, Scored
from pneumo_fast.reporting.words import THRESHOLD

STEPS: Final = 1000
"""Steps of the slider from threshold 0 to 1."""
RATES: Final = {
    "sensitivity": ("Sensitivity", "share of positives found"),
    "specificity": ("Specificity", "share of negatives called negative"),
    "precision": ("Precision", "share of positives among those called positive"),
    "npv": ("NPV", "share of negatives among those called negative"),
    "accuracy": ("Accuracy", "share called right"),
    "f1": ("F1", "harmonic mean of precision and sensitivity"),
}


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


def count(scored: Scored) -> Counts:
    """Count at every step; an image is called positive from ``probability >= k / 1000`` on, in float64."""
    at = np.arange(STEPS + 1) / STEPS
    ill = scored.labels == 1
    found, alarms = (
        len(values) - np.searchsorted(np.sort(values), at, side="left")
        for values in (scored.probabilities[ill], scored.probabilities[~ill])
    )
    return Counts(
        tp=tuple(found.tolist()), fp=tuple(alarms.tolist()), positives=int(ill.sum()), negatives=int((~ill).sum())
    )


def step_of(threshold: float) -> int | None:
    """The slider's step at a threshold; None where it has none just there."""
    step = round(threshold * STEPS)
    return step if step / STEPS == threshold else None


def threshold_section(files: RunFiles) -> Html:
    """Slider, figures, confusion matrix and curves; or why they cannot be shown."""
    if files.scored is None:
        return join(paragraph(sentence, "missing") for sentence in files.remarks_about("predictions"))
    counts = count(files.scored)
    fixed = [entry["threshold"] for entry in files.metrics["thresholds"]]
    start = round(fixed[0] * STEPS)
    return join([
        paragraph(THRESHOLD.format(n=f"{files.metrics['n']:,}")),
        _controls(start, fixed),
        tag("div", _figures(counts, start), _confusion(counts, start), class_="moved"),
        _curves(files.metrics, files.scored, counts, start),
        _numbers(counts),
        _data(counts),
    ])  # fmt: skip


def _controls(start: int, fixed: list[float]) -> Html:
    """The slider and its buttons, which only the script shows."""
    buttons = [
        tag("button", text(f"{threshold:g}"), type="button", data_step=step)
        for threshold in fixed
        if (step := step_of(threshold)) is not None
    ]
    slider = tag(
        "input",
        type="range",
        id="threshold",
        min="0",
        max="1",
        step=f"{1 / STEPS:g}",
        value=number(start / STEPS),
        aria_describedby="threshold-help",
    )
    value = tag("span", text(number(start / STEPS)), class_="at", data_figure="threshold")
    shortcuts = tag("div", tag("span", text("Go to")), *buttons, class_="buttons", role="group", aria_label="Go to")
    helped = tag(
        "p", text("Arrow keys move it by 0.001, Page Up and Page Down by more."), id="threshold-help", class_="hint"
    )
    return join([
        tag("p", text("Threshold "), value, class_="at-line"),
        tag(
            "div",
            tag("label", text("Move the threshold"), for_="threshold"),
            slider,
            tag("div", shortcuts, helped, class_="under"),
            class_="controls",
            data_script=True,
            hidden=True,
        ),
        tag("p", id="said", class_="unseen", role="status", aria_live="polite"),
    ])  # fmt: skip


def _figures(counts: Counts, step: int) -> Html:
    """The rates at a step."""
    shown = counts.rates(step)
    items = [
        tag(
            "div",
            tag("dt", text(name)),
            tag("dd", tag("span", text(number(shown[key])), data_figure=key), tag("small", text(meaning))),
        )
        for key, (name, meaning) in RATES.items()
    ]
    return tag("dl", *items, class_="rates")


def _confusion(counts: Counts, step: int) -> Html:
    """The confusion matrix at a step."""
    tp, fp = counts.tp[step], counts.fp[step]
    cells = (
        {"tp": (tp, "found"), "fn": (counts.positives - tp, "missed")},
        {"fp": (fp, "false alarms"), "tn": (counts.negatives - fp, "rightly negative")},
    )
    rows = []
    for name, row in zip(("positive", "negative"), cells, strict=True):
        shown = (
            tag("td", tag("b", text(f"{value:,}"), data_figure=key), tag("small", text(said)), class_=key)
            for key, (value, said) in row.items()
        )
        rows.append(tag("tr", tag("th", text(f"Labelled {name}"), scope="row"), *shown))
    head = tag("tr", tag("td"), *(tag("th", text(f"Called {name}"), scope="col") for name in ("positive", "negative")))
    caption = tag("caption", text("Confusion matrix"))
    return tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="confusion")


def _curves(metrics: Json, scored: Scored, counts: Counts, step: int) -> Html:
    if not (counts.positives and counts.negatives):
        return paragraph("The images are all of one class: there are no curves.", "missing")
    rates = counts.rates(step)
    roc = roc_curve(scored.labels, scored.logits)
    recall = precision_recall_curve(scored.labels, scored.logits)
    return tag("div", draw_roc(metrics, roc, rates), draw_precision_recall(metrics, recall, rates), class_="pair")


def _numbers(counts: Counts) -> Html:
    """Both curves as a table."""
    rows = []
    for step in range(0, STEPS + 1, STEPS // 20):
        rates = counts.rates(step)
        cells = [number(rates[name]) for name in ("sensitivity", "specificity", "precision")]
        rows.append([text(number(step / STEPS, 2)), *map(text, cells), text(f"{counts.tp[step] + counts.fp[step]:,}")])
    columns = ("Threshold", "Sensitivity", "Specificity", "Precision", "Called positive")
    return details("The curves in numbers", table("Both curves", columns, rows, hide_caption=True))


def _data(counts: Counts) -> Html:
    """What the script reads; a ``<`` in it could end the element."""
    content = {
        "tp": counts.tp,
        "fp": counts.fp,
        "positives": counts.positives,
        "negatives": counts.negatives,
        "plot": [FRAME.left, FRAME.top, FRAME.plot_width, FRAME.plot_height],
    }
    written = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    return tag("script", Html(written), type="application/json", id="counts")
