"""Fits a radiograph into a square without distorting it.

The kernel is the antialiased bilinear one: a triangle as wide as one output pixel covers of the input, and never
narrower than one input pixel, weights normalized to sum to one, in float32 (Pillow's ``BILINEAR`` on mode ``F``;
the same as PyTorch's ``interpolate(..., antialias=True)``). A plain bilinear resize from 1024 to 224 pixels would
skip most of the input and alias.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def fitted_size(height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """Where an image lands in the square: (top, left, height, width) in output pixels.

    The longer side becomes ``size``; the shorter keeps its proportion, rounded, at least one pixel; the rest is
    shared between both sides, the odd pixel going below or to the right.
    """
    longest = max(height, width)
    fitted_height = max(1, round(height * size / longest))
    fitted_width = max(1, round(width * size / longest))
    return (size - fitted_height) // 2, (size - fitted_width) // 2, fitted_height, fitted_width


def fit_square(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Resize to fit a square and fill the rest with black.

    Parameters
    ----------
    image : ndarray of float32, shape (height, width)
        In [0, 1].
    size : int
        Side of the square, in pixels.

    Returns
    -------
    ndarray of float32, shape (size, size)
        In [0, 1].
    """
    top, left, height, width = fitted_size(image.shape[0], image.shape[1], size)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    if (height, width) == (size, size):
        return np.asarray(resized)
    square = np.zeros((size, size), dtype=np.float32)
    square[top : top + height, left : left + width] = np.asarray(resized)
    return square
