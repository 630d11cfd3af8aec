"""Draws how a run went: loss and validation figures over its epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pneumo_fast.drawing.style import BLUE, FAINT, GREEN, GREY, INK, VERMILION, clean_axes, new_figure, to_png
from pneumo_fast.metrics.catalogue import MONITORED
from pneumo_fast.run.checkpoint import EpochRecord

Line = tuple[str, str, str, str]
"""Key of the history, label, colour, line style."""
LOSSES: tuple[Line, ...] = (
    ("train_loss", "training", VERMILION, "--"),
    ("val_loss", "validation", BLUE, "-"),
    ("train_boxes_loss", "training, boxes", GREY, "-."),
    ("train_classes_loss", "training, classes", GREY, ":"),
)
OPTIONAL = {"train_boxes_loss", "train_classes_loss"}  # there only where it is taught
FIGURES: tuple[Line, ...] = tuple(
    (f"val_{name}", MONITORED[name].label, colour, style)
    for name, colour, style in (("auroc", BLUE, "-"), ("ap", VERMILION, "--"), ("accuracy", GREEN, ":"))
)


def draw_learning_curves(history: Sequence[EpochRecord], best_epoch: int) -> bytes:
    """Draw the losses, and the figures of the validation split, over the epochs.

    Parameters
    ----------
    history : sequence of dict
        At least one epoch.
    best_epoch : int
        From 1; marked by an upright line.

    Returns
    -------
    bytes
        A PNG file.
    """
    figure = new_figure(10.0, 4.4)
    left, right = figure.subplots(1, 2)
    _draw(left, "Loss", LOSSES, history, best_epoch)
    _draw(right, "Validation", FIGURES, history, best_epoch)
    return to_png(figure)


def _draw(axes: Axes, title: str, lines: Sequence[Line], history: Sequence[EpochRecord], best_epoch: int) -> None:
    epochs = range(1, len(history) + 1)
    axes.axvline(best_epoch, color=FAINT, linewidth=6, zorder=0, label=f"best: epoch {best_epoch}")
    shown = [line for line in lines if line[0] not in OPTIONAL or line[0] in history[0]]
    for key, label, colour, style in shown:
        values = [record.get(key, math.nan) for record in history]
        axes.plot(epochs, values, style, color=colour, marker="o", markersize=3.5, label=label)
    axes.set_title(title, fontsize=13, color=INK, loc="left")
    axes.set_xlabel("epoch", fontsize=11, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    clean_axes(axes)
    columns = 4 if len(shown) < 4 else 3
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns, fontsize=9.5, frameon=False, labelcolor=INK
    )
