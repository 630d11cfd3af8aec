"""Decodes 8-bit JPEG through Pillow's libjpeg-turbo, which is always there, and the fastest by far."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo_fast.errors import RejectedImageError


def decode_grey_jpeg(frame: bytes, rows: int, columns: int, least: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Decode a JPEG of one component.

    Parameters
    ----------
    rows, columns : int
        What the frame was found to declare.
    least : (height, width), optional
        The frame may be decoded at half, quarter or eighth scale, as long as it is at least this large: libjpeg
        then leaves the high frequencies out of its inverse transform.

    Raises
    ------
    RejectedImageError
        ``frame_mismatch``.
    Exception
        Whatever Pillow raises on damaged data.
    """
    scale = _scale(rows, columns, least)
    pixels = np.empty((rows // scale, columns // scale), dtype=np.uint8)
    size = pixels.shape[::-1]
    try:  # straight into the array: opening the frame as a file first takes a tenth longer
        Image.frombuffer("L", size, pixels, "raw", "L", 0, 1).frombytes(frame, "jpeg", "L", "", scale, 0)
    except ValueError:  # truncated, or without its last marker: a file may end so, bytes in memory may not
        with Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
            if image.size != (columns, rows) or image.mode != "L":
                raise RejectedImageError("frame_mismatch", f"the JPEG frame is {image.size} {image.mode}") from None
            image.draft("L", size)
            return np.asarray(image)
    return pixels


def _scale(rows: int, columns: int, least: tuple[int, int] | None) -> int:
    """The largest of 8, 4, 2, 1 that divides the frame and leaves it at least as large as asked."""
    if least is None:
        return 1
    fits = (
        scale
        for scale in (8, 4, 2)
        if rows % scale == columns % scale == 0 and rows // scale >= least[0] and columns // scale >= least[1]
    )
    return next(fits, 1)
