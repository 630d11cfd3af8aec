"""Plain ``.npy`` files, version 1.0, little-endian and in C order, written whole and read without unpickling."""

from __future__ import annotations

import hashlib
import io
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
    except ValueError as error:
        raise DatasetError(f"shard {path} has no valid .npy header ({error}): run convert again") from error
    if fortran_order or dtype.hasobject:
        raise DatasetError(f"shard {path} is not a plain array in C order: run convert again")
    return file.tell(), shape, dtype
