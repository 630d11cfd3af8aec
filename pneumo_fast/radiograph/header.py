"""Reads a DICOM file into a header: by a shortcut where it is of the commonest kind, else by pydicom.

A radiograph stored as JPEG Baseline takes two milliseconds to decode, and pydicom half a millisecond to parse. The
shortcut walks the top level of such a file and turns the elements that this package asks for into plain values. At
the first sign of anything else (another transfer syntax, a sequence of undefined length, tags out of order, an odd
VR, a value it cannot parse) it steps back and pydicom reads the file. A test holds both equal.
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.plain_header import GREY, parse_plain


class Header(Protocol):
    """What is asked of a header: a :class:`pydicom.Dataset`, or a mapping by keyword with the same values."""

    def get(self, key: str, /) -> Any:
        """The value of an attribute, by its keyword; None where it is absent."""

    def __contains__(self, key: str, /) -> bool:
        """Whether an attribute is there."""


BYTES_PER_PIXEL: Final = 8  # of a deflated data set: far more than any pixels need


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
    from pneumo_fast.radiograph.full_header import parse_dataset  # noqa: PLC0415  # see frame.py

    return parse_dataset(data, max_bytes)


def has_several(value: Any) -> bool:
    """Whether a header has several values; pydicom has a list type of its own for them."""
    return isinstance(value, MutableSequence | tuple)


def first_number(header: Header, keyword: str) -> float | None:
    """The first value of a numeric attribute; None where it is absent or empty.

    Raises
    ------
    RejectedImageError
        ``bad_header`` for infinity and for what is no number.
    """
    value = header.get(keyword)
    if has_several(value):
        value = value[0] if len(value) else None
    if value is None or str(value).strip() == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise RejectedImageError("bad_header", f"{keyword} is not a finite number")
    return number


Stored = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame that has been decoded; each array has the shape (rows, columns) or (rows, columns, 3)."""

    stored: Stored
    """Values within Bits Stored."""
    words: Stored
    """What the decoder gave: the same array, unless there was something above Bits Stored."""
    notes: tuple[str, ...]


COLOUR: Final = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelFormat:
    """How the pixels are stored (PS3.3 C.7.6.3); what sloppy writers leave out has its obvious value."""

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    """Bits, as are ``stored`` and ``high``."""
    stored: int
    high: int
    signed: bool
    notes: tuple[str, ...]
    """``no_`` and the keyword of every attribute that was left out and assumed."""

    @classmethod
    def of(cls, header: Header) -> PixelFormat:
        """Read it from a header; raises whatever pydicom raises on values that are no numbers."""
        allocated = int(header.get("BitsAllocated"))
        stored = int(_or_default(header, "BitsStored", allocated))
        expected = ("SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "HighBit", "PixelRepresentation")
        return cls(
            rows=int(header.get("Rows")),
            columns=int(header.get("Columns")),
            samples=int(_or_default(header, "SamplesPerPixel", 1)),
            photometric=str(_or_default(header, "PhotometricInterpretation", "MONOCHROME2")).strip().upper(),
            allocated=allocated,
            stored=stored,
            high=int(_or_default(header, "HighBit", stored - 1)),
            signed=int(_or_default(header, "PixelRepresentation", 0)) == 1,
            notes=tuple(f"no_{keyword}" for keyword in expected if _is_empty(header.get(keyword))),
        )

    @property
    def is_grey(self) -> bool:
        """Whether the image has one channel, from black to white or the reverse; else it is stored in colour."""
        return self.photometric in GREY

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), or (rows, columns, samples) for more than one sample."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)


def _is_empty(value: object) -> bool:
    return value is None or value == ""


def _or_default(header: Header, keyword: str, default: object) -> str:
    value = header.get(keyword)
    return str(default if _is_empty(value) else value)
