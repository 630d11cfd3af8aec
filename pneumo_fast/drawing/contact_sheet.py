"""Contact sheets: images as stored and as augmented."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from pneumo_fast.drawing.style import DPI, GREY, INK, ORANGE, box_outline, short_id, to_png

PANEL_IN: Final = 1.6  # inches, side of an image on a contact sheet: 240 pixels


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
        words = f"label {strip.label}  ·  {short_id(strip.image_id)}"
        axes.text(x, y - 0.035, words, fontsize=9, color=INK, parse_math=False)
        for number, panel in enumerate(strip.panels):
            _image_panel(axes, x + number * (1 + gap), y, panel)
    return to_png(figure)


def _image_panel(axes: Axes, x: float, y: float, panel: Panel) -> None:
    """An image, one unit wide, with its upper left corner at (x, y); boxes are cut off where it ends."""
    size = len(panel.image)
    axes.imshow(panel.image, cmap="gray", vmin=0, vmax=1, extent=(x, x + 1, y + 1, y), aspect="auto")
    for corners in panel.boxes:
        outline = axes.add_patch(box_outline(corners / size + (x, y), ORANGE, width=1.4, halo=3))
        outline.set_clip_path(Rectangle((x, y), 1, 1, transform=axes.transData))
