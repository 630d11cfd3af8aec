"""In what an image is unlike the training images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pneumo_fast.dataset.npy import store_unit
from pneumo_fast.prediction.outside import find_warnings
from pneumo_fast.run.model_input import ModelInput, Preprocessing

TRAINED = ModelInput(
    preprocessing=Preprocessing(dtype="float16", decode="fast", window="auto"),
    views=("AP", "PA"),
    ages=(18, 80),
    aspects=(0.8, 1.3),
)
ROW = {
    "modality": "DX", "view": "PA", "body_part": "CHEST", "age": "40", "height": 1000, "width": 1000,
    "padding_pixels": 0, "burned_in": "NO",
}  # fmt: skip


def image(low: float = 0.25, high: float = 0.75) -> Any:
    return np.repeat([low, high], 512).reshape(32, 32).astype(np.float32)


def sums(values: Any) -> tuple[float, float]:
    return store_unit(values, np.empty(values.shape, np.float16))


@pytest.mark.parametrize(
    ("row", "values", "expected"),
    [
        ({}, image(), {}),
        ({"modality": "OT"}, image(), {}),
        ({"modality": "CT"}, image(), {"modality": "CT"}),
        ({"view": ""}, image(), {"view": "unknown"}),
        ({"view": "LL"}, image(), {"view": "LL"}),
        ({"body_part": ""}, image(), {}),
        ({"body_part": "HAND"}, image(), {"body_part": "HAND"}),
        ({"age": "17"}, image(), {"age": "17"}),
        ({"age": "18"}, image(), {}),
        ({"age": ""}, image(), {}),
        ({"height": 1400}, image(), {"aspect": "1.400"}),
        ({"burned_in": "YES"}, image(), {"burned_in": "YES"}),
        ({}, image(0.0, 0.3), {"intensity": "0.150+-0.150"}),
        ({}, image(0.49, 0.51), {"intensity": "0.500+-0.010"}),
        ({"padding_pixels": 512}, image(0.0, 0.5), {"intensity": "0.500+-0.000"}),
        ({"view": "LL", "age": "3"}, image(), {"view": "LL", "age": "3"}),
    ],
)
def test_warnings(row: dict[str, Any], values: Any, expected: dict[str, str]) -> None:
    row = ROW | row | {"sums": sums(values)}
    assert find_warnings(row, values.size, TRAINED, mean=0.5, std=0.25) == expected


def test_what_training_was_told_to_take_is_no_warning() -> None:
    wider = replace(TRAINED.preprocessing, modalities=("CR", "RF"), body_parts=("CHEST", "RIB"))
    row = ROW | {"modality": "RF", "body_part": "RIB", "sums": sums(image())}
    assert set(find_warnings(row, 1024, TRAINED, mean=0.5, std=0.25)) == {"modality", "body_part"}
    assert find_warnings(row, 1024, replace(TRAINED, preprocessing=wider), mean=0.5, std=0.25) == {}
