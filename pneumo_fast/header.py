"""Reads a DICOM file into a header, by pydicom; by a shortcut where the file is of the commonest kind.

A radiograph stored as JPEG Baseline takes two milliseconds to decode, and pydicom half a millisecond to parse. The
shortcut walks the top level of such a file and turns the elements that this package asks for into plain values. At
the first sign of anything else (another transfer syntax, a sequence of undefined length, tags out of order, an odd
VR, a value it cannot parse) it steps back and pydicom reads the file. A test holds both equal.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final, Protocol

from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from pneumo_fast.errors import RejectedImageError

KEYWORDS: Final = (
    "SOPClassUID", "SOPInstanceUID", "SeriesDescription", "PatientSex", "PatientAge", "BodyPartExamined",
    "ViewPosition", "ImagerPixelSpacing", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "BurnedInAnnotation", "WindowCenter",
    "WindowWidth", "RescaleIntercept", "RescaleSlope", "VOILUTFunction", "PresentationLUTShape", "PixelData",
)  # fmt: skip
"""Every attribute that is ever asked for and is no sequence, LUT or palette."""
_WANTED: Final = {tag_for_keyword(keyword): keyword for keyword in KEYWORDS}
_PALETTES: Final = range(0x00281101, 0x00282000 + 1)
_PIXEL_DATA: Final = 0x7FE00010
_TRANSFER_SYNTAX: Final = 0x00020010
_JPEG_BASELINE: Final = JPEGBaseline8Bit.encode()
_ITEM, _DELIMITER = 0xFFFEE000, 0xFFFEE0DD
_GREY: Final = {"MONOCHROME1", "MONOCHROME2"}
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_VRS: Final = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT_VRS: Final = {
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
}  # fmt: skip
_TEXT_VRS: Final = {b"CS", b"LO", b"UI", b"AS", b"SH"}
_PREFIX: Final = 132
_BLOCK: Final = 1 << 20

_short = struct.Struct("<HH2sH").unpack_from
_long = struct.Struct("<I").unpack_from
_item = struct.Struct("<HHI").unpack_from


class Header(Protocol):
    """What is asked of a header: a :class:`pydicom.Dataset`, or a mapping by keyword with the same values."""

    def get(self, key: str, /) -> Any:
        """The value of an attribute, by its keyword; None where it is absent."""

    def __contains__(self, key: str, /) -> bool:
        """Whether an attribute is there."""


def parse_header(data: bytes, max_bytes: int = 1 << 31) -> Header:
    """Parse a file's bytes; without preamble or file meta where the attributes of an object are found all the same.

    Parameters
    ----------
    data : bytes
    max_bytes : int
        How large a deflated data set may become.

    Raises
    ------
    RejectedImageError
        ``not_dicom``, ``corrupt`` where the file ends inside the pixel data, ``too_large``.
    Exception
        Whatever pydicom raises on damaged files.
    """
    plain = parse_plain(data)
    if plain is not None:
        return plain
    _check_inflated(data, max_bytes)
    try:
        return _read_to_pixels(data, force=False)
    except InvalidDicomError:
        header = _read_to_pixels(data, force=True)
    if "SOPClassUID" not in header and not ("PixelData" in header and "Rows" in header):
        raise RejectedImageError("not_dicom", "no preamble, and nothing of DICOM where it would be")
    return header


def _read_to_pixels(data: bytes, *, force: bool) -> Header:
    """Read by pydicom, up to and with the pixel data: what comes after them is often rubbish."""
    begun = False

    def is_past(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal begun
        begun, past = begun or tag == _PIXEL_DATA, begun
        return past

    header: Header = read_partial(io.BytesIO(data), stop_when=is_past, force=force)
    if begun and "PixelData" not in header:
        raise RejectedImageError("corrupt", "the file ends inside the pixel data")
    return header


def _check_inflated(data: bytes, max_bytes: int) -> None:
    """Refuse a deflated data set that a few bytes blow up beyond all measure."""
    if data[128:_PREFIX] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() not in data[:4096]:
        return
    stream = io.BytesIO(data)
    stream.seek(_PREFIX)
    read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _vr, _n: tag >> 16 != 2)
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    packed, size = stream.read(), 0
    while packed and not inflating.eof:
        size += len(inflating.decompress(packed, _BLOCK))
        packed = inflating.unconsumed_tail
        if size > max_bytes:
            raise RejectedImageError("too_large", f"the deflated data set is larger than {max_bytes} bytes")


def first_number(header: Header, keyword: str) -> float | None:
    """The first value of a numeric attribute; None where it is absent or empty.

    Raises
    ------
    RejectedImageError
        ``bad_header`` for infinity and for what is no number.
    """
    value = header.get(keyword)
    if isinstance(value, list | tuple | MultiValue):
        value = value[0] if len(value) else None
    if value is None or str(value).strip() == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise RejectedImageError("bad_header", f"{keyword} is not a finite number")
    return number


def parse_plain(data: bytes) -> Mapping[str, Any] | None:
    """The shortcut; None where the file is not of the plain kind."""
    if data[128:_PREFIX] != b"DICM":
        return None
    try:
        return _walk(data)
    except (struct.error, ValueError, _NotPlainError):
        return None


class _NotPlainError(Exception):
    """The shortcut does not read this kind of file."""


def _walk(data: bytes) -> dict[str, Any]:
    """Wanted elements of the top level by keyword, up to and with the pixel data."""
    header: dict[str, Any] = {}
    position, last = _PREFIX, 0
    while position < len(data):
        group, number, vr, length = _short(data, position)
        tag = group << 16 | number
        position += 8
        if vr in _LONG_VRS:
            (length,) = _long(data, position)
            position += 4
        elif vr not in _SHORT_VRS:
            raise _NotPlainError
        if tag <= last or tag in _PALETTES:
            raise _NotPlainError
        last = tag
        if tag == _PIXEL_DATA and length == _UNDEFINED:
            length = _fragments_end(data, position) - position
        if length == _UNDEFINED or position + length > len(data) or (vr == b"SQ" and group == 0x0028):
            raise _NotPlainError
        if tag == _TRANSFER_SYNTAX and data[position : position + length].rstrip(b"\0 ") != _JPEG_BASELINE:
            raise _NotPlainError
        if (keyword := _WANTED.get(tag)) is not None:
            header[keyword] = _value(vr, data[position : position + length])
        if tag == _PIXEL_DATA and header.get("PhotometricInterpretation") in _GREY:
            return header
        position += length
    raise _NotPlainError


def _value(vr: bytes, value: bytes) -> Any:
    """One value, or a list of several, as pydicom gives it: numbers as numbers, text stripped of its padding."""
    if vr in {b"OB", b"OW"}:
        return value
    if vr in {b"US", b"SS"}:
        numbers = list(struct.unpack(f"<{len(value) // 2}{'H' if vr == b'US' else 'h'}", value))
        return numbers[0] if len(numbers) == 1 else numbers
    text = value.decode("ascii").rstrip("\0 ")
    if vr in _TEXT_VRS:
        if "\\" in text:
            raise _NotPlainError
        return text
    if vr not in {b"DS", b"IS"}:
        raise _NotPlainError
    numbers = [float(part) for part in text.split("\\")] if text else []
    return numbers[0] if len(numbers) == 1 else numbers or None


def _fragments_end(data: bytes, position: int) -> int:
    """Where encapsulated pixel data end: at their sequence delimiter (PS3.5 A.4)."""
    while True:
        group, number, length = _item(data, position)
        tag = group << 16 | number
        if tag == _DELIMITER:
            return position
        if tag != _ITEM or length == _UNDEFINED:
            raise _NotPlainError
        position += 8 + length
