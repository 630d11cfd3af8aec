"""Did the model look where the finding is? The pointing game, and the share of a map inside the boxes.

The pointing game (Zhang et al. 2016, https://arxiv.org/abs/1608.00507) counts an image as hit when the map's highest
place lies in a box; here without a margin around it. Two baselines say what that is worth: a random point of the image,
and the centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.formatting import TYPESET
from pneumo_fast.metrics.intervals import Estimate, Groups, estimate, extreme_interval, mean_interval

Corners = tuple[NDArray[np.float64], ...]
"""Corners of each box, (4, 2), as x and y in pixels from the upper left corner of the stored image."""
Map = NDArray[np.float32]
"""Of one image, shape (h, w), at least 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxFigures:
    """Of the images with boxes; every share in [0, 1]."""

    images: int
    hit_rate: Estimate
    """Images whose map is highest in a box."""
    hit_rate_random_point: Estimate
    """The same for a random point of the square image: the share of it that the boxes cover."""
    hit_rate_centre_point: Estimate
    """The same for the centre of the image."""
    energy_share: Estimate
    """Mean share of a map's sum that lies in the boxes; 0 for a map that is 0 everywhere."""
    box_area_share: Estimate
    """The share of the image that the boxes cover: what an even map would score."""


def peak(small: Map) -> tuple[float, float] | None:
    """Where a map (h, w) is highest, as x and y in [0, 1]: the centre of that cell; None for a map of zeros.

    The cell decides, not the enlarged map, whose highest value is a whole area at the image's edges.
    """
    if not small.any():
        return None
    y, x = np.unravel_index(int(np.argmax(small)), small.shape)
    return (float(x) + 0.5) / small.shape[1], (float(y) + 0.5) / small.shape[0]


def inside(boxes: Corners, x: float, y: float) -> bool:
    """Whether a point (pixels) lies in one of the boxes."""
    return any(b[0, 0] <= x < b[2, 0] and b[0, 1] <= y < b[2, 1] for b in boxes)


def mask(boxes: Corners, size: int) -> NDArray[np.bool_]:
    """The pixels whose centres lie in one of the boxes: bool, shape (size, size)."""
    at = np.arange(size) + 0.5
    covered = np.zeros((size, size), bool)
    for b in boxes:
        covered |= np.outer((b[0, 1] <= at) & (at < b[2, 1]), (b[0, 0] <= at) & (at < b[2, 0]))
    return covered


def energy_share(large: Map, boxes: Corners) -> float:
    """Share of the sum of a map (size, size) inside the boxes' union."""
    total = float(large.sum())
    return float(large[mask(boxes, len(large))].sum()) / total if total > 0 else 0.0


def judge_boxes(
    peaks: Sequence[tuple[float, float] | None],
    energies: Sequence[float],
    boxes: Sequence[Corners],
    size: int,
    groups: Groups,
    *,
    resamples: int,
    seed: int,
) -> BoxFigures:
    """Play the pointing game on images with boxes.

    Parameters
    ----------
    peaks : sequence
        Of each of n images, what :func:`peak` gave.
    energies : sequence of float
        Of each image, what :func:`energy_share` gave, in [0, 1].
    boxes : sequence
        Of each image, at least one.
    size : int
        Height and width of the images, in pixels.
    groups : ndarray of int64, shape (n,)
        Number of each image's patient.
    """
    mean, rate = (partial(f, groups=groups, resamples=resamples, seed=seed) for f in (mean_estimate, rate_estimate))
    areas = [float(mask(b, size).mean()) for b in boxes]
    return BoxFigures(
        images=len(boxes),
        hit_rate=rate([hit(p, b, size) for p, b in zip(peaks, boxes, strict=True)]),
        hit_rate_random_point=mean(areas),
        hit_rate_centre_point=rate([inside(b, size / 2, size / 2) for b in boxes]),
        energy_share=mean(energies),
        box_area_share=mean(areas),
    )


def mean_estimate(values: Sequence[float], groups: Groups, *, resamples: int, seed: int) -> Estimate:
    """Mean of a value per image with its interval by patient; no images have none."""
    array = np.array(values, dtype=np.float64)
    if not len(array):
        return Estimate(value=None)
    return estimate(float(array.mean()), mean_interval(array, groups, resamples=resamples, seed=seed))


def rate_estimate(hits: Sequence[bool], groups: Groups, *, resamples: int, seed: int) -> Estimate:
    """Share of the images that were hit with its interval by patient; that of exactly 0 or 1 is Wilson's."""
    found = mean_estimate(hits, groups, resamples=resamples, seed=seed)
    if found.value is None or not (ends := extreme_interval(found.value, groups)):
        return found
    return estimate(found.value, ends)


def hit(point: tuple[float, float] | None, boxes: Corners, size: int) -> bool:
    """Whether a map's peak (x and y in [0, 1]) lies in a box."""
    return point is not None and inside(boxes, point[0] * size, point[1] * size)


def judge_maps(boxes: BoxFigures | None, random_weights: Estimate | None) -> str:
    """What the pointing game says of the heat maps, in a sentence.

    Parameters
    ----------
    boxes : BoxFigures or None
        None where no image has a box.
    random_weights : Estimate, optional
        Hit rate of the same network with random weights.
    """
    if boxes is None:
        return "Whether the maps point at findings is not known: no image has a box."
    rivals = {
        "a random point": boxes.hit_rate_random_point,
        "the centre of the image": boxes.hit_rate_centre_point,
        **({"random weights": random_weights} if random_weights else {}),
    }
    hit_rate = boxes.hit_rate
    if hit_rate.low is None or hit_rate.value is None:
        return f"On {boxes.images} images with boxes nothing can be said of where the maps point."
    ends = {name: max(rival.value or 0.0, rival.high or 0.0) for name, rival in rivals.items()}
    beaten = [name for name, end in ends.items() if hit_rate.low > end]
    others = [name for name in ends if name not in beaten]
    peak = f"The peak of the map lies in a box in {TYPESET.share(hit_rate.value, 0)} of {boxes.images} images"
    better = f"more often than {' or '.join(beaten)}" if beaten else ""
    same = f"no better than {' or '.join(others)}" if others else ""
    return f"{peak}: {' but '.join(filter(None, (better, same)))}."
