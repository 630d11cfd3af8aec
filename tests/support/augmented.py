"""Augmentation, pixel for pixel in float64, written as plainly as can be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.loading.augment import Draws, noise_field

GREY_LEVELS = 255
TOLERANCE = 1e-2  # grey levels


def augmented(images: NDArray[Any], draws: Draws) -> NDArray[np.float64]:
    """Images (n, size, size) in [0, 1] as augmentation changes them."""
    size = images.shape[-1]
    y, x = np.mgrid[:size, :size] + 0.5
    out = np.empty(images.shape)
    for i, image in enumerate(images):
        (a, b, c), (d, e, f) = draws.matrix[i].astype(np.float64)
        warped = bilinear(image.astype(np.float64), a * x + b * y + c - 0.5, d * x + e * y + f - 0.5)
        top, left = draws.noise_shift[i]
        noise = noise_field(size)[top : top + size, left : left + size]
        value = (warped - 0.5) * draws.contrast[i] + 0.5 + draws.brightness[i] + noise * draws.noise[i]
        out[i] = value.clip(0, 1)
    return out


def bilinear(image: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values between pixels, whose centres are at whole numbers; black outside."""
    size, border = len(image), len(image)
    framed = np.pad(image, border)
    left, top = np.floor(x).astype(int).clip(-border, size), np.floor(y).astype(int).clip(-border, size)
    right, below = x - left, y - top
    corner = [[framed[top + j + border, left + i + border] for i in (0, 1)] for j in (0, 1)]
    upper, lower = ((1 - right) * near + right * far for near, far in corner)
    return np.asarray((1 - below) * upper + below * lower)
