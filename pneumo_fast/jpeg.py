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
    with Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
        if image.size != (columns, rows) or image.mode != "L":
            raise RejectedImageError("frame_mismatch", f"the JPEG frame is {image.size} {image.mode}")
        if (scale := _scale(rows, columns, least)) > 1:
            image.draft("L", (columns // scale, rows // scale))
        return np.asarray(image)


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
