"""Draws figures as PNG: ROC, precision-recall and confusion matrices of :mod:`pneumo_fast.figures`, contact sheets.

Figures are made without pyplot, so nothing global changes and no display is needed. Colours are those of Okabe and
Ito (2008, https://jfly.uni-koeln.de/color/), which stay apart for colour-blind eyes; what a colour says, a shape or
a word says as well. The same figures give the same bytes. Only this module, :mod:`pneumo_fast.curves`
and :mod:`pneumo_fast.overlays` import matplotlib.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Polygon, Rectangle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from pneumo_fast.figures import Figures
from pneumo_fast.intervals import LEVEL, Estimate
from pneumo_fast.ranking import Curve
from pneumo_fast.thresholds import ThresholdMetrics

BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
ORANGE: Final = "#E69F00"
INK: Final = "#222222"
GREY: Final = "#767676"
FAINT: Final = "#DDDDDD"
POINTS: Final = (
    ("#D55E00", "o"),
    ("#009E73", "s"),
    ("#CC79A7", "D"),
    ("#E69F00", "^"),
    ("#56B4E9", "v"),
    ("#000000", "P"),
)
"""Colour and shape of the operating points, in turn."""
DPI: Final = 150
COLUMNS: Final = 3  # confusion matrices side by side
PANEL_IN: Final = 1.6  # inches, side of an image on a contact sheet: 240 pixels
LONGEST_ID: Final = 56  # characters that fit above the images of one row


def draw_roc(metrics: Figures, curve: Curve, split: str) -> bytes:
    """Draw the ROC curve with every threshold's operating point and its 95 % intervals.

    Parameters
    ----------
    metrics : Figures
        Of images of both classes.
    curve : Curve
        What :func:`pneumo_fast.ranking.roc_curve` gave.
    split : str
        Name of the split, for the title.

    Returns
    -------
    bytes
        A PNG file.
    """
    figure, axes = _square_figure("ROC curve", metrics, split)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, label="chance: AUROC 0.500")
    area = f"AUROC {metrics.ranking.auroc.value:.3f}{_between(metrics.ranking.auroc)}"
    axes.plot(curve.x, curve.y, color=BLUE, linewidth=2.2, solid_joinstyle="round", label=area)
    for result, look in _looks(metrics.thresholds):
        found, spared = result.recall, result.specificity
        if found.value is not None and spared.value is not None:
            text = f"threshold {result.threshold}: sensitivity {found.value:.2f}, specificity {spared.value:.2f}"
            _point(axes, _flipped(spared), found, look, text)
    axes.set_xlabel("1 \N{MINUS SIGN} specificity: share of negatives called positive")
    axes.set_ylabel("sensitivity: share of positives found")
    _legend(figure, axes)
    return to_png(figure)


def draw_precision_recall(metrics: Figures, curve: Curve, split: str) -> bytes:
    """Draw the precision-recall steps, whose area is the average precision, with the operating points.

    Parameters
    ----------
    metrics : Figures
        Of images of both classes.
    curve : Curve
        What :func:`pneumo_fast.ranking.precision_recall_curve` gave.
    split : str
        Name of the split, for the title.

    Returns
    -------
    bytes
        A PNG file.
    """
    figure, axes = _square_figure("Precision-recall curve", metrics, split)
    chance = f"chance: precision {metrics.prevalence:.3f}, the share of positives"
    axes.plot([0, 1], [metrics.prevalence] * 2, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, label=chance)
    x, y = np.concatenate([[0.0], curve.x]), np.concatenate([curve.y[:1], curve.y])
    area = f"average precision {metrics.ranking.average_precision.value:.3f}"
    axes.step(x, y, where="pre", color=BLUE, linewidth=2.2, label=area)
    for result, look in _looks(metrics.thresholds):
        found, right = result.recall, result.precision
        if found.value is not None and right.value is not None:
            text = f"threshold {result.threshold}: sensitivity {found.value:.2f}, precision {right.value:.2f}"
            _point(axes, found, right, look, text)
    axes.set_xlabel("recall (sensitivity): share of positives found")
    axes.set_ylabel("precision: share of positives among those called positive")
    _legend(figure, axes)
    return to_png(figure)


def draw_confusion(metrics: Figures, split: str) -> bytes:
    """Draw one confusion matrix per threshold, and 'always negative' beside them.

    Right answers are blue and wrong ones orange, the darker the larger their share of the row.

    Returns
    -------
    bytes
        A PNG file.
    """
    results = (*metrics.thresholds, metrics.always_negative)
    columns = min(len(results), COLUMNS)
    rows = math.ceil(len(results) / columns)
    figure = new_figure(3.4 * columns + 0.4, 3.7 * rows + 0.5)
    figure.suptitle(f"Confusion matrices  ·  {_images(metrics, split)}", fontsize=13, color=INK)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, result in zip(panels, results, strict=False):
        _confusion_panel(panel, result)
    for panel in panels[len(results) :]:
        panel.set_axis_off()
    return to_png(figure)


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One image of a contact sheet."""

    image: NDArray[np.float32]
    """Shape (size, size), in [0, 1]."""
    boxes: tuple[NDArray[np.float64], ...]
    """Corners of each box, (4, 2), as x and y in pixels from the upper left corner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """Versions of one image, side by side on a contact sheet."""

    label: int
    image_id: str
    panels: tuple[Panel, ...]
    """One for each heading."""


def draw_contact_sheet(strips: Sequence[Strip], headings: Sequence[str], title: str, side_by_side: int) -> bytes:
    """Draw images in rows, each beside versions of itself, with their boxes.

    Parameters
    ----------
    strips : sequence of Strip
        At least one.
    headings : sequence of str
        What stands above the columns of each strip.
    side_by_side : int
        Strips in a row.

    Returns
    -------
    bytes
        A PNG file.
    """
    # in units of an image's side: gaps between images and between strips, and room for text above them
    gap, gutter, above, top = 0.04, 0.25, 0.22, 0.5
    rows = math.ceil(len(strips) / side_by_side)
    strip_width = len(headings) * (1 + gap) - gap
    width = side_by_side * (strip_width + gutter) + gutter
    height = top + rows * (1 + above) + gutter
    figure = Figure(figsize=(PANEL_IN * width, PANEL_IN * height), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(gutter, 0.24, title, fontsize=13, color=INK, va="center")
    if any(panel.boxes for strip in strips for panel in strip.panels):
        note = "orange: boxes of the label table"
        axes.text(width - gutter, 0.24, note, fontsize=9.5, color=GREY, ha="right", va="center")
    for column in range(min(side_by_side, len(strips))):
        for number, heading in enumerate(headings):
            x = gutter + column * (strip_width + gutter) + number * (1 + gap) + 0.5
            axes.text(x, top - 0.03, heading, fontsize=9.5, color=GREY, ha="center", va="center")
    for place, strip in enumerate(strips):
        row, column = divmod(place, side_by_side)
        x, y = gutter + column * (strip_width + gutter), top + row * (1 + above) + above
        _strip_title(axes, x, y - 0.035, strip)
        for number, panel in enumerate(strip.panels):
            _image_panel(axes, x + number * (1 + gap), y, panel)
    return to_png(figure)


def _strip_title(axes: Axes, x: float, y: float, strip: Strip) -> None:
    image_id = strip.image_id if len(strip.image_id) <= LONGEST_ID else f"{strip.image_id[:LONGEST_ID]}…"
    axes.text(x, y, f"label {strip.label}  ·  {image_id}", fontsize=9, color=INK, parse_math=False)


def _image_panel(axes: Axes, x: float, y: float, panel: Panel) -> None:
    """An image, one unit wide, with its upper left corner at (x, y); boxes are cut off where it ends."""
    size = len(panel.image)
    axes.imshow(panel.image, cmap="gray", vmin=0, vmax=1, extent=(x, x + 1, y + 1, y), aspect="auto")
    for corners in panel.boxes:
        outline = Polygon(corners / size + (x, y), fill=False, edgecolor=ORANGE, linewidth=1.4, joinstyle="miter")
        outline.set_path_effects([Stroke(linewidth=3, foreground="black", alpha=0.6), Normal()])
        axes.add_patch(outline)
        outline.set_clip_path(Rectangle((x, y), 1, 1, transform=axes.transData))


def _confusion_panel(axes: Axes, result: ThresholdMetrics) -> None:
    c = result.confusion
    counts = np.array([[c.tn, c.fp], [c.fn, c.tp]])
    of_class = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(of_class, 1)
    axes.imshow(_cell_colours(shares), aspect="equal")
    names = (("true negatives", "false alarms"), ("missed", "found"))
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row - 0.08, f"{count:,}", ha="center", va="center", fontsize=19, color=INK)
        percent = _percent(shares[row, column]) if of_class[row, 0] else "none there"
        small = f"{names[row][column]}\n{percent}"
        axes.text(column, row + 0.25, small, ha="center", va="center", fontsize=9.5, color=INK, linespacing=1.4)
    axes.set_xticks([0, 1], ["called\nnegative", "called\npositive"])
    axes.set_yticks([0, 1], ["labelled\nnegative", "labelled\npositive"], rotation=90, ha="right", va="center")
    axes.axhline(0.5, color="white", linewidth=3)
    axes.axvline(0.5, color="white", linewidth=3)
    axes.tick_params(length=0, labelsize=10, labelcolor=INK)
    axes.spines[:].set_visible(False)
    title = "always negative" if result.threshold is None else f"threshold {result.threshold}"
    axes.set_title(f"{title}:  accuracy {_percent(result.accuracy.value or 0.0)}", fontsize=11, color=INK, pad=8)


def _cell_colours(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (2, 2, 3) from near white to blue on the diagonal and orange off it; dark text stays legible."""
    right, wrong = (np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for colour in (BLUE, VERMILION))
    full = np.array([[right, wrong], [wrong, right]])
    weight: NDArray[np.float64] = 0.05 + 0.67 * shares[..., None]
    return 1.0 - weight * (1.0 - full)


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure of a size in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.02, hspace=0.02)
    return Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout, facecolor="white")


def _square_figure(title: str, metrics: Figures, split: str) -> tuple[Figure, Axes]:
    """A figure with one square plot of [0, 1] by [0, 1] and room for a legend below."""
    figure = new_figure(6.4, 6.6 + 0.2 * len(metrics.thresholds))
    axes = figure.add_subplot()
    axes.set_title(f"{title}  ·  {_images(metrics, split)}", fontsize=13, color=INK, pad=12)
    axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), aspect="equal")
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=10, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.xaxis.label.set(fontsize=11, color=INK)
    axes.yaxis.label.set(fontsize=11, color=INK)
    return figure, axes


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
    crosses = f"crosses: {_percent(LEVEL, 0)} intervals"
    axes.plot([], [], linestyle="none", marker="+", markersize=11, color=GREY, label=crosses)
    figure.legend(loc="outside lower center", fontsize=9.5, frameon=False, labelcolor=INK, handlelength=2.4)


def _images(metrics: Figures, split: str) -> str:
    return f"{split}, n = {metrics.n:,} ({metrics.positives:,} positive)"


def _between(e: Estimate) -> str:
    return "" if e.low is None else f" ({_percent(LEVEL, 0)} interval {e.low:.3f} to {e.high:.3f})"


def _percent(share: float, decimals: int = 1) -> str:
    return f"{100 * share:.{decimals}f} %"


def _flipped(e: Estimate) -> Estimate:
    """1 - a share, with its interval."""
    low, high = (None, None) if e.low is None or e.high is None else (1 - e.high, 1 - e.low)
    return Estimate(value=None if e.value is None else 1 - e.value, low=low, high=high)


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # no version: the same figure, the same bytes
    return buffer.getvalue()
