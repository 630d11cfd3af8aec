"""The ROC and the precision-recall curve of a report, with a mark that the page's script moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from pneumo_fast.formatting import number, plain_estimate
from pneumo_fast.metrics.ranking import Curve
from pneumo_fast.reporting.markup import Html, tag, text
from pneumo_fast.reporting.sources import Json
from pneumo_fast.reporting.svg import Frame, Point, Series, axes, cross, draw, inside, legend, line, rule, thin

FRAME: Final = Frame()
"""Of both curves; the script moves the marks by it."""
Rates = Mapping[str, float | None]


def draw_roc(metrics: Json, curve: Curve, rates: Rates) -> Html:
    """The ROC curve of two classes.

    Parameters
    ----------
    rates : dict
        ``sensitivity`` and ``specificity`` where the mark stands at first.
    """
    x, y = thin(curve.x, curve.y)
    area = plain_estimate(metrics["ranking"]["auroc"])
    crosses = [
        _cross(
            (1 - t["specificity"]["value"], t["recall"]["value"]), _flipped(_ends(t["specificity"])), _ends(t["recall"])
        )
        for t in metrics["thresholds"]
    ]
    drawing = draw(
        FRAME,
        "ROC curve",
        f"Sensitivity against 1 minus specificity; the area is {area}, that of chance 0.5.",
        axes(
            FRAME,
            "1 \N{MINUS SIGN} specificity: negatives called positive",
            "sensitivity: positives found",
        ),
        rule(FRAME, (0, 0), (1, 1), "chance"),
        line(FRAME, Series(name="", look="one", x=x, y=y)),
        *crosses,
        _mark("roc-mark", 1 - (rates["specificity"] or 0.0), rates["sensitivity"]),
    )
    names = [("one", f"model, AUROC {area}"), ("chance", "chance, AUROC 0.5"), *_marks(metrics)]
    return tag("figure", tag("h3", text("ROC curve")), drawing, legend(names))


def draw_precision_recall(metrics: Json, curve: Curve, rates: Rates) -> Html:
    """The precision-recall steps of two classes, whose area is the average precision.

    Parameters
    ----------
    rates : dict
        ``sensitivity`` and ``precision`` where the mark stands at first.
    """
    corners_x = np.repeat(np.concatenate([[0.0], curve.x]), 2)[:-1]
    corners_y = np.repeat(np.concatenate([curve.y[:1], curve.y]), 2)[1:]  # each precision holds from the recall before
    x, y = thin(corners_x, corners_y)
    area = plain_estimate(metrics["ranking"]["average_precision"])
    prevalence = metrics["prevalence"]
    crosses = [
        _cross((t["recall"]["value"], t["precision"]["value"]), _ends(t["recall"]), _ends(t["precision"]))
        for t in metrics["thresholds"]
        if t["precision"]["value"] is not None
    ]
    drawing = draw(
        FRAME,
        "Precision-recall curve",
        f"Precision against sensitivity; the average precision is {area}, that of chance {number(prevalence)}.",
        axes(FRAME, "sensitivity (recall): positives found", "precision: calls that are right"),
        rule(FRAME, (0, prevalence), (1, prevalence), "chance"),
        line(FRAME, Series(name="", look="one", x=x, y=y)),
        *crosses,
        _mark("pr-mark", rates["sensitivity"], rates["precision"]),
    )
    names = [
        ("one", f"model, average precision {area}"),
        ("chance", f"chance: {number(prevalence)}, the share of positives"),
        *_marks(metrics),
    ]
    return tag("figure", tag("h3", text("Precision-recall curve")), drawing, legend(names))


def _marks(metrics: Json) -> list[tuple[str, str]]:
    fixed = " and ".join(f"{t['threshold']:g}" for t in metrics["thresholds"])
    return [("mark", "the threshold above"), ("point", f"thresholds {fixed}, with intervals")]


def _mark(name: str, x: float | None, y: float | None) -> Html:
    """The operating point that moves."""
    known = x is not None and y is not None
    at = FRAME.at(x or 0.0, y or 0.0)
    return tag(
        "circle", id=name, cx=f"{at[0]:.2f}", cy=f"{at[1]:.2f}", r="7", class_="mark" if known else "mark nowhere"
    )


def _cross(at: Point, x_range: Point | None, y_range: Point | None) -> Html:
    return inside(FRAME, cross(FRAME, at, x_range, y_range)) if None not in at else Html("")


def _ends(e: Json) -> Point | None:
    return None if e["low"] is None else (e["low"], e["high"])


def _flipped(ends: Point | None) -> Point | None:
    return None if ends is None else (1 - ends[1], 1 - ends[0])
