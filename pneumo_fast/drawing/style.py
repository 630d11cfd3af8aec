"""What all figures have in common: colours, plain axes, boxes, captions, and PNG as the result.

Colours are those of Okabe and Ito, which people with any colour vision tell apart.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Polygon
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from pneumo_fast.metrics.summary import Figures

BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
ORANGE: Final = "#E69F00"
GREEN: Final = "#009E73"
PURPLE: Final = "#CC79A7"
SKY: Final = "#56B4E9"
BLACK: Final = "#000000"
INK: Final = "#222222"
GREY: Final = "#767676"
FAINT: Final = "#DDDDDD"
DPI: Final = 150
LONGEST_ID: Final = 56  # characters of an image's id that are shown


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure of a size in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.02, hspace=0.02)
    return Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout, facecolor="white")


def clean_axes(axes: Axes) -> None:
    """Leave away ticks and frame."""
    axes.tick_params(length=0, labelsize=10, labelcolor=INK)
    axes.spines[:].set_visible(False)


def box_outline(corners: NDArray[np.float64], colour: str, width: float, halo: float) -> Polygon:
    """A box, given its corners (4, 2) in data coordinates, on a dark halo that is wider than its line."""
    outline = Polygon(corners, fill=False, edgecolor=colour, linewidth=width, joinstyle="miter")
    outline.set_path_effects([Stroke(linewidth=halo, foreground="black", alpha=0.6), Normal()])
    return outline


def short_id(image_id: str) -> str:
    """An image's id, cut where it is too long for a caption."""
    return image_id if len(image_id) <= LONGEST_ID else f"{image_id[:LONGEST_ID]}…"


def images_judged(metrics: Figures, split: str) -> str:
    """Which images a figure is of, and how many."""
    return f"{split}, n = {metrics.n:,} ({metrics.positives:,} positive)"


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # no version: the same figure, the same bytes
    return buffer.getvalue()
