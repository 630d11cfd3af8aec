"""Confusion matrices at several thresholds."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pneumo_fast.drawing.style import BLUE, INK, VERMILION, clean_axes, images_judged, new_figure, to_png
from pneumo_fast.formatting import percent
from pneumo_fast.metrics.catalogue import ACCURACY, FN, FP, TN, TP
from pneumo_fast.metrics.summary import Figures
from pneumo_fast.metrics.thresholds import ThresholdMetrics

CELLS: Final = ((TP, FN), (FP, TN))


def draw_confusion(metrics: Figures, split: str) -> bytes:
    """Draw one confusion matrix per threshold, and 'always negative' beside them.

    Right answers are blue and wrong ones orange, the darker the larger their share of the row.

    Returns
    -------
    bytes
        A PNG file.
    """
    results = (*metrics.thresholds, metrics.always_negative)
    columns = min(len(results), 3)
    rows = math.ceil(len(results) / columns)
    figure = new_figure(3.4 * columns + 0.4, 3.7 * rows + 0.5)
    figure.suptitle(f"Confusion matrices  ·  {images_judged(metrics, split)}", fontsize=13, color=INK)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, result in zip(panels, results, strict=False):
        _confusion_panel(panel, result)
    for panel in panels[len(results) :]:
        panel.set_axis_off()
    return to_png(figure)


def _confusion_panel(axes: Axes, result: ThresholdMetrics) -> None:
    counts = np.array([[getattr(result.confusion, count.key) for count in row] for row in CELLS])
    of_class = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(of_class, 1)
    axes.imshow(_cell_colours(shares), aspect="equal")
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row - 0.08, f"{count:,}", ha="center", va="center", fontsize=19, color=INK)
        share = f"{percent(shares[row, column])} of the row" if of_class[row, 0] else "none there"
        small = f"{CELLS[row][column].label}\n{share}"
        axes.text(column, row + 0.25, small, ha="center", va="center", fontsize=9.5, color=INK, linespacing=1.4)
    axes.set_xticks([0, 1], ["called\npositive", "called\nnegative"])
    axes.set_yticks([0, 1], ["labelled\npositive", "labelled\nnegative"], rotation=90, ha="right", va="center")
    axes.axhline(0.5, color="white", linewidth=3)
    axes.axvline(0.5, color="white", linewidth=3)
    clean_axes(axes)
    title = "always negative" if result.threshold is None else f"threshold {result.threshold}"
    axes.set_title(f"{title}:  {ACCURACY.label} {percent(result.accuracy.value or 0.0)}", fontsize=11, color=INK, pad=8)


def _cell_colours(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (2, 2, 3) from near white to blue on the diagonal and orange off it; dark text stays legible."""
    right, wrong = (np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for colour in (BLUE, VERMILION))
    full = np.array([[right, wrong], [wrong, right]])
    weight: NDArray[np.float64] = 0.05 + 0.67 * shares[..., None]
    return 1.0 - weight * (1.0 - full)
