"""The header of a source image, as far as its results repeat it: of which patient and study they are.

What a standard demands is there, empty where the source has none; what a source has and a standard forbids is
corrected, or left out. A note says which attribute it was, never its value.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.valuerep import DA, TM, validate_value

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.files import read_regular
from pneumo_fast.quiet import quiet
from pneumo_fast.radiograph.full_header import parse_dataset
from pneumo_fast.radiograph.rejection import rejecting

NEEDED: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
"""Without these there is nothing to refer to."""
IDENTITY: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "StudyID", "ReferringPhysicianName",
)  # fmt: skip
"""Demanded, though perhaps empty (Type 2)."""
OPTIONAL: Final = ("PatientAge", "StudyDescription", "IssuerOfPatientID")
quietly: Final = partial(quiet, "highdicom", "pydicom", below=logging.CRITICAL + 1)
"""Lets nothing out that they say: they quote values of the patient module."""
NO_DICOM: Final = "no_source_object"
"""The reason of a file that no result can refer to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What results say of the image that they are of."""

    dataset: pydicom.Dataset
    """:data:`NEEDED`, :data:`IDENTITY` and, where valid, :data:`OPTIONAL`; text as Unicode."""
    notes: tuple[str, ...]
    """Attributes that were corrected or left out: ``PatientAge_corrected``, ``StudyTime_left_out``."""


def read_source(path: Path, max_bytes: int) -> Source:
    """Read the header of a DICOM file.

    Raises
    ------
    RejectedImageError
        If the file is none that a result can refer to.
    """
    try:
        data = read_regular(path, max_bytes)
    except OSError as error:
        raise RejectedImageError("not_readable", error.strerror or type(error).__name__) from error
    with quietly(), rejecting(NO_DICOM, "no DICOM header could be read"):
        found = parse_dataset(data, max_bytes)
        found.decode()
        return _source(found)


def _source(found: pydicom.Dataset) -> Source:
    """What is valid of a header."""
    dataset, notes = pydicom.Dataset(), []
    for keyword in NEEDED:
        value = _valid(keyword, found.get(keyword))
        if not value:
            raise RejectedImageError(NO_DICOM, f"no valid {keyword}")
        setattr(dataset, keyword, value)
    for keyword in (*IDENTITY, *OPTIONAL):
        given = found.get(keyword)
        value = _valid(keyword, given)
        if not value and (corrected := _corrected(keyword, given)):
            value = corrected
            notes.append(f"{keyword}_corrected")
        elif not value and str(given or "").strip():
            notes.append(f"{keyword}_left_out")
        if value or keyword in IDENTITY:
            setattr(dataset, keyword, value)
    return Source(dataset=dataset, notes=tuple(notes))


def _valid(keyword: str, value: Any) -> str:
    """A value as text; empty where there is none, there are several, or its VR forbids it."""
    text = str(value if value is not None else "").strip(" \0")
    if isinstance(value, pydicom.multival.MultiValue) or _FORBIDDEN.search(text):
        return ""
    if keyword == "PatientSex" and text not in {"M", "F", "O"}:
        return ""
    vr = dictionary_VR(keyword)
    try:
        validate_value(vr, text, config.RAISE)
        if vr in _PARSED:
            _PARSED[vr](text)
    except ValueError:
        return ""
    return text


_PARSED: Final[dict[str, Callable[[str], object]]] = {"DA": DA, "TM": TM}
"""What tells a day that no calendar has."""
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f]|\ufffd")


def _corrected(keyword: str, value: Any) -> str:
    """The value that was meant, where that is plain; else empty."""
    text = str(value or "").strip().upper()
    if keyword == "PatientAge" and (age := re.fullmatch(r"0*(\d{1,3})([YMWD]?)", text)):
        return f"{int(age[1]):03d}{age[2] or 'Y'}"
    if keyword == "PatientSex" and text in {"MALE", "FEMALE", "OTHER"}:
        return text[0]
    return ""
