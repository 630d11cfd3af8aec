"""Radiographs that were stored in colour: grey where they are grey, rejected where they are not."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.errors import RejectedImageError

GREY_TOLERANCE: Final = 4 / 255  # lossy chroma rounding makes grey channels differ by this much
LUMINANCE: Final = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def grey_of_rgb(rgb: NDArray[np.integer], white: int) -> NDArray[np.float64]:
    """A grey picture's luminance, in [0, 1].

    Parameters
    ----------
    rgb : ndarray of integers, shape (rows, columns, 3)
    white : int
        The value of white.

    Raises
    ------
    RejectedImageError
        ``colour`` where the channels of any pixel differ by more than 4/255.
    """
    darkest, brightest = rgb.min(axis=-1), rgb.max(axis=-1)
    if int((brightest - darkest).max()) > GREY_TOLERANCE * white:
        raise RejectedImageError("colour", "the three channels differ")
    return np.clip(rgb @ (LUMINANCE / white), 0.0, 1.0)
