"""A shortcut past pydicom for the commonest kind of file: the header of plain JPEG Baseline radiographs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

WANTED: Final = {
    0x00080016: "SOPClassUID", 0x00080018: "SOPInstanceUID", 0x00080060: "Modality", 0x0008103E: "SeriesDescription",
    0x00100040: "PatientSex", 0x00101010: "PatientAge", 0x00180015: "BodyPartExamined", 0x00185101: "ViewPosition",
    0x00181164: "ImagerPixelSpacing", 0x00280002: "SamplesPerPixel", 0x00280004: "PhotometricInterpretation",
    0x00280006: "PlanarConfiguration", 0x00280008: "NumberOfFrames", 0x00280010: "Rows", 0x00280011: "Columns",
    0x00280030: "PixelSpacing", 0x00280034: "PixelAspectRatio", 0x00280100: "BitsAllocated", 0x00280101: "BitsStored",
    0x00280102: "HighBit", 0x00280103: "PixelRepresentation", 0x00280120: "PixelPaddingValue",
    0x00280121: "PixelPaddingRangeLimit", 0x00280301: "BurnedInAnnotation", 0x00280300: "QualityControlImage",
    0x00281050: "WindowCenter", 0x00281051: "WindowWidth", 0x00281052: "RescaleIntercept", 0x00281053: "RescaleSlope",
    0x00281056: "VOILUTFunction", 0x20500020: "PresentationLUTShape", 0x7FE00010: "PixelData",
}  # fmt: skip
"""Keywords by tag (PS3.6): every attribute asked for when pixels are read that is no sequence, LUT or palette."""
_PALETTES: Final = range(0x00281101, 0x00282000 + 1)
_LUTS: Final = {0x00283000, 0x00283010}
"""Modality and VOI LUT Sequence; VR UN, in which archives pass on what they do not know, hides sequences."""
PIXEL_DATA: Final = 0x7FE00010
_TRANSFER_SYNTAX: Final = 0x00020010
JPEG_BASELINE: Final = b"1.2.840.10008.1.2.4.50"
_ITEM, _DELIMITER = 0xFFFEE000, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_VRS: Final = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT_VRS: Final = {
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
}  # fmt: skip
_TEXT_VRS: Final = {b"CS", b"LO", b"UI", b"AS", b"SH"}
PREFIX: Final = 132
GREY: Final = {"MONOCHROME1", "MONOCHROME2"}
"""Photometric interpretations of one grey channel."""

_short = struct.Struct("<HH2sH").unpack_from
_long = struct.Struct("<I").unpack_from
_item = struct.Struct("<HHI").unpack_from


def parse_plain(data: bytes) -> Mapping[str, Any] | None:
    """The shortcut; None where the file is not of the plain kind."""
    if data[128:PREFIX] != b"DICM":
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
    position, last, is_baseline = PREFIX, 0, False
    while position < len(data):
        group, number, vr, length = _short(data, position)
        tag = group << 16 | number
        position += 8
        if vr in _LONG_VRS:
            (length,) = _long(data, position)
            position += 4
        elif vr not in _SHORT_VRS:
            raise _NotPlainError
        if tag <= last or tag in _PALETTES or tag in _LUTS:
            raise _NotPlainError
        last = tag
        if tag == PIXEL_DATA and length == _UNDEFINED:
            length = _fragments_end(data, position) - position
        if length == _UNDEFINED or position + length > len(data):
            raise _NotPlainError
        if tag == _TRANSFER_SYNTAX:
            _check_syntax(data[position : position + length])
            is_baseline = True
        if (keyword := WANTED.get(tag)) is not None:
            header[keyword] = _value(vr, data[position : position + length])
        if tag == PIXEL_DATA and is_baseline and header.get("PhotometricInterpretation") in GREY:
            return header
        position += length
    raise _NotPlainError


def _check_syntax(value: bytes) -> None:
    if value.rstrip(b"\0 ") != JPEG_BASELINE:
        raise _NotPlainError


def _value(vr: bytes, value: bytes) -> Any:
    """One value, or a list of several, as pydicom gives it: numbers as numbers, text stripped of its padding."""
    if vr in {b"OB", b"OW"}:
        return value
    if vr in {b"US", b"SS"}:
        numbers = list(struct.unpack(f"<{len(value) // 2}{'H' if vr == b'US' else 'h'}", value))
        return numbers[0] if len(numbers) == 1 else numbers or None
    text = value.decode("ascii").rstrip("\0 ")
    if vr in _TEXT_VRS:
        if "\\" in text or "\x1b" in text:  # several values, or the escapes of ISO 2022 to another character set
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
