"""The pointing game on maps and boxes drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pneumo_fast.explanation.pointing import BoxFigures, energy_share, hit, judge_boxes, judge_maps, mask, peak
from pneumo_fast.explanation.sanity import compare_with_random, rank_correlation
from pneumo_fast.metrics.intervals import Estimate, wilson_interval


def box(x: float, y: float, width: float, height: float) -> NDArray[np.float64]:
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])


def spot(row: int, column: int, size: int = 4) -> NDArray[np.float32]:
    values = np.zeros((size, size), np.float32)
    values[row, column] = 2.0
    return values


@pytest.mark.parametrize(
    ("small", "at"), [(spot(0, 0), (0.125, 0.125)), (spot(1, 3), (0.875, 0.375)), (np.zeros((4, 4), np.float32), None)]
)
def test_the_peak_is_the_centre_of_the_highest_cell(small: NDArray[np.float32], at: tuple[float, float] | None) -> None:
    assert peak(small) == at


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ((box(10, 0, 6, 8),), True),
        ((box(0, 10, 8, 6),), False),
        ((box(0, 0, 2, 2), box(13, 5, 2, 2)), True),
        ((), False),
    ],
)
def test_a_hit_is_a_peak_in_a_box(boxes: tuple[NDArray[np.float64], ...], expected: bool) -> None:
    assert hit(peak(spot(1, 3)), boxes, 16) is expected  # x 14, y 6


def test_a_map_of_zeros_hits_nothing() -> None:
    assert not hit(None, (box(0, 0, 16, 16),), 16)
    assert energy_share(np.zeros((16, 16), np.float32), (box(0, 0, 16, 16),)) == 0.0


def test_boxes_that_overlap_cover_their_union() -> None:
    assert mask((box(0, 0, 4, 4), box(2, 2, 4, 4)), 8).sum() == 16 + 16 - 4
    assert mask((box(-5, 6, 9, 9),), 8).sum() == 4 * 2  # cut off at the edges


def test_energy_is_the_share_of_the_sum() -> None:
    large = np.ones((8, 8), np.float32)
    large[0, 0] = 37.0
    assert energy_share(large, (box(0, 0, 2, 2),)) == pytest.approx(40 / 100)


def test_figures_and_baselines_by_hand() -> None:
    boxes = [(box(0, 0, 4, 4),), (box(8, 8, 8, 8),), (box(4, 4, 8, 8), box(0, 0, 4, 4))]
    peaks = [(0.1, 0.1), (0.1, 0.1), None]
    figures = judge_boxes(peaks, [0.5, 0.25, 0.0], boxes, 16, np.arange(3), resamples=100, seed=0)
    assert figures.images == 3
    assert figures.hit_rate.value == pytest.approx(1 / 3)
    assert figures.hit_rate_centre_point.value == pytest.approx(2 / 3)  # (8, 8): in the second and in the third
    assert figures.hit_rate_random_point.value == pytest.approx((16 + 64 + 80) / 3 / 256)
    assert figures.box_area_share == figures.hit_rate_random_point
    assert figures.energy_share.value == pytest.approx(0.25)


def test_intervals_are_by_patient() -> None:
    rng = np.random.default_rng(0)
    peaks = [(0.1, 0.1) if rng.random() < 0.5 else (0.9, 0.9) for _ in range(60) for _ in range(1)]
    twice = [p for p in peaks for _ in range(4)]  # four images of each patient, all alike
    boxes = [(box(0, 0, 4, 4),)] * 240
    widths = []
    for groups in (np.repeat(np.arange(60), 4), np.arange(240)):
        rate = judge_boxes(twice, [0.0] * 240, boxes, 16, groups, resamples=1000, seed=0).hit_rate
        assert rate.low is not None
        assert rate.high is not None
        widths.append(rate.high - rate.low)
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.15)


@pytest.mark.parametrize(("peak_at", "hits"), [(0.9, 0), (0.1, 2)])
def test_a_hit_rate_of_none_or_all_has_the_score_interval_of_its_patients(peak_at: float, hits: int) -> None:
    groups = np.array([0, 0, 0, 1])
    found = judge_boxes(
        [(peak_at, peak_at)] * 4, [0.0] * 4, [(box(0, 0, 4, 4),)] * 4, 16, groups, resamples=100, seed=0
    )
    assert (found.hit_rate.low, found.hit_rate.high) == wilson_interval(hits, 2)
    assert (found.hit_rate_centre_point.low, found.hit_rate_centre_point.high) == wilson_interval(0, 2)
    assert found.hit_rate_random_point.low is None  # a mean of areas, which are no rate


def test_rank_correlation_of_maps() -> None:
    rising = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert rank_correlation(rising, rising**3) == pytest.approx(1.0)
    assert rank_correlation(rising, -rising) == pytest.approx(-1.0)
    assert np.isnan(rank_correlation(rising, np.zeros((4, 4), np.float32)))


def test_maps_that_random_weights_do_not_change_are_named() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.random((4, 4)).astype(np.float32) for _ in range(20)]
    others = [rng.random((4, 4)).astype(np.float32) for _ in range(20)]
    same = compare_with_random(maps, maps, None, np.arange(20), resamples=100, seed=0)
    new = compare_with_random(maps, others, [True] * 5 + [False] * 15, np.arange(20), resamples=100, seed=0)
    assert same.rank_correlation.value == pytest.approx(1.0)
    assert "depend on the image more than on the weights" in same.text
    assert "depend on the trained weights" in new.text
    assert new.hit_rate is not None
    assert new.hit_rate.value == 0.25
    even = compare_with_random([np.zeros((4, 4), np.float32)], maps[:1], None, np.arange(1), resamples=100, seed=0)
    assert even.rank_correlation.value is None


def figures(hit: Estimate, random: float = 0.1, centre: float = 0.2) -> BoxFigures:
    fixed = [Estimate(value=value, low=None, high=None) for value in (random, centre, 0.3, 0.1)]
    return BoxFigures(
        images=40, hit_rate=hit, hit_rate_random_point=fixed[0], hit_rate_centre_point=fixed[1], energy_share=fixed[2],
        box_area_share=fixed[3],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hit", "weights", "said"),
    [
        (
            Estimate(value=0.5, low=0.4, high=0.6),
            Estimate(value=0.2, low=0.1, high=0.3),
            "% of 40 images: more often than a random point or the centre of the image or random weights.",
        ),
        (
            Estimate(value=0.5, low=0.15, high=0.6),
            Estimate(value=0.2, low=0.1, high=0.3),
            ": more often than a random point but no better than the centre of the image or random weights.",
        ),
        (Estimate(value=0.1, low=0.05, high=0.2), None, ": no better than a random point or the centre of the image."),
        (Estimate(value=None, low=None, high=None), None, "nothing can be said of where the maps point."),
    ],
)
def test_the_verdict_on_the_maps(hit: Estimate, weights: Estimate | None, said: str) -> None:
    assert judge_maps(figures(hit), weights).endswith(said)


def test_without_boxes_there_is_no_verdict() -> None:
    assert "is not known: no image has a box" in judge_maps(None, None)
