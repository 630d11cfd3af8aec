"""What a file says it is, read without its pixels: to find the row of a label table that it belongs to."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.filereader import read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.files import open_regular
from pneumo_fast.quiet import quiet_pydicom
from pneumo_fast.radiograph.full_header import parse_dataset
from pneumo_fast.radiograph.header import Header
from pneumo_fast.radiograph.metadata import text_of
from pneumo_fast.radiograph.rejection import NO_PIXELS, rejecting
from pneumo_fast.radiograph.selection import Selection

HEAD_BYTES: Final = 1 << 20
"""Most headers end long before; of others the whole file is read."""
COLUMNS: Final = 0x00280011
"""The last element that is asked for (PS3.6)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is asked of a file."""

    path: str
    """As it was given: relative to the images folder."""
    value: str
    """Of the attribute, without padding; empty where there is none, or no DICOM header."""
    series: int
    """Series Number; 0 where there is none that can be parsed."""
    instance: int
    """Instance Number; the same."""
    unwanted: tuple[str, str] | None
    """Reason and detail, where it is no image, or the selection refuses it."""


def read_identity(folder: Path, path: str, attribute: str, selection: Selection, max_bytes: int) -> Identity:
    """Read a file's header; one that cannot be read has no value.

    Parameters
    ----------
    attribute : str
        Keyword of a text attribute, for instance ``AccessionNumber``.
    max_bytes : int
        How large a deflated data set may become.
    """
    try:
        with quiet_pydicom(), rejecting("not_dicom", "no DICOM data set could be read"):
            header = _read_head(folder / path, max_bytes)
            value = str(header.get(attribute) or "").strip(" \0")
            series, instance = _whole(header, "SeriesNumber"), _whole(header, "InstanceNumber")
            return Identity(path, value, series, instance, _refusal(header, selection))
    except RejectedImageError:
        return Identity(path, "", 0, 0, None)


def _read_head(path: Path, max_bytes: int) -> Header:
    with open_regular(path, max_bytes) as file:
        head, size = file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size
        if DeflatedExplicitVRLittleEndian.encode() not in head:
            reached, stop_when = _until_columns()
            header: Header = read_partial(io.BytesIO(head), stop_when=stop_when, force=True)
            if reached or size <= len(head):
                return header
        return parse_dataset(head + file.read(), max_bytes)


def _until_columns() -> tuple[list[int], Callable[[int, str | None, int], bool]]:
    """Where reading has stopped, if it has, and what makes it stop there."""
    reached: list[int] = []

    def is_past(tag: int, _vr: str | None, _length: int) -> bool:
        if tag > COLUMNS:
            reached.append(tag)
        return bool(reached)

    return reached, is_past


def _whole(header: Header, keyword: str) -> int:
    text = text_of(header, keyword)
    return int(text) if re.fullmatch(r"-?\d{1,12}", text) else 0  # an IS has 12 characters at most (PS3.5 6.2)


def _refusal(header: Header, selection: Selection) -> tuple[str, str] | None:
    if "Rows" not in header or "Columns" not in header:
        return NO_PIXELS
    try:
        selection.check(header)
    except RejectedImageError as error:
        return error.reason, error.detail
    return None
