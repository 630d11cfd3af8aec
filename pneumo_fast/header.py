"""Reads a DICOM file into a header, by pydicom; by a shortcut where the file is of the common plain kind.

The shortcut walks the top level of an explicit little-endian data set and keeps the elements that this package
asks for, in a fifth of the time. At the first sign of anything else (a sequence of undefined length, tags out of
order, an odd VR) it steps back and pydicom reads the file. A test holds both equal.
"""

from __future__ import annotations

import io
import struct
from typing import Final

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pneumo_fast.errors import RejectedImageError

KEYWORDS: Final = (
    "SOPClassUID", "SOPInstanceUID", "SeriesDescription", "PatientSex", "PatientAge", "BodyPartExamined",
    "ViewPosition", "ImagerPixelSpacing", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "BurnedInAnnotation", "WindowCenter",
    "WindowWidth", "RescaleIntercept", "RescaleSlope", "VOILUTFunction", "PresentationLUTShape", "PixelData",
)  # fmt: skip
"""Every attribute that is ever asked for and is no sequence, LUT or palette."""
_WANTED: Final = {pydicom.datadict.tag_for_keyword(keyword) for keyword in KEYWORDS}
_PALETTES: Final = range(0x00281101, 0x00282000 + 1)
_PIXEL_DATA: Final = 0x7FE00010
_TRANSFER_SYNTAX: Final = 0x00020010
_ITEM, _DELIMITER = 0xFFFEE000, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_VRS: Final = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT_VRS: Final = {
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
}  # fmt: skip
_NOT_PLAIN: Final = {ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
_PREFIX: Final = 132

_short = struct.Struct("<HH2sH").unpack_from
_long = struct.Struct("<I").unpack_from
_item = struct.Struct("<HHI").unpack_from


def parse_header(data: bytes) -> pydicom.Dataset:
    """Parse a file's bytes; without preamble or file meta where the pixel attributes are found all the same.

    Raises
    ------
    RejectedImageError
        ``not_dicom``.
    Exception
        Whatever pydicom raises on damaged files.
    """
    header = parse_plain(data)
    if header is not None:
        return header
    try:
        return pydicom.dcmread(io.BytesIO(data))
    except InvalidDicomError:
        header = pydicom.dcmread(io.BytesIO(data), force=True)
    if "PixelData" not in header or "Rows" not in header:
        raise RejectedImageError("not_dicom", "no preamble, and no image attributes where they would be")
    return header


def parse_plain(data: bytes) -> pydicom.Dataset | None:
    """The shortcut; None where the file is not of the plain kind."""
    if data[128:_PREFIX] != b"DICM":
        return None
    try:
        elements = _walk(data)
    except (struct.error, _NotPlainError):
        return None
    syntax = elements.pop(_TRANSFER_SYNTAX, None)
    if syntax is None or syntax.value is None:
        return None
    header = pydicom.Dataset({BaseTag(tag): element for tag, element in elements.items()})
    header.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax.value.rstrip(b"\0 ").decode("ascii", "replace"))
    return None if header.file_meta.TransferSyntaxUID in _NOT_PLAIN else header


class _NotPlainError(Exception):
    """The shortcut does not read this kind of file."""


def _walk(data: bytes) -> dict[int, RawDataElement]:
    """Wanted elements of the top level, up to and with the pixel data."""
    elements: dict[int, RawDataElement] = {}
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
        if tag in _WANTED or tag == _TRANSFER_SYNTAX:
            value = data[position : position + length]
            elements[tag] = RawDataElement(BaseTag(tag), vr.decode(), length, value, position, False, True)  # noqa: FBT003
        if tag == _PIXEL_DATA:
            break
        position += length
    return elements


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
