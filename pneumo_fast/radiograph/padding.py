"""Which pixels are padding: what surrounds the image, shown black and left out of statistics (PS3.3 C.7.5.1.1.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.radiograph.greyscale import WORD_BITS, stored_range
from pneumo_fast.radiograph.header import Decoded, Header, PixelFormat, first_number


def padding(header: Header, form: PixelFormat, decoded: Decoded) -> NDArray[np.bool_] | None:
    """Pixels that hold Pixel Padding Value, or lie between it and the Range Limit.

    A value that Bits Stored can hold is looked for among the values stored. One that they cannot hold, as -32768 with
    12 bits, is looked for among the words that were decoded, bits above Bits Stored and all: to cut it down to Bits
    Stored would make it the value of real pixels. A limit that they cannot hold is ignored beside
    a value that they can.

    Returns
    -------
    ndarray of bool of the shape of the image, or None where the file names no padding
    """
    value, limit = first_number(header, "PixelPaddingValue"), first_number(header, "PixelPaddingRangeLimit")
    if value is None:
        return None
    first, last = int(value), int(value if limit is None else limit)
    if (low := as_stored(first, form)) is not None:
        high = as_stored(last, form)
        return _between(decoded.stored, low, low if high is None else high)
    return _between(decoded.words, _as_word(first, form), _as_word(last, form))


def _between(pixels: NDArray[np.integer], one: int, other: int) -> NDArray[np.bool_]:
    low, high = sorted((one, other))
    return (pixels >= low) & (pixels <= high)


def _width(form: PixelFormat) -> int:
    return max(form.allocated, WORD_BITS)


def _as_word(value: int, form: PixelFormat) -> int:
    """A padding value with the sign that the pixels have: many are written with the wrong one of US and SS."""
    width = _width(form)
    value &= (1 << width) - 1
    return value - (1 << width) if form.signed and value >> (width - 1) else value


def as_stored(value: int, form: PixelFormat) -> int | None:
    """A padding value as the pixels hold it; None where Bits Stored cannot.

    Some writers give a negative value by its bits within Bits Stored alone, as 2096 for -2000 with 12 bits.
    """
    low, high = stored_range(form.stored, signed=form.signed)
    word = _as_word(value, form)
    if form.signed and high < word < 1 << form.stored:
        word -= 1 << form.stored
    return word if low <= word <= high else None
