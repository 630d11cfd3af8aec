"""What may be known of an image: an allow-list, parsed leniently and bounded, so that no free text comes through."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, get_args

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.header import Header, PixelFormat
from pneumo_fast.radiograph.rejection import rejecting
from pneumo_fast.vocabulary import BodyPart, Modality, View

VIEWS: Final[tuple[View, ...]] = get_args(View)
_SYNONYMS: Final = {"LAT": "LATERAL", "OBL": "OBLIQUE"}
BODY_PARTS: Final[tuple[BodyPart, ...]] = get_args(BodyPart)
MODALITIES: Final[tuple[Modality, ...]] = get_args(Modality)
OLDEST: Final = 120
SQUARE: Final = 0.005  # deviation of a pixel's height from its width that rounding explains
_YEARS: Final = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 1 / 52.18, "D": 1 / 365.25}


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """Attributes of one image; text is ``""`` where unknown or not plausible."""

    modality: str = ""
    """One of :data:`MODALITIES`, or ``""``."""
    sex: str = ""
    """``M``, ``F``, ``O`` or ``""``."""
    age: str = ""
    """Whole years, ``0`` to ``120``, or ``""``."""
    view: str = ""
    """One of :data:`VIEWS`, or ``""``."""
    body_part: str = ""
    """One of :data:`BODY_PARTS`, or ``""``."""
    height: int
    """Of the source, in pixels, as is ``width``."""
    width: int
    spacing_mm: str = ""
    """Distance between rows, in millimetres at the detector where known, or ``""``; with that between columns behind a
    backslash, as DICOM writes it, where pixels are not square."""
    pixel_height: float = 1.0
    """Height of a source pixel in widths of it: 1 where it is square, as it counts where nothing is known."""
    bits_stored: int
    photometric: str
    burned_in: str = ""
    """Burned In Annotation: ``YES``, ``NO`` or ``""``."""


def read_metadata(header: Header, form: PixelFormat) -> Metadata:
    """Read the allow-listed attributes of a header whose image attributes have been checked."""
    return Metadata(
        modality=modality(header),
        sex=_one_of(header, "PatientSex", ("M", "F", "O")),
        age=parse_age(text_of(header, "PatientAge")),
        view=view(header),
        body_part=body_part(header),
        height=form.rows,
        width=form.columns,
        spacing_mm=_spacing_text(header),
        pixel_height=_pixel_height(header),
        bits_stored=form.stored,
        photometric=form.photometric,
        burned_in=_one_of(header, "BurnedInAnnotation", ("YES", "NO")),
    )


def modality(header: Header) -> str:
    """One of :data:`MODALITIES`, or ``""``."""
    return _one_of(header, "Modality", MODALITIES)


def view(header: Header) -> str:
    """One of :data:`VIEWS`, from View Position or else from a word in Series Description; or ``""``."""
    return _view_in(text_of(header, "ViewPosition")) or _view_in(text_of(header, "SeriesDescription"))


def body_part(header: Header) -> str:
    """One of :data:`BODY_PARTS`, or ``""``."""
    return _one_of(header, "BodyPartExamined", BODY_PARTS)


def marks(header: Header) -> tuple[str, ...]:
    """Notes on whose image it is: of a phantom, or for quality control (PS3.3 C.7.6.1)."""
    return ("quality_control_image",) if _one_of(header, "QualityControlImage", ("YES", "BOTH")) else ()


def parse_age(text: str) -> str:
    """Whole years from an age string: ``051Y``, ``006M`` and the bare ``51`` are understood (PS3.5 6.2, AS)."""
    found = re.fullmatch(r"(\d{1,4})([YMWD]?)", text)
    if not found:
        return ""
    years = int(int(found[1]) * _YEARS[found[2]])
    return str(years) if years <= OLDEST else ""


def _view_in(description: str) -> str:
    """The one view that stands as a word of its own in a text, as in ``view: AP``; two of them say nothing."""
    words = (_SYNONYMS.get(word, word) for word in re.findall(r"[A-Z]+", description))
    views = {word for word in words if word in VIEWS}
    return views.pop() if len(views) == 1 else ""


def _pixel_height(header: Header) -> float:
    """From the spacing, else from Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7); what rounding explains is 1."""
    down, across = _spacing(header) or _pair(header, "PixelAspectRatio", 1.0, 1e6) or (1.0, 1.0)
    return 1.0 if abs(down / across - 1.0) <= SQUARE else down / across


def _spacing_text(header: Header) -> str:
    if (found := _spacing(header)) is None:
        return ""
    down, across = found
    return f"{down:g}" if abs(down / across - 1.0) <= SQUARE else f"{down:g}\\{across:g}"


def _spacing(header: Header) -> tuple[float, float] | None:
    """Distance between rows and between columns, in millimetres."""
    return _pair(header, "ImagerPixelSpacing", 0.001, 10.0) or _pair(header, "PixelSpacing", 0.001, 10.0)


def _pair(header: Header, keyword: str, least: float, most: float) -> tuple[float, float] | None:
    """Two plausible numbers, or one that stands for both."""
    value = header.get(keyword)
    try:
        numbers = [float(number) for number in value] if value else []
    except (TypeError, ValueError):
        return None
    if not numbers or not all(least <= number <= most for number in numbers[:2]):
        return None
    return numbers[0], numbers[min(1, len(numbers) - 1)]


def text_of(header: Header, keyword: str) -> str:
    """An attribute in capitals, without padding; ``""`` where it is missing or cannot be parsed."""
    try:
        with rejecting("bad_header", "an attribute cannot be parsed"):  # as pydicom does when first asked for it
            return str(header.get(keyword) or "").strip().upper()
    except RejectedImageError:
        return ""


def _one_of(header: Header, keyword: str, allowed: tuple[str, ...]) -> str:
    value = text_of(header, keyword)
    return value if value in allowed else ""
