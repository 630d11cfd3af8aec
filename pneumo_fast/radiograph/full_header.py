"""Reads a DICOM file of any kind into a header, by pydicom; kept apart so that others need not import it."""

from __future__ import annotations

import io
import zlib
from typing import Final

from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.plain_header import PIXEL_DATA, PREFIX

_BLOCK: Final = 1 << 20


def parse_dataset(data: bytes, max_bytes: int = 1 << 31) -> Dataset:
    """Parse a file's bytes by pydicom, whatever kind they are of.

    Parameters and errors are those of :func:`pneumo_fast.radiograph.header.parse_header`.
    """
    _check_inflated(data, max_bytes)
    try:
        return _read_to_pixels(data, force=False)
    except InvalidDicomError:
        header = _read_to_pixels(data, force=True)
    if "SOPClassUID" not in header and not ("PixelData" in header and "Rows" in header):
        raise RejectedImageError("not_dicom", "no preamble, and nothing of DICOM where it would be")
    return header


def _read_to_pixels(data: bytes, *, force: bool) -> Dataset:
    """Read by pydicom, up to and with the pixel data: what comes after them is often rubbish."""
    begun = False

    def is_past(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal begun
        begun, past = begun or tag == PIXEL_DATA, begun
        return past

    header: Dataset = read_partial(io.BytesIO(data), stop_when=is_past, force=force)
    if begun and "PixelData" not in header:
        raise RejectedImageError("corrupt", "the file ends inside the pixel data")
    return header


def _check_inflated(data: bytes, max_bytes: int) -> None:
    """Refuse a deflated data set that a few bytes blow up beyond all measure."""
    if DeflatedExplicitVRLittleEndian.encode() not in data:
        return
    stream = io.BytesIO(data)
    stream.seek(PREFIX if data[128:PREFIX] == b"DICM" else 0)  # where pydicom begins
    read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _vr, _n: tag >> 16 != 2)
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    packed, size = stream.read(), 0
    while packed and not inflating.eof:
        size += len(inflating.decompress(packed, _BLOCK))
        packed = inflating.unconsumed_tail
        if size > max_bytes:
            raise RejectedImageError("too_large", f"the deflated data set is larger than {max_bytes} bytes")
