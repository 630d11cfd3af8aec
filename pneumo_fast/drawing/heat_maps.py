"""Draws a radiograph beside the same with a heat map, as PNG."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pneumo_fast.drawing.style import GREY, INK, SKY, box_outline, short_id, to_png


def draw_overlay(
    image: NDArray[np.float32],
    heat: NDArray[np.float32],
    boxes: tuple[NDArray[np.float64], ...],
    title: str,
    image_id: str,
) -> bytes:
    """Draw an image alone and under its map, both with their boxes.

    Parameters
    ----------
    image : ndarray of float32, shape (size, size)
        In [0, 1].
    heat : ndarray of float32, shape (size, size)
        At least 0; the highest value is drawn strongest, 0 not at all.
    boxes : tuple of ndarray of float64, shape (4, 2)
        Corners, as x and y in pixels.

    Returns
    -------
    bytes
        A PNG file.
    """
    figure = Figure(figsize=(4, 2.35), dpi=150, facecolor="white")
    scale = float(heat.max()) or 1.0
    figure.text(0.02, 0.93, title, fontsize=8.5, color=INK, va="center", weight="bold")
    figure.text(0.02, 0.855, short_id(image_id), fontsize=7, color=GREY, va="center", parse_math=False)
    for left, shown in ((0.02, None), (0.51, heat / scale)):
        axes = figure.add_axes((left, 0.02, 0.47, 0.79))
        axes.set_axis_off()
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        if shown is not None:
            axes.imshow(shown, cmap="inferno", vmin=0, vmax=1, alpha=0.65 * shown)
        for corners in boxes:
            # imshow has pixel centres at whole numbers, so the image begins at -0.5
            axes.add_patch(box_outline(corners - 0.5, SKY, width=1.3, halo=2.6))  # apart from the heat's colours
        axes.set(xlim=(-0.5, len(image) - 0.5), ylim=(len(image) - 0.5, -0.5))
    return to_png(figure)
