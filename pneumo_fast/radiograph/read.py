"""One file, DICOM or PNG or JPEG, becomes one radiograph, or one typed rejection.

Everything a hospital archive holds may come along, so nothing in a file is believed: sizes are checked before
memory is taken, and whatever goes wrong becomes a :class:`RejectedImageError` whose reason can be counted.
Texts of the patient module are never read into a message.
"""

from __future__ import annotations

import errno
import hashlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.files import read_regular
from pneumo_fast.radiograph.greyscale import (
    Curve,
    apply_curve,
    check_photometric,
    grey_of_colour,
    greyscale_curve,
    padding,
)
from pneumo_fast.radiograph.header import BYTES_PER_PIXEL, Header, PixelFormat, first_number, parse_header
from pneumo_fast.radiograph.metadata import Metadata, marks, read_metadata
from pneumo_fast.radiograph.pictures import Picture, is_picture, read_picture
from pneumo_fast.radiograph.pixels import by_frame, decode
from pneumo_fast.radiograph.rejection import NO_PIXELS, check_size, rejecting
from pneumo_fast.radiograph.resize import fitted_size, place, resize
from pneumo_fast.radiograph.selection import Selection
from pneumo_fast.vocabulary import Decode, Window

Least = Callable[[int, int], tuple[int, int] | None]
SUPERSAMPLING: Final = 2  # fast decoding leaves at least twice the pixels that are stored, in each direction


@dataclass(frozen=True, kw_only=True, slots=True)
class Radiograph:
    """One radiograph, ready to be stored."""

    pixels: NDArray[np.float32]
    """Shape (size, size), in [0, 1], black is 0."""
    padding_pixels: int
    """How many of the pixels show no image but padding, all of them 0."""
    intensity: str
    """How white was decided: ``range``, ``window`` or ``voi_lut``."""
    notes: tuple[str, ...]
    """Peculiarities that were decided by rule."""
    metadata: Metadata
    """What may be known of the image."""
    uid_hash: str
    """16 hexadecimal digits that stand for the SOP Instance UID; ``""`` where there is none."""


def read_radiograph(
    path: Path,
    size: int,
    *,
    decode_mode: Decode = "exact",
    window: Window = "auto",
    max_pixels: int = 64_000_000,
    selection: Selection | None = None,
) -> Radiograph:
    """Read one file, whatever its name ends in.

    Parameters
    ----------
    path : Path
    size : int
        Side of the square that the image is fitted into (see :mod:`pneumo_fast.radiograph.resize`), in pixels.
    decode_mode : "fast" or "exact"
        ``fast`` lets libjpeg decode 8-bit JPEG at the smallest scale that is still at least twice the size
        wanted, where the greyscale curve is linear, so that averaging before it is the same as after.
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
    try:
        data = read_regular(path, BYTES_PER_PIXEL * max_pixels)
    except OSError as error:
        reason = "too_large" if error.errno == errno.EFBIG else "not_readable"
        raise RejectedImageError(reason, error.strerror or type(error).__name__) from error

    def least(rows: int, columns: int) -> tuple[int, int] | None:
        height, width = fitted_size(rows, columns, size)
        return (SUPERSAMPLING * height, SUPERSAMPLING * width) if decode_mode == "fast" else None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values of the patient module
        if is_picture(data):
            return _of_picture(read_picture(data, least, max_pixels), size)
        with rejecting("not_dicom", "no DICOM data set could be read"):
            header = parse_header(data, BYTES_PER_PIXEL * max_pixels)
        return _of_header(header, size, least, window, max_pixels, selection)


def _of_picture(picture: Picture, size: int) -> Radiograph:
    """A picture knows nothing of its patient."""
    rows, columns = picture.height, picture.width
    height, width = fitted_size(rows, columns, size)
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


def _of_header(
    header: Header, size: int, least: Least, window: Window, max_pixels: int, selection: Selection | None
) -> Radiograph:
    """What a parsed DICOM file shows."""
    with rejecting("bad_header", "the header cannot be interpreted"):
        form = _check(header, max_pixels, selection)
    with rejecting("corrupt", "the compressed frame cannot be found"):
        form = by_frame(header, form)
    with rejecting("bad_header", "the header cannot be interpreted"):
        metadata = read_metadata(header, form)
        uid_hash = _uid_hash(header)
        curve = greyscale_curve(header, form.stored, signed=form.signed, window=window) if form.is_grey else None
        linear = curve is not None and curve.linear is not None and first_number(header, "PixelPaddingValue") is None
    tall, square = form.rows * metadata.pixel_height, metadata.pixel_height == 1.0
    check_size(round(tall), form.columns, sys.maxsize)
    height, width = fitted_size(tall, form.columns, size)
    with rejecting("corrupt", "the pixel data cannot be decoded"):
        stored, notes = decode(header, form, least(form.rows, form.columns) if linear and square else None)
    with rejecting("bad_header", "the pixel values cannot be interpreted"):
        shown, padded = _show(header, form, stored, curve, (height, width))
    first_notes = curve.notes if curve else ("grey_stored_as_colour",)
    return Radiograph(
        pixels=place(np.clip(shown, 0.0, 1.0, out=shown), size),
        padding_pixels=padded + size * size - height * width,
        intensity=curve.intensity if curve else "range",
        notes=(*first_notes, *form.notes, *notes, *marks(header), *(() if square else ("pixels_made_square",))),
        metadata=metadata,
        uid_hash=uid_hash,
    )


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
    header: Header, form: PixelFormat, stored: NDArray[np.integer], curve: Curve | None, fit: tuple[int, int]
) -> tuple[NDArray[np.float32], int]:
    """Display values of the fitted size, and how many of them show padding alone."""
    if curve is None:
        return resize(grey_of_colour(cast("Dataset", header), form, stored), *fit), 0
    padded = padding(header, form, stored)
    if padded is None and curve.linear:
        scale, offset = curve.linear
        shown = resize(stored, *fit)
        shown *= np.float32(scale)
        if offset:
            shown += np.float32(offset)
        return shown, 0
    full = apply_curve(curve, stored, form.stored, signed=form.signed)
    if padded is None:
        return resize(full, *fit), 0
    full[padded] = 0.0
    return resize(full, *fit), int(np.count_nonzero(resize(~padded, *fit) == 0.0))
