"""The charts of a report, each with its legend; colours and line styles are classes of ``report.css``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup

from pneumo_fast.evaluation.results import MetricsFile
from pneumo_fast.formatting import TYPESET, number
from pneumo_fast.metrics.calibration import Quality
from pneumo_fast.metrics.catalogue import ACCURACY, AUROC, AVERAGE_PRECISION, ECE, NET_BENEFIT
from pneumo_fast.metrics.intervals import Estimate
from pneumo_fast.metrics.ranking import Curve
from pneumo_fast.metrics.subgroups import Subgroup
from pneumo_fast.metrics.summary import DecisionCurve
from pneumo_fast.reporting import svg
from pneumo_fast.reporting.sources import Epoch
from pneumo_fast.reporting.svg import Frame, Series

SQUARE: Final = Frame()
"""Of both curves, whose marks the page's script moves by it, and of the reliability diagram."""
ROW: Final = 38.0
"""Height of a row of the forest plot."""
LONGEST_NAME: Final = 42
"""Letters of a subgroup's name in the forest plot."""
BAR: Final = 200.0
"""Length of a bar from 0 to 1."""

Rates = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A drawing and what its lines and marks mean."""

    title: str
    drawing: Markup
    legend: tuple[tuple[str, str], ...]
    """The class of each line or mark, and its name."""


def _chart(frame: Frame, title: str, description: str, legend: Sequence[tuple[str, str]], *content: Markup) -> Chart:
    """Axes and data with a title and a description for those who do not see them."""
    drawing = svg.tag(
        "svg",
        svg.tag("title", title),
        svg.tag("desc", description),
        *content,
        viewBox=f"0 0 {svg.WIDTH:g} {frame.height:g}",
        role="img",
        aria_label=f"{title}. {description}",
        class_="chart",
    )
    return Chart(title=title, drawing=drawing, legend=tuple(legend))


def bar(e: Estimate, baseline: float) -> Markup:
    """An interval between 0 and 1 as a bar on which a baseline is marked."""

    def x(value: float) -> str:
        return f"{4 + BAR * min(max(value, 0.0), 1.0):.1f}"

    parts = [svg.tag("line", x1=x(0), x2=x(1), y1="9", y2="9", class_="track")]
    if e.low is not None and e.high is not None:
        parts.append(svg.tag("line", x1=x(e.low), x2=x(e.high), y1="9", y2="9", class_="range"))
    parts.append(svg.tag("line", x1=x(baseline), x2=x(baseline), y1="3", y2="15", class_="base"))
    if e.value is not None:
        parts.append(svg.tag("circle", cx=x(e.value), cy="9", r="4", class_="value"))
    return svg.tag("svg", *parts, viewBox=f"0 0 {BAR + 8:g} 18", class_="card-bar", aria_hidden="true")


# ---- the curves on which the threshold moves


def roc(metrics: MetricsFile, curve: Curve, rates: Rates) -> Chart:
    """The ROC curve of two classes.

    Parameters
    ----------
    rates : dict
        ``sensitivity`` and ``specificity`` where the mark stands at first.
    """
    x, y = svg.thin(curve.x, curve.y)
    area = TYPESET.estimate(metrics.ranking.auroc)
    return _chart(
        SQUARE,
        "ROC curve",
        f"Sensitivity against 1 minus specificity; the area is {area}, that of chance 0.5.",
        (("one", f"model, {AUROC.label} {area}"), ("chance", f"chance, {AUROC.label} 0.5"), *_marks(metrics)),
        svg.axes(SQUARE, "1 \N{MINUS SIGN} specificity: negatives called positive", "sensitivity: positives found"),
        svg.rule(SQUARE, (0, 0), (1, 1), "chance"),
        svg.line(SQUARE, Series(look="one", x=x, y=y)),
        *(_cross(t.specificity.complement, t.recall) for t in metrics.thresholds),
        _mark("roc-mark", 1 - (rates["specificity"] or 0.0), rates["sensitivity"]),
    )


def precision_recall(metrics: MetricsFile, curve: Curve, rates: Rates) -> Chart:
    """The precision-recall steps of two classes, whose area is the average precision.

    Parameters
    ----------
    rates : dict
        ``sensitivity`` and ``precision`` where the mark stands at first.
    """
    corners_x = np.repeat(np.concatenate([[0.0], curve.x]), 2)[:-1]
    corners_y = np.repeat(np.concatenate([curve.y[:1], curve.y]), 2)[1:]  # each precision holds from the recall before
    x, y = svg.thin(corners_x, corners_y)
    name, area = AVERAGE_PRECISION.label, TYPESET.estimate(metrics.ranking.average_precision)
    prevalence = metrics.prevalence
    chance = ("chance", f"chance: {number(prevalence)}, the share of positives")
    return _chart(
        SQUARE,
        "Precision-recall curve",
        f"Precision against sensitivity; the {name} is {area}, that of chance {number(prevalence)}.",
        (("one", f"model, {name} {area}"), chance, *_marks(metrics)),
        svg.axes(SQUARE, "sensitivity (recall): positives found", "precision: positives among positive calls"),
        svg.rule(SQUARE, (0, prevalence), (1, prevalence), "chance"),
        svg.line(SQUARE, Series(look="one", x=x, y=y)),
        *(_cross(t.recall, t.precision) for t in metrics.thresholds),
        _mark("pr-mark", rates["sensitivity"], rates["precision"]),
    )


def _marks(metrics: MetricsFile) -> tuple[tuple[str, str], ...]:
    fixed = " and ".join(f"{t.threshold:g}" for t in metrics.thresholds)
    return ("mark", "the threshold above"), ("point", f"thresholds {fixed}, with intervals")


def _mark(name: str, x: float | None, y: float | None) -> Markup:
    """The operating point that moves."""
    cx, cy = SQUARE.at(x or 0.0, y or 0.0)
    look = "mark nowhere" if x is None or y is None else "mark"
    return svg.tag("circle", id=name, cx=f"{cx:.2f}", cy=f"{cy:.2f}", r="7", class_=look)


def _cross(x: Estimate, y: Estimate) -> Markup:
    """An operating point, with bars for the intervals of its coordinates; nothing where the images do not define it."""
    if x.value is None or y.value is None:
        return Markup()
    parts = []
    if x.low is not None and x.high is not None:
        parts.append(svg.segment(SQUARE.at(x.low, y.value), SQUARE.at(x.high, y.value), "bar"))
    if y.low is not None and y.high is not None:
        parts.append(svg.segment(SQUARE.at(x.value, y.low), SQUARE.at(x.value, y.high), "bar"))
    return svg.inside(SQUARE, svg.tag("g", *parts, svg.diamond(SQUARE.at(x.value, y.value))))


# ---- probabilities


def reliability(qualities: Mapping[str, Quality]) -> Chart:
    """Share of positives against probability; of two lines the first is that before calibration."""
    most = max((b.n for quality in qualities.values() for b in quality.reliability), default=1)
    looks = dict(zip(qualities, ("two", "one")[-len(qualities) :], strict=True))
    shapes = []
    for name, quality in qualities.items():
        bins = quality.reliability
        series = Series(look=looks[name], x=[b.mean_probability for b in bins], y=[b.positive_share for b in bins])
        shapes += [
            svg.line(SQUARE, series),
            svg.dots(SQUARE, series, [2.5 + 5.5 * math.sqrt(b.n / most) for b in bins]),
        ]
    errors = ", ".join(f"{name.lower()} {TYPESET.estimate(quality.ece)}" for name, quality in qualities.items())
    names = [(look, f"{name.lower()}; larger dots hold more images") for name, look in looks.items()]
    return _chart(
        SQUARE,
        "Reliability diagram",
        f"Share of positives against mean probability, in ten bins. {ECE.title}: {errors}.",
        (*names, ("chance", "perfect calibration")),
        svg.axes(SQUARE, "mean probability", "share of positives"),
        svg.rule(SQUARE, (0, 0), (1, 1), "chance"),
        *shapes,
    )


def decision(curve: DecisionCurve) -> Chart:
    """Net benefit of acting on the model, on every image and on none."""
    top = max(curve.prevalence, *curve.model, 0.01)
    ticks = [t for t in svg.nice_ticks(0.0, top, 5) if t <= top * 1.35]
    frame = Frame(height=300, y=(-0.25 * top, max(ticks[-1], top * 1.05)))
    names = ("one", f"act on the model ({curve.scale} probability)"), ("two", "act on every image")
    return _chart(
        frame,
        "Decision curve",
        "Net benefit against the threshold probability: of the model, of acting on every image, and of acting on none, "
        "which is 0.",
        (*names, ("chance", "act on none")),
        svg.axes(frame, "threshold probability", NET_BENEFIT.label, y_ticks=ticks),
        svg.rule(frame, (0, 0), (1, 0), "chance"),
        svg.line(frame, Series(look="two", x=curve.threshold, y=curve.treat_all)),
        svg.line(frame, Series(look="one", x=curve.threshold, y=curve.model)),
    )


# ---- subgroups


def forest(metrics: MetricsFile, subgroups: Sequence[Subgroup]) -> Chart:
    """The AUROC of all images and of each of the subgroups that has one."""
    groups = [g for g in subgroups if g.auroc.value is not None]
    ends = [end for g in groups for end in (g.auroc.low, g.auroc.value) if end is not None]
    low = max(0.0, math.floor(10 * min([0.45, *ends])) / 10)
    frame = Frame(x=(low, 1.0), height=ROW * (len(groups) + 1) + 56, left=14, right=140, top=8, bottom=48)
    ticks = [t for t in svg.nice_ticks(low, 1.0, 5) if low <= t <= 1.0]
    whole = metrics.ranking.auroc
    rules = [0.5] if whole.value is None else [0.5, whole.value]
    parts = [svg.axis_below(frame, AUROC.label, ticks)]
    rows = [("All images", metrics.n, whole), *((f"{g.column}: {g.value}", g.n, g.auroc) for g in groups)]
    for place, (name, n, e) in enumerate(rows):
        parts.append(_forest_row(frame, f"{shortened(name)}  ·  {n:,}", e, frame.top + ROW * place, rules))
    legend = ("chance", "chance, and all images together"), ("point", f"{AUROC.label} with interval")
    description = f"{AUROC.label} with interval for all images and each subgroup."
    return _chart(frame, f"Forest plot of the {AUROC.label}", description, legend, *parts)


def shortened(name: str) -> str:
    """A name that fits above a row; the whole one stands in the table below."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _forest_row(frame: Frame, name: str, e: Estimate, top: float, rules: Sequence[float]) -> Markup:
    """A subgroup's name above its interval, and the figures beside that; vertical rules stand beside the mark alone."""
    y = top + 26
    value, low, high = (
        None if end is None else frame.at(max(end, frame.x[0]), 0)[0] for end in (e.value, e.low, e.high)
    )
    parts = [
        *(svg.segment((x, y - 8), (x, y + 8), "line chance") for x, _ in (frame.at(at, 0) for at in rules)),
        svg.label((frame.left, top + 14), name, "row"),
        svg.label((svg.WIDTH - 10, y + 4), TYPESET.estimate(e), "row figures", "end"),
    ]
    if low is not None and high is not None:
        parts.append(svg.segment((low, y), (high, y), "bar"))
    if value is not None:
        parts.append(svg.diamond((value, y)))
    return svg.tag("g", *parts)


# ---- learning


def learning(history: Sequence[Epoch], best: int) -> dict[str, Chart | None]:
    """Losses, and figures of the validation, over the epochs; None where nothing is known of every epoch."""
    lost = {"training": [e.train_loss for e in history], "validation": [e.val_loss for e in history]}
    figures = {
        AUROC.label: [e.val_auroc for e in history],
        AVERAGE_PRECISION.label: [e.val_ap for e in history],
        ACCURACY.label: [e.val_accuracy for e in history],
    }
    drawn = (("Loss", lost, ("two", "one")), ("Validation figures", figures, ("one", "two", "three")))
    return {title: _epochs(title, history, lines, looks, best) for title, lines, looks in drawn}


def _epochs(
    title: str, history: Sequence[Epoch], lines: Mapping[str, list[float | None]], looks: Sequence[str], best: int
) -> Chart | None:
    """Some figures of each epoch; an upright line marks the best epoch."""
    epochs = [float(record.epoch) for record in history]
    series = {}
    for (name, values), look in zip(lines.items(), looks, strict=True):
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if len(finite) == len(values):
            series[name] = Series(look=look, x=epochs, y=finite)
    if not series:
        return None
    everything = [value for s in series.values() for value in s.y]
    low, high = min(everything), max(everything)
    ticks = svg.nice_ticks(low, high if high > low else low + 0.1, 5)
    last = max(epochs[-1], epochs[0] + 1)
    frame = Frame(height=270, x=(epochs[0], last), y=(ticks[0], ticks[-1]))
    ends = ", ".join(f"{name} {number(s.y[-1])}" for name, s in series.items())
    return _chart(
        frame,
        title,
        f"Over {len(epochs)} epochs; at the end: {ends}.",
        [*((s.look, name) for name, s in series.items()), ("best", f"epoch {best}: the evaluated checkpoint")],
        svg.axes(frame, "epoch", "", [t for t in svg.whole_ticks(int(last)) if t >= epochs[0]], ticks),
        svg.rule(frame, (best, ticks[0]), (best, ticks[-1]), "best"),
        *(svg.line(frame, s) for s in series.values()),
        *(svg.dots(frame, s, [2.6] * len(epochs)) for s in series.values() if len(epochs) <= 40),
    )
