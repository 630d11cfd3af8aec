"""Pictures of a thorax: their shape, their boxes and their heart."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo_fast.phantoms.thorax import NORMAL, NOT_NORMAL, OPACITY, draw

CLASSES = [OPACITY, NORMAL, NOT_NORMAL]


@given(
    seed=st.integers(0, 2**32),
    size=st.integers(32, 100),
    finding=st.sampled_from(CLASSES),
    view=st.sampled_from(["AP", "PA"]),
)
@settings(max_examples=60)
def test_any_picture_has_its_shape_and_boxes(seed: int, size: int, finding: str, view: str) -> None:
    image, boxes = draw(np.random.default_rng(seed), np.random.default_rng(seed + 1), size, finding=finding, view=view)
    assert image.shape == (size, size)
    assert image.dtype == np.uint8
    assert image.std() > 20
    assert len(boxes) in ({1, 2, 3} if finding == OPACITY else {0})
    assert all(x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= size and y + h <= size for x, y, w, h in boxes)


def test_heart_is_larger_in_ap() -> None:
    means = []
    for view in ("PA", "AP"):
        image, _ = draw(np.random.default_rng(3), np.random.default_rng(4), 128, finding=NORMAL, view=view)
        means.append(image[60:100, 45:95].mean() - image.mean())
    assert means[1] > means[0]
