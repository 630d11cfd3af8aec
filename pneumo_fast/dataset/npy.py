"""Plain ``.npy`` files, version 1.0, little-endian and in C order, written whole and read without unpickling."""

from __future__ import annotations

import hashlib
import io
import tokenize
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.errors import DatasetError
from pneumo_fast.files import atomic_file

SCALES: Final = {"float16": 1.0, "uint8": 255.0}
"""Stored value of white, by stored data type; black is 0."""

HALF_SHIFT: Final = 13
HALF_FACTOR: Final = 2.0**112
"""The bits of a float16 that is not negative, moved left by the one, are those of a float32 so many times smaller:
the fastest exact cast. float32 has 13 more bits of mantissa, and an exponent bias that is higher by 112."""
_TO_HALF: Final = np.float32(1 / HALF_FACTOR)
_SHIFT: Final = np.int32(HALF_SHIFT)
_ONE: Final = np.int32(1)
_BELOW_HALF: Final = np.int32((1 << (HALF_SHIFT - 1)) - 1)  # of the last bit that stays: ties go to even
_BELOW_NORMAL: Final = np.uint32(np.float32(2.0**-14).view(np.uint32) - 1)
"""How many numbers of float32 lie between 0 and the smallest normal number of float16."""
Images = NDArray[np.float16] | NDArray[np.uint8]


def write_array(path: Path, images: Images) -> None:
    """Write one ``.npy`` file atomically; nothing is flushed to disk.

    Parameters
    ----------
    images : ndarray of float16 or uint8, C order
        A shard (rows, size, size), or one image (size, size) in the folder layout.
    """
    with atomic_file(path, sync=False) as file:
        file.write(_header(images.shape, images.dtype))
        file.write(images.data.cast("B"))


def image_digest(image: Images) -> bytes:
    """SHA-256 of the bytes of one stored image, in C order: 32 bytes."""
    return hashlib.sha256(image.data.cast("B")).digest()


def pixel_hash(digest: bytes) -> str:
    """What the index says of an image's pixels: the first 16 hexadecimal digits of its digest, ``""`` without one."""
    return digest.hex()[:16]


def shard_checksum(header: bytes, digests: Iterable[bytes]) -> str:
    """Checksum of a shard, in hexadecimal: SHA-256 of its header and, one after another, of its images' digests.

    So every image is hashed once, for itself and for its shard.

    Parameters
    ----------
    header : bytes
        What the file begins with, up to the pixels.
    digests : iterable of bytes
        Of :func:`image_digest`, in the order of the images.
    """
    return hashlib.sha256(header + b"".join(digests)).hexdigest()


class ShardWriter:
    """Writes a shard image by image: each is still in the processor's cache, and one is all that is kept in memory.

    The header counts the images and comes first, so it is written for as many as are expected. Where fewer came it is
    replaced: its length is the same. Without any image there is no file.

    Parameters
    ----------
    path : Path
        The file appears there, whole, when the block ends without an error.
    expected : int
        Images that are likely to come.
    """

    def __init__(self, path: Path, expected: int) -> None:
        self._path, self._expected = path, expected
        self._digests: list[bytes] = []
        self._files = ExitStack()

    def __enter__(self) -> ShardWriter:
        """Return the writer itself."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Give the file its name, or remove it after an error."""
        self._files.__exit__(*error)

    def append(self, image: Images, digest: bytes) -> None:
        """Write one more image: float16 or uint8, shape (size, size), C order; and note its digest."""
        if not self._digests:
            self._file = self._files.enter_context(atomic_file(self._path, sync=False))
            self._form = image.shape, image.dtype
            self._file.write(self._header(self._expected))
        self._file.write(image.data.cast("B"))
        self._digests.append(digest)

    def finish(self) -> tuple[int, str]:
        """Complete the file; nothing is flushed to disk.

        Returns
        -------
        bytes : int
            Size of the file; 0 where there is none.
        checksum : str
            Of :func:`shard_checksum`; empty where there is no file.
        """
        if not self._digests:
            return 0, ""
        size, header = self._file.tell(), self._header(len(self._digests))
        if len(self._digests) != self._expected:
            self._file.seek(0)
            self._file.write(header)
        return size, shard_checksum(header, self._digests)

    def _header(self, rows: int) -> bytes:
        shape, dtype = self._form
        return _header((rows, *shape), dtype)


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """A ``.npy`` header of version 1.0, with room for more rows."""
    header = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def store_unit(values: NDArray[np.float32], out: Images) -> tuple[float, float]:
    """Store values from [0, 1]: as float16, or as uint8 scaled to 0..255; rounded to nearest, ties to even.

    Parameters
    ----------
    values : ndarray of float32, in [0, 1], never NaN
    out : ndarray of float16 or uint8, of the same shape, C order

    Returns
    -------
    tuple of float
        Sum and sum of squares, in float64, of the values that were stored, rounded, in [0, 1]: taken while they are
        in the processor's cache.
    """
    if out.dtype == np.uint8:
        levels = np.rint(values * np.float32(SCALES["uint8"]))
        out[...] = levels
        return _sums(levels, SCALES["uint8"])
    bits = (values * _TO_HALF).view(np.int32)  # round in integers: NumPy's own conversion takes twice as long
    rounded = bits >> _SHIFT
    rounded &= _ONE
    rounded += bits
    rounded += _BELOW_HALF
    rounded >>= _SHIFT  # the bits of the float16
    subnormal = np.flatnonzero((values.view(np.int32) - _ONE).view(np.uint32) < _BELOW_NORMAL)
    if subnormal.size:  # rare; the product has rounded them once already
        rounded.flat[subnormal] = values.flat[subnormal].astype(np.float16).view(np.uint16)
    out.view(np.uint16)[...] = rounded
    rounded <<= _SHIFT
    return _sums(rounded.view(np.float32), 1 / HALF_FACTOR)


def _sums(values: NDArray[Any], white: float) -> tuple[float, float]:
    wide = values.astype(np.float64).ravel()
    return float(wide.sum()) / white, float(wide @ wide) / white**2


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
