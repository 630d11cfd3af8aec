"""The ROC and the precision-recall curve, with the operating point of every threshold."""

from __future__ import annotations

from itertools import cycle
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pneumo_fast.drawing import style
from pneumo_fast.formatting import TYPESET, number, percent
from pneumo_fast.metrics.catalogue import AUROC, AVERAGE_PRECISION, PRECISION, SENSITIVITY, SPECIFICITY, Metric
from pneumo_fast.metrics.intervals import LEVEL, Estimate
from pneumo_fast.metrics.ranking import Curve
from pneumo_fast.metrics.summary import Figures
from pneumo_fast.metrics.thresholds import ThresholdMetrics

POINTS: Final = (
    (style.VERMILION, "o"), (style.GREEN, "s"), (style.PURPLE, "D"), (style.ORANGE, "^"), (style.SKY, "v"),
    (style.BLACK, "P"),
)  # fmt: skip
"""Colour and shape of the operating points, in turn."""


def draw_roc(metrics: Figures, curve: Curve, split: str) -> bytes:
    """Draw the ROC curve with every threshold's operating point and its 95 % intervals.

    Parameters
    ----------
    metrics : Figures
        Of images of both classes.
    curve : Curve
        What :func:`pneumo_fast.metrics.ranking.roc_curve` gave.
    split : str
        Name of the split, for the title.

    Returns
    -------
    bytes
        A PNG file.
    """
    figure, axes = _square_figure("ROC curve", metrics, split)
    axes.plot([0, 1], [0, 1], color=style.GREY, linestyle=(0, (4, 3)), linewidth=1.2, label="chance: AUROC 0.500")
    area = _area(AUROC, metrics.ranking.auroc)
    axes.plot(curve.x, curve.y, color=style.BLUE, linewidth=2.2, solid_joinstyle="round", label=area)
    for result, look in zip(metrics.thresholds, cycle(POINTS)):
        _point(axes, result.specificity.complement, result.recall, look, _name(result, SENSITIVITY, SPECIFICITY))
    axes.set_xlabel(f"1 \N{MINUS SIGN} {SPECIFICITY.label}: share of negatives called positive")
    axes.set_ylabel(f"{SENSITIVITY.label}: {SENSITIVITY.meaning}")
    _legend(figure, axes)
    return style.to_png(figure)


def draw_precision_recall(metrics: Figures, curve: Curve, split: str) -> bytes:
    """Draw the precision-recall steps, whose area is the average precision, with the operating points.

    Parameters and result are those of :func:`draw_roc`, ``curve`` as
    :func:`pneumo_fast.metrics.ranking.precision_recall_curve` gave it.
    """
    figure, axes = _square_figure("Precision-recall curve", metrics, split)
    chance = f"chance: {PRECISION.label} {number(metrics.prevalence)}, the share of positives"
    axes.plot([0, 1], [metrics.prevalence] * 2, color=style.GREY, linestyle=(0, (4, 3)), linewidth=1.2, label=chance)
    x, y = np.concatenate([[0.0], curve.x]), np.concatenate([curve.y[:1], curve.y])
    area = _area(AVERAGE_PRECISION, metrics.ranking.average_precision)
    axes.step(x, y, where="pre", color=style.BLUE, linewidth=2.2, label=area)
    for result, look in zip(metrics.thresholds, cycle(POINTS)):
        _point(axes, result.recall, result.precision, look, _name(result, SENSITIVITY, PRECISION))
    axes.set_xlabel(f"{SENSITIVITY.label} ({SENSITIVITY.synonym}): {SENSITIVITY.meaning}")
    axes.set_ylabel(f"{PRECISION.label}: {PRECISION.meaning}")
    _legend(figure, axes)
    return style.to_png(figure)


def _square_figure(title: str, metrics: Figures, split: str) -> tuple[Figure, Axes]:
    """A figure with one square plot of [0, 1] by [0, 1] and room for a legend below."""
    figure = style.new_figure(6.4, 6.6 + 0.2 * len(metrics.thresholds))
    axes = figure.add_subplot()
    axes.set_title(f"{title}  ·  {style.images_judged(metrics, split)}", fontsize=13, color=style.INK, pad=12)
    axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), aspect="equal")
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.grid(color=style.FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    style.clean_axes(axes)
    axes.xaxis.label.set(fontsize=11, color=style.INK)
    axes.yaxis.label.set(fontsize=11, color=style.INK)
    return figure, axes


def _area(metric: Metric, found: Estimate) -> str:
    """The area under a curve with its interval, for the legend."""
    between = "" if found.low is None else f" ({percent(LEVEL, 0)} interval {TYPESET.interval(found, 3)})"
    return f"{metric.label} {number(found.value)}{between}"


def _name(result: ThresholdMetrics, *rates: Metric) -> str:
    """A threshold and two of its rates, for the legend."""
    shown = ", ".join(f"{rate.label} {number(getattr(result, rate.key).value, 2)}" for rate in rates)
    return f"threshold {result.threshold}: {shown}"


def _point(axes: Axes, x: Estimate, y: Estimate, look: tuple[str, str], text: str) -> None:
    """Mark an operating point, with thin bars for the intervals of its coordinates; nothing where one has no value."""
    if x.value is None or y.value is None:
        return
    colour, marker = look
    errors = [
        None if e.low is None or e.high is None else [[max(0.0, value - e.low)], [max(0.0, e.high - value)]]
        for value, e in ((x.value, x), (y.value, y))
    ]
    axes.errorbar(x.value, y.value, xerr=errors[0], yerr=errors[1], fmt="none", ecolor=colour, elinewidth=1.3, zorder=4)
    axes.plot(
        x.value, y.value, marker=marker, markersize=9, color=colour, markeredgecolor="white", markeredgewidth=1.4,
        linestyle="none", label=text, zorder=5, clip_on=False,
    )  # fmt: skip


def _legend(figure: Figure, axes: Axes) -> None:
    """Put the legend under the plot, where it hides nothing."""
    crosses = f"crosses: {percent(LEVEL, 0)} intervals"
    axes.plot([], [], linestyle="none", marker="+", markersize=11, color=style.GREY, label=crosses)
    figure.legend(loc="outside lower center", fontsize=9.5, frameon=False, labelcolor=style.INK, handlelength=2.4)
