"""Fits a radiograph into a square without distorting it.

The kernel is the antialiased bilinear one: a triangle as wide as one output pixel covers of the input, and never
narrower than one input pixel, weights normalized to sum to one, in float32 (Pillow's ``BILINEAR``; PyTorch's
``interpolate(..., antialias=True)``). A plain bilinear resize from 1024 to 224 pixels would skip most of the input
and alias. The kernel is separable, so the resize is two products with banded matrices, which a BLAS does in a
third of the time of Pillow's loop (``docs/experiments.md``).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd  # importing it takes longer than all else that a worker starts with

Floats = NDArray[np.float32]

ROWS, COLUMNS = 8, 16  # of the output, worked out together: few enough that the band they share stays narrow


def fitted_size(height: float, width: float, size: int) -> tuple[int, int]:
    """Height and width of an image fitted into a square of ``size``; both are in one unit, for instance pixels.

    The longer side becomes ``size``; the shorter keeps its proportion, rounded, at least one pixel.
    """
    longest = max(height, width)
    return max(1, round(height * size / longest)), max(1, round(width * size / longest))


def resize(image: NDArray[np.generic], height: int, width: int) -> Floats:
    """Resize an image.

    Parameters
    ----------
    image : ndarray of any real type, shape (rows, columns)

    Returns
    -------
    ndarray of float32, shape (height, width)
        In the units of ``image``.
    """
    across = np.empty((height, image.shape[1]), dtype=np.float32)
    for rows, band, weights in _bands(image.shape[0], height, ROWS, "C"):
        np.matmul(weights, image[band].astype(np.float32), out=across[rows])
    out = np.empty((height, width), dtype=np.float32)
    for columns, band, weights in _bands(image.shape[1], width, COLUMNS, "F"):
        np.matmul(across[:, band], weights.T, out=out[:, columns])
    return out


def place(image: Floats, size: int) -> Floats:
    """Centre an image on a black square of ``size``; an odd pixel of border goes below or to the right."""
    height, width = image.shape
    if (height, width) == (size, size):
        return image
    square = np.zeros((size, size), dtype=np.float32)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = image
    return square


@lru_cache(maxsize=64)
def _bands(source: int, target: int, rows: int, order: Literal["C", "F"]) -> list[tuple[slice, slice, Floats]]:
    """The kernel's matrix (target, source) in blocks of rows: rows, the columns they touch, their weights."""
    weights = _weights(source, target)
    bands = []
    for first in range(0, target, rows):
        block = weights[first : first + rows]
        touched = np.flatnonzero(block.any(axis=0))
        columns = slice(int(touched[0]), int(touched[-1]) + 1)
        bands.append((slice(first, first + len(block)), columns, np.array(block[:, columns], order=order)))
    return bands


def _weights(source: int, target: int) -> Floats:
    """Triangle weights, shape (target, source), float32; worked out in float64, each row sums to one."""
    weights = _triangles(source, target, 0)
    normalized: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalized


def _triangles(source: int, target: int, beyond: int) -> NDArray[np.float64]:
    """The kernel of each output pixel, at the input pixels and as many ``beyond`` either edge."""
    scale = source / target
    centre = (np.arange(target)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(-beyond, source + beyond)[None, :] + 0.5 - centre) / max(scale, 1.0)
    weights: NDArray[np.float64] = np.maximum(0.0, 1.0 - distance)
    return weights


def margin(source: int, target: int) -> int:
    """Pixels beyond the edge of the input that kernels of output pixels extend to, at most."""
    return math.ceil(max(source / target, 1.0))


@lru_cache(maxsize=64)
def kernel_inside(source: int, target: int) -> NDArray[np.float64]:
    """Share of each output pixel's kernel that lies on the input, in (0, 1], shape (target,).

    A resize of the input with zeros around it, divided by this, is ours.
    """
    beyond = margin(source, target)
    weights = _triangles(source, target, beyond)
    share: NDArray[np.float64] = weights[:, beyond : beyond + source].sum(axis=1) / weights.sum(axis=1)
    return share


Boxes = tuple[NDArray[np.float64], ...]


def stored_boxes(boxes: pd.DataFrame, size: int) -> Boxes:
    """Corners of boxes in the stored image.

    Parameters
    ----------
    boxes : DataFrame
        Columns of ``boxes.csv``, in source pixels made square.
    size : int
        Height and width of the stored image, in pixels.

    Returns
    -------
    tuple of ndarray of float64, shape (4, 2)
        Of each box: x and y, in pixels of the stored image, clockwise from the upper left corner.
    """
    corners = []
    columns = ["x", "y", "width", "height", "source_width", "source_height"]
    for x, y, w, h, source_width, source_height in boxes[columns].to_numpy(dtype=np.float64):
        height, width = fitted_size(source_height, source_width, size)
        left, top = (size - width) // 2, (size - height) // 2  # as resize.place does
        points = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
        corners.append(points * [width / source_width, height / source_height] + [left, top])
    return tuple(corners)
