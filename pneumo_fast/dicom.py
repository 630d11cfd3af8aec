"""One DICOM file becomes one radiograph, or one typed rejection.

Everything a hospital archive holds may come along, so nothing in a file is believed: sizes are checked before
memory is taken, and whatever goes wrong becomes a :class:`RejectedImageError` whose reason can be counted.
Texts of the patient module are never read into a message.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEGBaseline8Bit

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.greyscale import apply_curve, greyscale_curve
from pneumo_fast.metadata import Metadata, read_metadata
from pneumo_fast.options import Window
from pneumo_fast.resize import fit_square

REASONS: Final = {
    "not_readable": "the file cannot be opened or read",
    "not_dicom": "the file is not DICOM",
    "not_an_image": "a DICOM object without one still image: a report, a waveform, a PDF, a video",
    "multi_frame": "more than one frame, so not one radiograph",
    "bad_header": "an attribute that describes the pixels is missing or impossible",
    "bad_size": "fewer than 32 pixels on a side, or more than four times as long as wide",
    "too_large": "more pixels declared than are allowed",
    "colour": "a colour image",
    "unsupported": "a transfer syntax or photometric interpretation that cannot be read",
    "needs_decoders": "a transfer syntax that needs the extra decoders",
    "frame_mismatch": "the compressed frame's size or kind is not what the header declares",
    "corrupt": "the pixel data are truncated or damaged",
    "ambiguous": "several files match one row of the label table",
}
"""Every reason code a rejection can carry."""

SMALLEST_SIDE: Final = 32
LONGEST_ASPECT: Final = 4.0
MAX_PIXELS: Final = 64_000_000  # twice the largest radiographs in use
GREY_TOLERANCE: Final = 4 / 255  # lossy chroma rounding makes grey channels differ by this much
LUMINANCE: Final = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
GREY: Final = {"MONOCHROME1", "MONOCHROME2"}
COLOUR: Final = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"}


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


def read_radiograph(path: Path, size: int, *, window: Window = "auto", max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Read one DICOM file.

    Parameters
    ----------
    path : Path
    size : int
        Side of the square that the image is fitted into (see :func:`pneumo_fast.resize.fit_square`), in pixels.
    window : "auto" or "none"
        Whether a VOI LUT or window in the file is applied (see :mod:`pneumo_fast.greyscale`).
    max_pixels : int
        Files that declare more are rejected before any memory is taken.

    Raises
    ------
    RejectedImageError
        For every way in which the file is not one usable radiograph; reasons are listed in :data:`REASONS`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values of the patient module
        header = _read_header(path)
        with _rejecting("bad_header", "the header cannot be interpreted"):
            _check_header(header, max_pixels)
            metadata = read_metadata(header)
        with _rejecting("corrupt", "the pixel data cannot be decoded"):
            stored = _decode(header)
        with _rejecting("bad_header", "the pixel values cannot be interpreted"):
            return _finish(header, metadata, stored, size, window)


@contextmanager
def _rejecting(reason: str, detail: str) -> Iterator[None]:
    """Turn whatever is raised into a rejection.

    pydicom and its plugins raise what their input leads them to (more than ten types were seen on damaged files),
    and one file is the unit of failure: this is the one place where any exception is caught. The text of the
    exception may quote the file, so only its type is kept.
    """
    try:
        yield
    except RejectedImageError:
        raise
    except Exception as error:
        raise RejectedImageError(reason, f"{detail} ({type(error).__name__})") from error


def _read_header(path: Path) -> pydicom.Dataset:
    """Parse the file; files without preamble or file meta are read where their pixel data are unambiguous."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RejectedImageError("not_readable", error.strerror or type(error).__name__) from error
    with _rejecting("not_dicom", "no DICOM data set could be read"):
        try:
            return pydicom.dcmread(io.BytesIO(data))
        except InvalidDicomError:
            header = pydicom.dcmread(io.BytesIO(data), force=True)
    if "PixelData" not in header or "Rows" not in header:
        raise RejectedImageError("not_dicom", "no preamble, and no image attributes where they would be")
    return header


def _check_header(header: pydicom.Dataset, max_pixels: int) -> None:
    """Refuse what is not one still image of sane size, before anything is decoded."""
    if "PixelData" not in header or "Rows" not in header or "Columns" not in header:
        raise RejectedImageError("not_an_image", "no pixel data")
    if (frames := int(header.get("NumberOfFrames") or 1)) > 1:
        raise RejectedImageError("multi_frame", f"{frames} frames")
    rows, columns = int(header.Rows), int(header.Columns)
    if min(rows, columns) < SMALLEST_SIDE or max(rows, columns) > LONGEST_ASPECT * min(rows, columns):
        raise RejectedImageError("bad_size", f"{rows} x {columns} pixels")
    if rows * columns > max_pixels:
        raise RejectedImageError("too_large", f"{rows} x {columns} pixels declared, {max_pixels} allowed")
    photometric, samples = _photometric(header), _samples(header)
    if photometric not in GREY | COLOUR:
        raise RejectedImageError("unsupported", "the Photometric Interpretation is not one of the known ones")
    if samples != (1 if photometric in GREY or photometric == "PALETTE COLOR" else 3):
        raise RejectedImageError("bad_header", f"{samples} samples per pixel with {photometric}")
    allocated, stored = int(header.BitsAllocated), _bits_stored(header)
    if allocated not in {8, 16, 32} or not 1 <= stored <= allocated:
        raise RejectedImageError("bad_header", f"{stored} bits stored in {allocated} allocated")


def _photometric(header: pydicom.Dataset) -> str:
    return str(header.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper()


def _samples(header: pydicom.Dataset) -> int:
    return int(header.get("SamplesPerPixel") or 1)


def _bits_stored(header: pydicom.Dataset) -> int:
    return int(header.get("BitsStored") or header.BitsAllocated)


def _is_signed(header: pydicom.Dataset) -> bool:
    return int(header.get("PixelRepresentation") or 0) == 1


def _decode(header: pydicom.Dataset) -> NDArray[np.integer]:
    """Stored values, shape (rows, columns) or (rows, columns, 3)."""
    syntax = _transfer_syntax(header)
    if syntax == JPEGBaseline8Bit and _photometric(header) in GREY:
        stored = _decode_jpeg(header)
    else:
        _set_defaults(header)
        stored = pixel_array(header)
    if not syntax.is_encapsulated and _photometric(header) in GREY:
        stored = _mask_unused_bits(header, stored)
    shape = (int(header.Rows), int(header.Columns), *((3,) if _samples(header) == 3 else ()))
    if stored.shape != shape:
        raise RejectedImageError("frame_mismatch", f"the frame is {stored.shape}, the header declares {shape}")
    return stored


def _transfer_syntax(header: pydicom.Dataset) -> UID:
    """The transfer syntax, or for files without one how they are in fact encoded; must be one we can decode."""
    meta = getattr(header, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta is not None else None
    if syntax is None:
        if bytes(header.PixelData[:4]) == b"\xfe\xff\x00\xe0":
            raise RejectedImageError("unsupported", "compressed pixel data without a Transfer Syntax UID")
        implicit, little = header.original_encoding
        syntax = UID("1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2"))
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = syntax
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise RejectedImageError("unsupported", "no decoder exists for the transfer syntax") from error
    if not decoder.is_available:
        raise RejectedImageError("needs_decoders", f"{syntax.name}: install pneumo-fast[decoders]")
    return UID(syntax)


def _set_defaults(header: pydicom.Dataset) -> None:
    """Fill in what sloppy writers leave out, with the obvious values."""
    header.PhotometricInterpretation = _photometric(header)
    header.SamplesPerPixel = _samples(header)
    header.BitsStored = _bits_stored(header)
    header.PixelRepresentation = int(_is_signed(header))
    if header.SamplesPerPixel > 1 and header.get("PlanarConfiguration") is None:
        header.PlanarConfiguration = 0
    header.NumberOfFrames = 1


def _decode_jpeg(header: pydicom.Dataset) -> NDArray[np.integer]:
    """JPEG Baseline through Pillow's libjpeg-turbo: always there, and the fastest by far."""
    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    with Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
        declared = (int(header.Columns), int(header.Rows))
        if image.size != declared or image.mode != "L":
            raise RejectedImageError(
                "frame_mismatch", f"the JPEG frame is {image.size} {image.mode}, the header declares {declared} L"
            )
        return np.asarray(image)


def _mask_unused_bits(header: pydicom.Dataset, stored: NDArray[np.integer]) -> NDArray[np.integer]:
    """Bits above Bits Stored may hold overlays or rubbish (PS3.5 8.1.1); move the sign to its place."""
    unused = int(header.BitsAllocated) - _bits_stored(header)
    return (stored << unused) >> unused if unused else stored  # shifts in the array's own signed or unsigned type


def _finish(
    header: pydicom.Dataset, metadata: Metadata, stored: NDArray[np.integer], size: int, window: Window
) -> Radiograph:
    """From stored values to the stored image: greyscale, padding, resize."""
    if _photometric(header) in GREY:
        bits, signed = _bits_stored(header), _is_signed(header)
        curve = greyscale_curve(header, bits, signed=signed, window=window)
        shown = apply_curve(curve, stored, bits, signed=signed)
        padding = _padding(header, stored)
        intensity, notes = curve.intensity, curve.notes
    else:
        shown, padding, intensity, notes = _grey_of_colour(header, stored), None, "range", ("grey_stored_as_colour",)
    inside = np.ones(shown.shape, dtype=np.float32)
    if padding is not None and padding.any():
        shown[padding] = 0.0
        inside[padding] = 0.0
    inside = fit_square(inside, size) if padding is not None or shown.shape[0] != shown.shape[1] else inside[:0]
    return Radiograph(
        pixels=fit_square(shown, size),
        padding_pixels=int(np.count_nonzero(inside == 0.0)),
        intensity=intensity,
        notes=notes,
        metadata=metadata,
    )


def _padding(header: pydicom.Dataset, stored: NDArray[np.integer]) -> NDArray[np.bool_] | None:
    """Pixels that hold Pixel Padding Value, or lie between it and the Range Limit (PS3.3 C.7.5.1.1.2)."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return None
    limit = header.get("PixelPaddingRangeLimit")
    bits, signed = int(header.BitsAllocated), _is_signed(header)
    ends = sorted(_as_stored(int(v), bits, signed=signed) for v in (value, value if limit is None else limit))
    return (stored >= ends[0]) & (stored <= ends[1])


def _as_stored(value: int, bits: int, *, signed: bool) -> int:
    """Padding values are often written with the wrong one of US and SS."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def _grey_of_colour(header: pydicom.Dataset, stored: NDArray[np.integer]) -> NDArray[np.float32]:
    """A grey picture stored in colour, by luminance; a colour picture is rejected."""
    bits = _bits_stored(header)
    if _photometric(header) == "PALETTE COLOR":
        bits = int(header.RedPaletteColorLookupTableDescriptor[2])
        stored = apply_color_lut(stored, header)
    rgb = stored.astype(np.float64) / ((1 << bits) - 1)
    if (rgb.max(axis=-1) - rgb.min(axis=-1)).max() > GREY_TOLERANCE:
        raise RejectedImageError("colour", "the three channels differ")
    grey: NDArray[np.float32] = np.clip(rgb @ LUMINANCE, 0.0, 1.0).astype(np.float32)
    return grey
