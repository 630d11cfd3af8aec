"""One file, DICOM or PNG or JPEG, becomes one radiograph, or one typed rejection.

Everything a hospital archive holds may come along, so nothing in a file is believed: sizes are checked before
memory is taken, and whatever goes wrong becomes a :class:`RejectedImageError` whose reason can be counted.
Texts of the patient module are never read into a message.
"""

from __future__ import annotations

import errno
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.files import read_regular
from pneumo_fast.quiet import quiet_pydicom
from pneumo_fast.radiograph.frame import by_frame, decode, plain_jpeg
from pneumo_fast.radiograph.greyscale import (
    Curve,
    Linear,
    apply_curve,
    check_photometric,
    grey_of_colour,
    greyscale_curve,
)
from pneumo_fast.radiograph.header import BYTES_PER_PIXEL, Decoded, Header, PixelFormat, first_number, parse_header
from pneumo_fast.radiograph.metadata import Metadata, marks, read_metadata
from pneumo_fast.radiograph.padding import padding
from pneumo_fast.radiograph.pictures import Picture, is_picture, read_picture
from pneumo_fast.radiograph.rejection import NO_PIXELS, OUT_OF_MEMORY, check_size, rejecting
from pneumo_fast.radiograph.resize import fitted_size, place, resize
from pneumo_fast.radiograph.selection import Selection
from pneumo_fast.vocabulary import MAX_PIXELS, Decode, Window

if TYPE_CHECKING:
    from pydicom import Dataset

Least = Callable[[int, int], tuple[int, int] | None]
SUPERSAMPLING: Final = 2  # fast decoding leaves at least twice the pixels that are stored, in each direction


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of a radiograph; by its header alone some of it."""

    padding_pixels: int
    """How many of the stored pixels show no image but padding, all of them 0; by the header those around the image."""
    intensity: str
    """How white was decided: ``range``, ``window`` or ``voi_lut``."""
    notes: tuple[str, ...]
    """Peculiarities that were decided by rule; by the header all but those of decoding."""
    metadata: Metadata
    """What may be known of the image."""
    uid_hash: str
    """16 hexadecimal digits that stand for the SOP Instance UID; ``""`` where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Radiograph(Facts):
    """One radiograph, ready to be stored."""

    pixels: NDArray[np.float32]
    """Shape (size, size), in [0, 1], black is 0."""


def read_radiograph(
    path: Path,
    size: int,
    *,
    decode_mode: Decode = "exact",
    window: Window = "auto",
    max_pixels: int = MAX_PIXELS,
    selection: Selection | None = None,
) -> Radiograph:
    """Read one file, whatever its name ends in.

    Parameters
    ----------
    path : Path
    size : int
        Side of the square that the image is fitted into (see :mod:`pneumo_fast.radiograph.resize`), in pixels.
    decode_mode : "fast", "exact" or "gpu"
        ``fast`` lets libjpeg decode 8-bit JPEG at the smallest scale that is still at least twice the size
        wanted, where the greyscale curve is linear, so that averaging before it is the same as after. ``gpu`` is
        ``exact`` here.
    window : "auto" or "none"
        Whether a VOI LUT or window in the file is applied (see :mod:`pneumo_fast.radiograph.greyscale`).
    max_pixels : int
        Files that declare more are rejected before any memory is taken.
    selection : Selection, optional
        What is wanted; by default whatever can be read.

    Raises
    ------
    RejectedImageError
        For every way in which the file is not one usable radiograph; reasons are listed in :data:`REASONS`.
    """

    def least(rows: int, columns: int) -> tuple[int, int] | None:
        height, width = fitted_size(rows, columns, size)
        return (SUPERSAMPLING * height, SUPERSAMPLING * width) if decode_mode == "fast" else None

    data = _read(path, max_pixels)
    with quiet_pydicom():
        if is_picture(data):
            return _of_picture(read_picture(data, least, max_pixels), size)
        return _decode(_look(data, size, window, max_pixels, selection), size, least)


def look_at(path: Path, size: int, *, window: Window, max_pixels: int, selection: Selection | None) -> Look | None:
    """Read one DICOM file and check its header; nothing is decoded. None where it is a PNG or JPEG file.

    Parameters and errors are those of :func:`read_radiograph`.
    """
    data = _read(path, max_pixels)
    with quiet_pydicom():
        return None if is_picture(data) else _look(data, size, window, max_pixels, selection)


def read_facts(
    path: Path,
    size: int,
    *,
    window: Window = "auto",
    max_pixels: int = MAX_PIXELS,
    selection: Selection | None = None,
) -> Facts:
    """What the header of a file tells, without decoding its pixels; those of a PNG or JPEG file are decoded.

    Parameters and errors are those of :func:`read_radiograph`.
    """
    data = _read(path, max_pixels)
    with quiet_pydicom():
        if is_picture(data):
            return _of_picture(read_picture(data, lambda *_: None, max_pixels), size)
        return Facts(**_look(data, size, window, max_pixels, selection).facts(size))


def _read(path: Path, max_pixels: int) -> bytes:
    try:
        return read_regular(path, BYTES_PER_PIXEL * max_pixels)
    except MemoryError as error:
        raise RejectedImageError(*OUT_OF_MEMORY) from error
    except OSError as error:
        reason = "too_large" if error.errno == errno.EFBIG else "not_readable"
        raise RejectedImageError(reason, error.strerror or type(error).__name__) from error


def _of_picture(picture: Picture, size: int) -> Radiograph:
    """A picture knows nothing of its patient."""
    rows, columns = picture.height, picture.width
    height, width = fitted_size(rows, columns, size)
    with rejecting("corrupt", "the picture cannot be resized"):
        shown = resize(picture.pixels, height, width)
    shown /= np.float32(picture.white)
    return Radiograph(
        pixels=place(np.clip(shown, 0.0, 1.0, out=shown), size),
        padding_pixels=size * size - height * width,
        intensity="range",
        notes=picture.notes,
        metadata=Metadata(height=rows, width=columns, bits_stored=picture.bits, photometric="MONOCHROME2"),
        uid_hash="",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A DICOM file whose header has been checked, and how its pixels are to become an image."""

    header: Header
    form: PixelFormat
    curve: Curve | None
    """None for a colour image."""
    linear: Linear | None
    """The greyscale curve where pixels may be averaged before it: it is linear, they are square, none is padding."""
    fit: tuple[int, int]
    """Height and width of the image within the square."""
    metadata: Metadata
    marks: tuple[str, ...]
    uid_hash: str

    def linear_jpeg(self) -> bytes | None:
        """The frame, where it is grey 8-bit JPEG whose pixels may be averaged before the greyscale curve; else None.

        Raises
        ------
        RejectedImageError
            ``corrupt``, ``frame_mismatch``, ``multi_frame`` or ``unsupported``.
        """
        return plain_jpeg(self.header, self.form) if self.linear else None

    def facts(self, size: int, padded: int = 0, notes: tuple[str, ...] = ()) -> dict[str, Any]:
        """The fields of :class:`Facts`, with the padding pixels within the image and the notes of decoding."""
        first = self.curve.notes if self.curve else ("grey_stored_as_colour",)
        last = () if self.metadata.pixel_height == 1.0 else ("pixels_made_square",)
        return {
            "padding_pixels": padded + size * size - self.fit[0] * self.fit[1],
            "intensity": self.curve.intensity if self.curve else "range",
            "notes": (*first, *self.form.notes, *notes, *self.marks, *last),
            "metadata": self.metadata,
            "uid_hash": self.uid_hash,
        }


def _look(data: bytes, size: int, window: Window, max_pixels: int, selection: Selection | None) -> Look:
    """Parse and check a DICOM file; nothing is decoded."""
    with rejecting("not_dicom", "no DICOM data set could be read"):
        header = parse_header(data, BYTES_PER_PIXEL * max_pixels)
    with rejecting("bad_header", "the header cannot be interpreted"):
        form = _check(header, max_pixels, selection)
    with rejecting("corrupt", "the compressed frame cannot be found"):
        form = by_frame(header, form)
    with rejecting("bad_header", "the header cannot be interpreted"):
        metadata = read_metadata(header, form)
        curve = greyscale_curve(header, form.stored, signed=form.signed, window=window) if form.is_grey else None
        linear = curve.linear if curve else None
        if linear and (first_number(header, "PixelPaddingValue") is not None or metadata.pixel_height != 1.0):
            linear = None
        marked, uid_hash = marks(header), _uid_hash(header)
    tall = form.rows * metadata.pixel_height
    check_size(round(tall), form.columns, sys.maxsize)
    return Look(
        header=header, form=form, curve=curve, linear=linear,
        fit=fitted_size(tall, form.columns, size), metadata=metadata, marks=marked, uid_hash=uid_hash,
    )  # fmt: skip


def _decode(look: Look, size: int, least: Least) -> Radiograph:
    """What a DICOM file shows."""
    header, form = look.header, look.form
    with rejecting("corrupt", "the pixel data cannot be decoded"):
        decoded = decode(header, form, least(form.rows, form.columns) if look.linear else None)
    with rejecting("bad_header", "the pixel values cannot be interpreted"):
        shown, padded = _show(header, form, decoded, look.curve, look.fit)
    return _placed(look, size, shown, padded, decoded.notes)


def radiograph_of(look: Look, size: int, resized: NDArray[np.float32], note: str) -> Radiograph:
    """What a DICOM file shows whose frame, a :meth:`Look.linear_jpeg`, was decoded and resized elsewhere.

    Parameters
    ----------
    size : int
        As it was given to :func:`look_at`.
    resized : ndarray of float32, shape ``look.fit``
        Stored values; they are overwritten.
    note : str
        How it was decoded.
    """
    if look.linear is None:
        raise ValueError("the greyscale curve is not linear: it has to come before the resize")
    return _placed(look, size, _apply_linear(look.linear, resized), 0, (note,))


def _placed(look: Look, size: int, shown: NDArray[np.float32], padded: int, notes: tuple[str, ...]) -> Radiograph:
    return Radiograph(pixels=place(np.clip(shown, 0.0, 1.0, out=shown), size), **look.facts(size, padded, notes))


def _uid_hash(header: Header) -> str:
    """Equal for two files with one SOP Instance UID, which itself could be traced to a patient."""
    uid = str(header.get("SOPInstanceUID") or "")
    return hashlib.sha256(uid.encode("utf-8", "surrogatepass")).hexdigest()[:16] if uid else ""


def _check(header: Header, max_pixels: int, selection: Selection | None) -> PixelFormat:
    """Refuse what is not one still image, wanted and of sane size, before anything is decoded."""
    if "PixelData" not in header or "Rows" not in header or "Columns" not in header:
        raise RejectedImageError(*NO_PIXELS)
    if selection is not None:
        selection.check(header)
    if (frames := int(header.get("NumberOfFrames") or 1)) > 1:
        raise RejectedImageError("multi_frame", f"{frames} frames")
    form = PixelFormat.of(header)
    check_size(form.rows, form.columns, max_pixels)
    check_photometric(form)
    if form.allocated not in {8, 16, 32}:
        raise RejectedImageError("unsupported", f"{form.allocated} bits allocated")
    if not 1 <= form.stored <= form.allocated:
        raise RejectedImageError("bad_header", f"{form.stored} bits stored in {form.allocated} allocated")
    return form


def _show(
    header: Header, form: PixelFormat, decoded: Decoded, curve: Curve | None, fit: tuple[int, int]
) -> tuple[NDArray[np.float32], int]:
    """Display values of the fitted size, and how many of them show padding alone."""
    stored = decoded.stored
    if curve is None:
        return resize(grey_of_colour(cast("Dataset", header), form, stored), *fit), 0
    padded = padding(header, form, decoded)
    if padded is None and curve.linear:
        return _apply_linear(curve.linear, resize(stored, *fit)), 0
    full = apply_curve(curve, stored, form.stored, signed=form.signed)
    if padded is None:
        return resize(full, *fit), 0
    full[padded] = 0.0
    return resize(full, *fit), int(np.count_nonzero(resize(~padded, *fit) == 0.0))


def _apply_linear(curve: Linear, resized: NDArray[np.float32]) -> NDArray[np.float32]:
    """Display values of resized stored ones, in place."""
    scale, offset = curve
    resized *= np.float32(scale)
    if offset:
        resized += np.float32(offset)
    return resized
