"""Figures: whole PNG files that show what they should, and change nothing outside themselves."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pneumo_fast.drawing import curves
from pneumo_fast.drawing.confusion import draw_confusion
from pneumo_fast.drawing.curves import POINTS, draw_precision_recall, draw_roc
from pneumo_fast.drawing.learning_curves import FIGURES, LOSSES, OPTIONAL
from pneumo_fast.drawing.style import BLUE, GREEN, VERMILION
from pneumo_fast.metrics.catalogue import AVERAGE_PRECISION
from pneumo_fast.metrics.intervals import Estimate, Labels, Logits
from pneumo_fast.metrics.ranking import precision_recall_curve, roc_curve
from pneumo_fast.metrics.scored import Sample
from pneumo_fast.metrics.summary import Figures
from pneumo_fast.reporting.charts import learning
from pneumo_fast.reporting.sources import Epoch
from tests.support.judged import figures_of

Pixels = NDArray[np.uint8]


def scores(*, apart: float = 1.5) -> tuple[Labels, Logits]:
    rng = np.random.default_rng(5)
    labels = np.repeat([1, 0], [30, 90])
    return labels, (rng.normal(0, 1, 120) + apart * labels - 1).astype(np.float32)


def judge(labels: Labels, logits: Logits, thresholds: tuple[float, ...]) -> Figures:
    return figures_of(Sample(labels=labels, logits=logits, groups=np.arange(len(labels))), *thresholds)


def roc(labels: Labels, logits: Logits, *thresholds: float) -> bytes:
    return draw_roc(judge(labels, logits, thresholds), roc_curve(labels, logits), "val")


def precision_recall(labels: Labels, logits: Logits, *thresholds: float) -> bytes:
    return draw_precision_recall(judge(labels, logits, thresholds), precision_recall_curve(labels, logits), "val")


def confusion(labels: Labels, logits: Logits, *thresholds: float) -> bytes:
    return draw_confusion(judge(labels, logits, thresholds), "val")


Draw = Callable[..., bytes]
EACH_FIGURE = pytest.mark.parametrize("draw", [roc, precision_recall, confusion])
EACH_CURVE = pytest.mark.parametrize("draw", [roc, precision_recall])


def pixels(png: bytes) -> Pixels:
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)


def area(image: Pixels, colour: NDArray[np.float64]) -> int:
    """How many pixels have the colour, give or take rounding."""
    return int((np.abs(image - colour) <= 1).all(axis=2).sum())


@EACH_FIGURE
def test_a_figure_is_large_enough_to_read_and_not_blank(draw: Draw) -> None:
    image = pixels(draw(*scores(), 0.5, 0.25))
    assert min(image.shape[:2]) >= 600
    assert image.std() > 10


@EACH_FIGURE
def test_the_same_figures_give_the_same_bytes(draw: Draw) -> None:
    assert draw(*scores(), 0.5) == draw(*scores(), 0.5)


@EACH_FIGURE
def test_drawing_changes_no_setting_of_matplotlib_and_needs_no_pyplot(
    draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would fail
    names = set(mpl.rcParams) - {"backend"}  # merely looking that one up would resolve it
    before = {name: mpl.rcParams[name] for name in names}
    draw(*scores(), 0.5)
    assert {name: mpl.rcParams[name] for name in names} == before


@EACH_CURVE
@pytest.mark.parametrize("count", [1, 2, 6, 7])
def test_every_threshold_is_marked_in_a_colour_of_its_own(draw: Draw, count: int) -> None:
    image = pixels(draw(*scores(), *np.linspace(0.2, 0.5, count).tolist()))
    marked = [area(image, rgb(colour)) > 100 for colour, _ in POINTS[:5]]  # black is also the colour of text
    assert marked == [i < count for i in range(5)]


def test_colours_and_shapes_of_operating_points_are_distinct() -> None:
    colours, shapes = zip(*POINTS, strict=True)
    assert len({*colours, BLUE}) == len(POINTS) + 1
    assert len(set(shapes)) == len(POINTS)


@EACH_CURVE
def test_a_point_without_a_value_is_left_out(draw: Draw) -> None:
    labels, logits = scores()
    image = pixels(draw(labels, logits, 1.0))  # nothing is called positive: no precision
    assert (area(image, rgb(POINTS[0][0])) > 100) == (draw is roc)


@EACH_CURVE
def test_complete_separation_is_drawn_without_an_interval(draw: Draw) -> None:
    labels, logits = scores(apart=50)
    assert judge(labels, logits, (0.5,)).ranking.auroc.low is None
    assert area(pixels(draw(labels, logits, 0.5)), rgb(BLUE)) > 500


def test_cells_are_blue_when_right_and_orange_when_wrong() -> None:
    right, wrong = (255 - 0.72 * (255 - rgb(colour)) for colour in (BLUE, VERMILION))  # share 1
    labels, logits = scores(apart=50)
    perfect = pixels(confusion(labels, logits, 0.999999))
    assert area(perfect, right) > 2.5 * area(perfect, wrong) > 25_000  # three right cells; 'always negative' misses
    inverted = pixels(confusion(1 - labels, logits, 0.999999))
    assert area(inverted, wrong) > 2.5 * area(inverted, right)


def test_positives_are_in_the_upper_row() -> None:
    wrong = 255 - 0.72 * (255 - rgb(VERMILION))
    image = pixels(confusion(*scores(), 0.999999))  # all are called negative: every positive is missed
    upper, lower = np.array_split(image, 2)
    assert area(upper, wrong) > 10_000 > area(lower, wrong)


def test_the_legend_has_the_interval_of_an_area() -> None:
    said = curves._area(AVERAGE_PRECISION, Estimate(value=0.5, low=0.25, high=0.75))
    assert said == "average precision 0.500 (95\N{NO-BREAK SPACE}% interval 0.250 to 0.750)"


def test_learning_curves_have_the_colours_of_the_report() -> None:
    looks = {BLUE: "one", VERMILION: "two", GREEN: "three"}
    epoch = Epoch(epoch=1, train_loss=1.0, val_loss=1.0, val_auroc=0.5, val_ap=0.5, val_accuracy=0.5, lr=0.1)
    page = {name: look for chart in learning([epoch], 1).values() if chart for look, name in chart.legend}
    drawn = {label: looks[colour] for key, label, colour, _ in (*LOSSES, *FIGURES) if key not in OPTIONAL}
    assert drawn == {name: page[name] for name in drawn}


@pytest.mark.parametrize("label", [0, 1])
def test_confusion_of_one_class(label: int) -> None:
    assert pixels(confusion(np.full(3, label), np.zeros(3, dtype=np.float32), 0.5)).std() > 10


def test_confusion_grows_by_rows() -> None:
    two, nine = (pixels(confusion(*scores(), *np.linspace(0.1, 0.9, n).tolist())) for n in (2, 9))
    assert nine.shape[1] == two.shape[1]
    assert nine.shape[0] > 3 * two.shape[0]
