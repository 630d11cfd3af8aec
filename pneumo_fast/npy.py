"""Plain ``.npy`` files, version 1.0, little-endian and in C order, written whole and read without unpickling."""

from __future__ import annotations

import hashlib
import io
import tokenize
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.errors import DatasetError
from pneumo_fast.files import atomic_file

SCALES: Final = {"float16": 1.0, "uint8": 255.0}
"""Stored value of white, by stored data type; black is 0."""

Images = NDArray[np.float16] | NDArray[np.uint8]


def write_array(path: Path, images: Images, *, sync: bool = True) -> str:
    """Write one ``.npy`` file atomically; return its SHA-256.

    Parameters
    ----------
    images : ndarray of float16 or uint8, C order
        A shard (rows, size, size), or one image (size, size) in the folder layout.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(images))
    digest = hashlib.sha256(header.getvalue())
    pixels = images.data.cast("B")
    digest.update(pixels)
    with atomic_file(path, sync=sync) as file:
        file.write(header.getvalue())
        file.write(pixels)
    return digest.hexdigest()


def store_unit(values: NDArray[np.float32], out: Images) -> None:
    """Store values from [0, 1]: as float16, or as uint8 scaled to 0..255; rounded to nearest, ties to even.

    Parameters
    ----------
    values : ndarray of float32, in [0, 1], never NaN
    out : ndarray of float16 or uint8, of the same shape, C order
    """
    if out.dtype == np.uint8:
        np.rint(values * np.float32(SCALES["uint8"]), out=out, casting="unsafe")
        return
    bits = values.view(np.uint32)  # round in integers: NumPy's own conversion takes nearly three times as long
    rounded = bits >> np.uint32(13)
    rounded &= np.uint32(1)
    rounded += np.uint32(0xFFF)
    rounded += bits
    rounded >>= np.uint32(13)
    rounded -= np.uint32((127 - 15) << 10)  # from the one exponent's bias to the other's
    out.view(np.uint16)[...] = rounded
    tiny = values < np.finfo(np.float16).tiny
    if tiny.any():  # subnormal numbers have another layout
        out[tiny] = values[tiny]


def read_header(file: io.BufferedReader, path: Path) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """Read a ``.npy`` header without ever unpickling: (offset of the data, shape, dtype).

    Raises
    ------
    DatasetError
        If the file is no ``.npy`` file of version 1.0 in C order.
    """
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not version 1.0")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    except (ValueError, SyntaxError, tokenize.TokenError) as error:
        raise DatasetError(f"shard {path} has no valid .npy header ({error}): run convert again") from error
    if fortran_order or dtype.hasobject:
        raise DatasetError(f"shard {path} is not a plain array in C order: run convert again")
    return file.tell(), shape, dtype
