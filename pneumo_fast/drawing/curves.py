"""The ROC and the precision-recall curve, with the operating point of every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pneumo_fast.drawing.style import (
    BLACK,
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    clean_axes,
    images_judged,
    new_figure,
    to_png,
)
from pneumo_fast.formatting import TYPESET, number, percent
from pneumo_fast.metrics.catalogue import (
    AUROC,
    AVERAGE_PRECISION,
    PRECISION,
    SENSITIVITY,
    SPECIFICITY,
    Metric,
)
from pneumo_fast.metrics.intervals import LEVEL, Estimate
from pneumo_fast.metrics.ranking import Curve
from pneumo_fast.metrics.summary import Figures
from pneumo_fast.metrics.thresholds import ThresholdMetrics

POINTS: Final = (
    (VERMILION, "o"),
    (GREEN, "s"),
    (PURPLE, "D"),
    (ORANGE, "^"),
    (SKY, "v"),
    (BLACK, "P"),
)
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
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, label="chance: AUROC 0.500")
    area = f"{AUROC.label} {number(metrics.ranking.auroc.value)}{_between(metrics.ranking.auroc)}"
    axes.plot(curve.x, curve.y, color=BLUE, linewidth=2.2, solid_joinstyle="round", label=area)
    for result, look in _looks(metrics.thresholds):
        found, spared = result.recall, result.specificity
        if found.value is not None and spared.value is not None:
            _point(axes, _flipped(spared), found, look, _operating_point(result, SENSITIVITY, SPECIFICITY))
    axes.set_xlabel(f"1 \N{MINUS SIGN} {SPECIFICITY.label}: share of negatives called positive")
    axes.set_ylabel(f"{SENSITIVITY.label}: {SENSITIVITY.meaning}")
    _legend(figure, axes)
    return to_png(figure)


def draw_precision_recall(metrics: Figures, curve: Curve, split: str) -> bytes:
    """Draw the precision-recall steps, whose area is the average precision, with the operating points.

    Parameters
    ----------
    metrics : Figures
        Of images of both classes.
    curve : Curve
        What :func:`pneumo_fast.metrics.ranking.precision_recall_curve` gave.
    split : str
        Name of the split, for the title.

    Returns
    -------
    bytes
        A PNG file.
    """
    figure, axes = _square_figure("Precision-recall curve", metrics, split)
    chance = f"chance: {PRECISION.label} {number(metrics.prevalence)}, the share of positives"
    axes.plot([0, 1], [metrics.prevalence] * 2, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, label=chance)
    x, y = np.concatenate([[0.0], curve.x]), np.concatenate([curve.y[:1], curve.y])
    area = f"{AVERAGE_PRECISION.label} {number(metrics.ranking.average_precision.value)}"
    axes.step(x, y, where="pre", color=BLUE, linewidth=2.2, label=area)
    for result, look in _looks(metrics.thresholds):
        found, right = result.recall, result.precision
        if found.value is not None and right.value is not None:
            _point(axes, found, right, look, _operating_point(result, SENSITIVITY, PRECISION))
    axes.set_xlabel(f"{SENSITIVITY.label} ({SENSITIVITY.synonym}): {SENSITIVITY.meaning}")
    axes.set_ylabel(f"{PRECISION.label}: {PRECISION.meaning}")
    _legend(figure, axes)
    return to_png(figure)


def _square_figure(title: str, metrics: Figures, split: str) -> tuple[Figure, Axes]:
    """A figure with one square plot of [0, 1] by [0, 1] and room for a legend below."""
    figure = new_figure(6.4, 6.6 + 0.2 * len(metrics.thresholds))
    axes = figure.add_subplot()
    axes.set_title(f"{title}  ·  {images_judged(metrics, split)}", fontsize=13, color=INK, pad=12)
    axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), aspect="equal")
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    clean_axes(axes)
    axes.xaxis.label.set(fontsize=11, color=INK)
    axes.yaxis.label.set(fontsize=11, color=INK)
    return figure, axes


def _operating_point(result: ThresholdMetrics, *rates: Metric) -> str:
    """A threshold and two of its rates, for the legend."""
    shown = ", ".join(f"{rate.label} {number(getattr(result, rate.key).value, 2)}" for rate in rates)
    return f"threshold {result.threshold}: {shown}"


def _looks(results: Sequence[ThresholdMetrics]) -> list[tuple[ThresholdMetrics, tuple[str, str]]]:
    return [(result, POINTS[i % len(POINTS)]) for i, result in enumerate(results)]


def _point(axes: Axes, x: Estimate, y: Estimate, look: tuple[str, str], text: str) -> None:
    """Mark an operating point, with thin bars for the intervals of both its coordinates."""
    colour, marker = look
    at = (x.value or 0.0, y.value or 0.0)
    x_error, y_error = (
        None if e.low is None or e.high is None else [[max(0.0, value - e.low)], [max(0.0, e.high - value)]]
        for value, e in zip(at, (x, y), strict=True)
    )
    axes.errorbar(*at, xerr=x_error, yerr=y_error, fmt="none", ecolor=colour, elinewidth=1.3, zorder=4)
    axes.plot(
        *at,
        marker=marker,
        markersize=9,
        color=colour,
        markeredgecolor="white",
        markeredgewidth=1.4,
        linestyle="none",
        label=text,
        zorder=5,
        clip_on=False,
    )


def _legend(figure: Figure, axes: Axes) -> None:
    """Put the legend under the plot, where it hides nothing."""
    crosses = f"crosses: {percent(LEVEL, 0)} intervals"
    axes.plot([], [], linestyle="none", marker="+", markersize=11, color=GREY, label=crosses)
    figure.legend(loc="outside lower center", fontsize=9.5, frameon=False, labelcolor=INK, handlelength=2.4)


def _between(e: Estimate) -> str:
    return "" if e.low is None else f" ({percent(LEVEL, 0)} interval {TYPESET.interval(e, 3)})"


def _flipped(e: Estimate) -> Estimate:
    """1 - a share, with its interval."""
    low, high = (None, None) if e.low is None or e.high is None else (1 - e.high, 1 - e.low)
    return Estimate(value=None if e.value is None else 1 - e.value, low=low, high=high)
