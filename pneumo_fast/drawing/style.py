"""What all figures have in common: colours, fonts, and PNG as the result."""

from __future__ import annotations

import io
from typing import Final

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
ORANGE: Final = "#E69F00"
INK: Final = "#222222"
GREY: Final = "#767676"
FAINT: Final = "#DDDDDD"
DPI: Final = 150


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure of a size in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.02, hspace=0.02)
    return Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout, facecolor="white")


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # no version: the same figure, the same bytes
    return buffer.getvalue()
