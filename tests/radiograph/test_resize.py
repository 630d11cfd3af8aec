"""The antialiased triangle kernel, against a float64 reference and against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pneumo_fast.radiograph.resize import fitted_size, kernel_inside, margin, place, resize

SHAPES = [
    ((256, 256), (224, 224)), ((512, 512), (224, 224)), ((100, 37), (20, 31)), ((37, 100), (80, 20)),
    ((64, 64), (64, 64)), ((40, 50), (160, 200)), ((33, 65), (1, 1)), ((1, 7), (3, 3)), ((300, 75), (224, 56)),
]  # fmt: skip


def reference(image: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Pixel by pixel: the mean of the input under a triangle centred on the output pixel."""
    return along_rows(along_rows(image, height).T, width).T


def along_rows(image: NDArray[np.float64], target: int) -> NDArray[np.float64]:
    source = len(image)
    width = max(source / target, 1.0)
    out = np.empty((target, image.shape[1]))
    for row in range(target):
        centre = (row + 0.5) * source / target
        weights = [max(0.0, 1.0 - abs(i + 0.5 - centre) / width) for i in range(source)]
        out[row] = sum(w * line for w, line in zip(weights, image, strict=True)) / sum(weights)
    return out


@pytest.mark.parametrize(("source", "target"), SHAPES)
def test_equals_the_reference_and_pillow(source: tuple[int, int], target: tuple[int, int]) -> None:
    image = np.random.default_rng(7).random(source, dtype=np.float32)
    resized = resize(image, *target)
    assert resized.shape == target
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, reference(image.astype(np.float64), *target), atol=1e-6)
    pillow = Image.fromarray(image).resize(target[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(resized, np.asarray(pillow), atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float64", ">u2"])
def test_takes_any_type(dtype: str) -> None:
    image = np.arange(64 * 48).reshape(64, 48).astype(dtype)
    np.testing.assert_allclose(resize(image, 20, 30), reference(image.astype(np.float64), 20, 30), rtol=1e-6)


@settings(max_examples=50)
@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(1, 120), st.integers(1, 120), st.floats(0, 1, width=32)
)  # fmt: skip
def test_a_constant_stays_constant(rows: int, columns: int, height: int, width: int, value: float) -> None:
    resized = resize(np.full((rows, columns), value, dtype=np.float32), height, width)
    np.testing.assert_allclose(resized, value, rtol=2e-6, atol=1e-37)  # float32 sums of up to 300 weights


@settings(max_examples=50)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 120), st.integers(1, 120), st.integers(0, 2**32))
def test_stays_between_darkest_and_brightest(rows: int, columns: int, height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((rows, columns), dtype=np.float32)
    resized = resize(image, height, width)
    assert image.min() - 1e-6 <= resized.min() <= resized.max() <= image.max() + 1e-6


@pytest.mark.parametrize(
    ("shape", "size", "fitted"),
    [
        ((1024, 1024), 224, (224, 224)),
        ((200, 100), 224, (224, 112)),
        ((100, 300), 64, (21, 64)),
        ((1, 900), 64, (1, 64)),
    ],
)
def test_fitted_size(shape: tuple[int, int], size: int, fitted: tuple[int, int]) -> None:
    assert fitted_size(*shape, size) == fitted


def test_placed_in_the_middle_an_odd_pixel_below_or_to_the_right() -> None:
    placed = place(np.ones((4, 3), dtype=np.float32), 4)
    assert placed.tolist() == [[1, 1, 1, 0]] * 4
    assert place(np.ones((1, 4), dtype=np.float32), 4).sum(axis=1).tolist() == [0, 4, 0, 0]


@pytest.mark.parametrize(("source", "target"), [(1024, 224), (300, 167), (90, 91), (40, 100), (7, 7)])
def test_a_resize_with_zeros_around_is_ours_divided_by_the_kernel_inside(source: int, target: int) -> None:
    """As :func:`along_rows`, but that the weights of what lies beyond the edge count as well."""
    line, width, beyond = np.random.default_rng(3).random(source), max(source / target, 1.0), margin(source, target) + 3
    wide = np.empty(target)
    for row in range(target):
        centre = (row + 0.5) * source / target
        weights = np.maximum(0.0, 1.0 - np.abs(np.arange(-beyond, source + beyond) + 0.5 - centre) / width)
        wide[row] = weights @ np.pad(line, beyond) / weights.sum()
    np.testing.assert_allclose(wide / kernel_inside(source, target), along_rows(line[:, None], target)[:, 0], rtol=1e-9)
