"""Images that can be judged together, and arrays that cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pneumo_fast.metrics.scored import Sample

SOUND: dict[str, Any] = {"labels": np.array([0, 1]), "logits": np.array([-1.0, 2.0]), "groups": np.array([0, 1])}
SHAPES = r"labels .* logits .* and groups .*: expected the same shape \(n,\), n >= 1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({name: np.zeros(0, dtype=np.int64) for name in SOUND}, SHAPES),
        ({name: np.zeros((2, 1), dtype=np.int64) for name in SOUND}, SHAPES),
        ({"logits": np.zeros(3)}, SHAPES),
        ({"groups": np.zeros(1, dtype=np.int64)}, SHAPES),
        ({"labels": np.array([0, 2])}, r"labels hold \[0, 2\]: expected 0 and 1 only"),
        ({"logits": np.array([0.0, np.nan])}, "logits hold NaN or infinity"),
        ({"logits": np.array([-np.inf, 0.0])}, "logits hold NaN or infinity"),
    ],
)
def test_arrays_that_cannot_be_judged_are_refused(changes: dict[str, Any], message: str) -> None:
    assert Sample(**SOUND).n == 2
    with pytest.raises(ValueError, match=message):
        Sample(**SOUND | changes)
