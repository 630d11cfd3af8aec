"""Draws charts as SVG in the text of a page; colours and line styles are classes of ``report.css``.

A chart is 360 units wide, which a phone shows at about its own size. It has a title and a description for those who do
not see it; its numbers stand in a table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from pneumo_fast.formatting import number

WIDTH: Final = 360.0
UNIT_TICKS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

Floats = NDArray[np.float64]
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Where the data lie in a chart; lengths in units of the drawing, from its upper left corner."""

    x: tuple[float, float] = (0.0, 1.0)
    """What the left and the right edge of the plot stand for."""
    y: tuple[float, float] = (0.0, 1.0)
    height: float = 340.0
    """Of the whole drawing."""
    left: float = 46.0
    right: float = 14.0
    top: float = 12.0
    bottom: float = 44.0
    """Room around the plot."""

    @property
    def plot_width(self) -> float:
        """Width of the plot alone."""
        return WIDTH - self.left - self.right

    @property
    def plot_height(self) -> float:
        """Height of the plot alone."""
        return self.height - self.top - self.bottom

    def at(self, x: float, y: float) -> Point:
        """Where a value lies in the drawing."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * self.plot_width, self.top + (1 - up) * self.plot_height


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A line of a chart."""

    look: str
    """Class of its colour and line style."""
    x: Sequence[float] | Floats
    y: Sequence[float] | Floats


def tag(name: str, /, *content: Markup | str, **attributes: str | None) -> Markup:
    """An element of a drawing; content that is plain text is escaped.

    Parameters
    ----------
    attributes
        By name, with ``_`` for ``-`` and one more at the end where the name is a word of Python (``class_``); escaped.
        None gives none.
    """
    written = [
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
        if value is not None
    ]
    return Markup("<{}{}>{}</{}>").format(name, Markup().join(written), Markup().join(map(escape, content)), name)


def axes(
    frame: Frame,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] = UNIT_TICKS,
    y_ticks: Sequence[float] = UNIT_TICKS,
) -> Markup:
    """Grid lines, their numbers, and the names of the axes."""
    parts = []
    low, high = frame.at(frame.x[0], frame.y[0]), frame.at(frame.x[1], frame.y[1])
    for value in y_ticks:
        y = frame.at(frame.x[0], value)[1]
        parts.append(segment((low[0], y), (high[0], y), "grid"))
        parts.append(label((low[0] - 7, y + 4), tick(value, y_ticks), "tick", "end"))
    for value in x_ticks:
        x, _ = frame.at(value, frame.y[0])
        parts.append(segment((x, low[1]), (x, high[1]), "grid"))
    parts.append(axis_below(frame, x_label, x_ticks))
    middle = (low[1] + high[1]) / 2
    turned = f"rotate(-90 11 {middle:.1f})"
    parts.append(tag("text", y_label, x="11", y=f"{middle:.1f}", class_="axis", text_anchor="middle", transform=turned))
    return tag("g", *parts, aria_hidden="true")


def axis_below(frame: Frame, x_label: str, x_ticks: Sequence[float]) -> Markup:
    """The numbers and the name of the axis below a plot."""
    parts = []
    for value in x_ticks:
        x, bottom = frame.at(value, frame.y[0])
        parts.append(segment((x, bottom), (x, bottom + 4), "grid"))
        parts.append(label((x, bottom + 17), tick(value, x_ticks), "tick", "middle"))
    middle = frame.left + frame.plot_width / 2
    return tag("g", *parts, label((middle, frame.height - 7), x_label, "axis", "middle"), aria_hidden="true")


def tick(value: float, ticks: Sequence[float]) -> str:
    """A tick's number, with the decimals that tell all ticks apart."""
    step = min((b - a for a, b in pairwise(ticks)), default=1.0)
    return number(value, max(0, math.ceil(-math.log10(step) - 1e-9)))


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers that reach from ``low`` to ``high``, above it: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def whole_ticks(last: int) -> list[float]:
    """Whole numbers from 1 to ``last``, evenly spaced but for the first, at most about eight."""
    step = max(1, math.ceil(last / 8))
    return [1.0, *(float(k) for k in range(step, last + 1, step) if k > 1)]


def line(frame: Frame, series: Series) -> Markup:
    """A line through the points of a series; outside the plot it is cut off."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in _places(frame, series))
    return inside(frame, tag("polyline", points=points, class_=f"line {series.look}"))


def inside(frame: Frame, *content: Markup) -> Markup:
    """Content that is cut off where the plot ends, but for half a line's width."""
    x, y, width, height = frame.left - 2, frame.top - 2, frame.plot_width + 4, frame.plot_height + 4
    box = {"x": f"{x:g}", "y": f"{y:g}", "width": f"{width:g}", "height": f"{height:g}"}
    return tag("svg", *content, **box, viewBox=f"{x:g} {y:g} {width:g} {height:g}", class_="inside")


def dots(frame: Frame, series: Series, radii: Sequence[float]) -> Markup:
    """A dot at each point of a series."""
    shapes = (
        tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{r:.1f}", class_=f"dot {series.look}")
        for (x, y), r in zip(_places(frame, series), radii, strict=True)
    )
    return tag("g", *shapes)


def diamond(at: Point) -> Markup:
    """The mark of an estimate."""
    return tag("path", d=f"M{at[0]:.1f} {at[1] - 5:.1f}l5 5l-5 5l-5 -5z", class_="point")


def rule(frame: Frame, start: Point, end: Point, look: str) -> Markup:
    """A straight line between two values."""
    return segment(frame.at(*start), frame.at(*end), f"line {look}")


def label(at: Point, words: str, look: str, anchor: str = "start") -> Markup:
    """Words in a drawing."""
    return tag("text", words, x=f"{at[0]:.1f}", y=f"{at[1]:.1f}", class_=look, text_anchor=anchor)


def segment(start: Point, end: Point, look: str) -> Markup:
    """A straight line between two places of the drawing."""
    (x1, y1), (x2, y2) = start, end
    return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=look)


def _places(frame: Frame, series: Series) -> list[Point]:
    return [frame.at(float(x), float(y)) for x, y in zip(series.x, series.y, strict=True)]


# ---- fewer points


def thin(x: Floats, y: Floats, columns: int = 600, tolerance: float = 0.0008) -> tuple[Floats, Floats]:
    """Leave out the points of a curve in [0, 1] x [0, 1] that nobody would see.

    First each of many columns keeps its first, lowest, highest and last point (M4: Jugel et al., PVLDB 7, 2014, 797),
    then those go that lie within ``tolerance`` of the line between others (Douglas and Peucker, The Canadian
    Cartographer 10, 1973, 112).

    Parameters
    ----------
    x, y : ndarray of float64, shape (n,), n at least 2
        ``x`` never falls.
    """
    if len(x) > 4 * columns:
        x, y = _extremes(x, y, columns)
    keep = np.zeros(len(x), dtype=bool)
    keep[[0, -1]] = True
    spans = [(0, len(x) - 1)]
    while spans:
        first, last = spans.pop()
        away = _distances(x[first : last + 1], y[first : last + 1])
        farthest = int(away.argmax())
        if away[farthest] > tolerance:
            keep[first + farthest] = True
            spans += [(first, first + farthest), (first + farthest, last)]
    return x[keep], y[keep]


def _extremes(x: Floats, y: Floats, columns: int) -> tuple[Floats, Floats]:
    starts = np.flatnonzero(np.diff(np.floor(x * columns), prepend=-1.0))
    ends = np.append(starts[1:], len(x))
    kept = [[a, a + int(y[a:b].argmin()), a + int(y[a:b].argmax()), b - 1] for a, b in zip(starts, ends, strict=True)]
    places = np.unique(np.array(kept))
    return x[places], y[places]


def _distances(x: Floats, y: Floats) -> Floats:
    """Distances of points from the straight way between the first and the last."""
    dx, dy = x[-1] - x[0], y[-1] - y[0]
    length = max(dx * dx + dy * dy, 1e-300)
    along = np.clip(((x - x[0]) * dx + (y - y[0]) * dy) / length, 0.0, 1.0)
    away: Floats = np.hypot(x - x[0] - along * dx, y - y[0] - along * dy)
    return away
