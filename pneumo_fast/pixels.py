"""Decodes the pixel data of one frame into stored values."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEGBaseline8Bit

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.header import Header

Stored = NDArray[np.integer]

GREY: Final = {"MONOCHROME1", "MONOCHROME2"}
COLOUR: Final = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"}
GREY_TOLERANCE: Final = 4 / 255  # lossy chroma rounding makes grey channels differ by this much
LUMINANCE: Final = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelFormat:
    """How the pixels are stored (PS3.3 C.7.6.3); what sloppy writers leave out has its obvious value."""

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    """Bits allocated."""
    stored: int
    """Bits stored."""
    signed: bool

    @classmethod
    def of(cls, header: Header) -> PixelFormat:
        """Read it from a header; raises whatever pydicom raises on values that are no numbers."""
        allocated = int(header.get("BitsAllocated"))
        return cls(
            rows=int(header.get("Rows")),
            columns=int(header.get("Columns")),
            samples=int(header.get("SamplesPerPixel") or 1),
            photometric=str(header.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper(),
            allocated=allocated,
            stored=int(header.get("BitsStored") or allocated),
            signed=int(header.get("PixelRepresentation") or 0) == 1,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), or (rows, columns, samples) for more than one sample."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)


def decode(header: Header, form: PixelFormat, least: tuple[int, int] | None = None) -> tuple[Stored, tuple[str, ...]]:
    """Decode the one frame.

    Parameters
    ----------
    least : (height, width), optional
        A JPEG Baseline frame may be decoded at half, quarter or eighth scale, as long as it is at least this large.

    Returns
    -------
    stored : ndarray of integers, shape (rows, columns) or (rows, columns, 3)
        Smaller by the scale, if one was used. Unused high bits are masked.
    notes : tuple of str
        ``high_bits_masked`` if they held anything.

    Raises
    ------
    RejectedImageError
        ``unsupported``, ``needs_decoders``, ``frame_mismatch``.
    Exception
        Whatever pydicom and its plugins raise on damaged data.
    """
    if not isinstance(header, Dataset):  # the shortcut reads JPEG Baseline alone
        return _decode_jpeg(header.get("PixelData"), form, least), ()
    syntax = _transfer_syntax(header)
    if syntax == JPEGBaseline8Bit and form.photometric in GREY:
        return _decode_jpeg(header.PixelData, form, least), ()
    _set_defaults(header, form)
    native_grey = form.photometric in GREY and not syntax.is_encapsulated
    stored = pixel_array(header, correct_unused_bits=not native_grey)
    if stored.shape != form.shape:
        raise RejectedImageError("frame_mismatch", f"the frame is {stored.shape}, the header declares {form.shape}")
    return _mask_unused_bits(stored, form) if native_grey else (stored, ())


def _transfer_syntax(header: Dataset) -> UID:
    """The transfer syntax, or for files without one how they are in fact encoded; must be one we can decode."""
    meta = getattr(header, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta is not None else None
    if syntax is None:
        if bytes(header.PixelData[:4]) == b"\xfe\xff\x00\xe0":
            raise RejectedImageError("unsupported", "compressed pixel data without a Transfer Syntax UID")
        implicit, little = header.original_encoding
        syntax = UID("1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2"))
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = syntax
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise RejectedImageError("unsupported", "no decoder exists for the transfer syntax") from error
    if not decoder.is_available:
        raise RejectedImageError("needs_decoders", f"{syntax.name}: install pneumo-fast[decoders]")
    return UID(syntax)


def _set_defaults(header: Dataset, form: PixelFormat) -> None:
    """Write the values that were assumed into the header, which pydicom reads again."""
    header.PhotometricInterpretation = form.photometric
    header.SamplesPerPixel = form.samples
    header.BitsStored = form.stored
    header.PixelRepresentation = int(form.signed)
    if form.samples > 1 and header.get("PlanarConfiguration") is None:
        header.PlanarConfiguration = 0
    header.NumberOfFrames = 1


def _decode_jpeg(pixel_data: bytes, form: PixelFormat, least: tuple[int, int] | None) -> Stored:
    """JPEG Baseline through Pillow's libjpeg-turbo: always there, and the fastest by far."""
    frame = get_frame(pixel_data, 0, number_of_frames=1)
    with Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
        declared = (form.columns, form.rows)
        if image.size != declared or image.mode != "L":
            raise RejectedImageError(
                "frame_mismatch", f"the JPEG frame is {image.size} {image.mode}, the header declares {declared} L"
            )
        scale = _scale(form, least)
        if scale > 1:
            image.draft("L", (form.columns // scale, form.rows // scale))
        return np.asarray(image)


def _scale(form: PixelFormat, least: tuple[int, int] | None) -> int:
    """The largest of 8, 4, 2, 1 that divides the frame and leaves it at least as large as asked."""
    if least is None:
        return 1
    fits = (
        scale
        for scale in (8, 4, 2)
        if form.rows % scale == form.columns % scale == 0
        and form.rows // scale >= least[0]
        and form.columns // scale >= least[1]
    )
    return next(fits, 1)


def _mask_unused_bits(stored: Stored, form: PixelFormat) -> tuple[Stored, tuple[str, ...]]:
    """Bits above Bits Stored may hold overlays or rubbish (PS3.5 8.1.1); the sign moves to its place."""
    unused = form.allocated - form.stored
    if not unused:
        return stored, ()
    masked = (stored << unused) >> unused  # shifts in the array's own signed or unsigned type
    return masked, () if np.array_equal(masked, stored) else ("high_bits_masked",)


def grey_of_colour(header: Dataset, form: PixelFormat, stored: Stored) -> NDArray[np.float64]:
    """A grey picture stored in colour, by luminance, in [0, 1]; a colour picture is rejected.

    Raises
    ------
    RejectedImageError
        ``colour``.
    """
    bits = form.stored
    if form.photometric == "PALETTE COLOR":
        bits = int(header.RedPaletteColorLookupTableDescriptor[2])
        stored = apply_color_lut(stored, header)
    rgb = stored.astype(np.float64) / ((1 << bits) - 1)
    if (rgb.max(axis=-1) - rgb.min(axis=-1)).max() > GREY_TOLERANCE:
        raise RejectedImageError("colour", "the three channels differ")
    grey: NDArray[np.float64] = np.clip(rgb @ LUMINANCE, 0.0, 1.0)
    return grey
