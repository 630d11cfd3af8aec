"""PNG and JPEG pictures: radiographs that somebody exported without their DICOM header.

They are shown as every viewer shows them: white is the top of the declared range (255 or 65,535), the EXIF
orientation is applied. Colour profiles and gamma are not: they belong to the screen.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.codestream import decode_grey_jpeg, read_frame_info
from pneumo_fast.radiograph.greyscale import grey_of_rgb
from pneumo_fast.radiograph.rejection import check_size, rejecting

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_EXIF_ORIENTATION: Final = 0x0112
_OPAQUE: Final = 255
_UPRIGHT: Final[dict[int, Callable[[NDArray[np.generic]], NDArray[np.generic]]]] = {
    2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud,
    5: lambda x: x.T, 6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x, 2).T, 8: np.rot90,
}  # fmt: skip
"""How a picture is turned upright (Exif 2.32, 4.6.4 A, Orientation); the others stand upright."""
_SWAPPING: Final = {5, 6, 7, 8}


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A grey picture."""

    pixels: NDArray[np.generic]
    """Shape (rows, columns), upright; smaller than the picture where it was decoded at reduced scale."""
    white: float
    """The value of white; black is 0."""
    height: int
    """Of the whole picture, upright, in pixels."""
    width: int
    bits: int
    """8 or 16."""
    notes: tuple[str, ...]
    """``grey_stored_as_colour``, ``reduced_to_8_bits`` (Pillow reads 16-bit colour so), ``exif_orientation``."""


def is_picture(data: bytes) -> bool:
    """Whether a file's bytes begin as those of a PNG or JPEG file."""
    return data.startswith((_PNG, _JPEG))


def read_picture(data: bytes, least: Callable[[int, int], tuple[int, int] | None], max_pixels: int) -> Picture:
    """Read the bytes of a PNG or JPEG file.

    Parameters
    ----------
    data : bytes
    least : callable
        Of rows and columns: the size that decoding at reduced scale has to leave, or None for the whole.
    max_pixels : int
        Pictures that declare more are rejected before any memory is taken.

    Raises
    ------
    RejectedImageError
        ``bad_size``, ``too_large``, ``colour``, ``unsupported``, ``multi_frame``, ``corrupt``.
    """
    with rejecting("corrupt", "the picture's head cannot be read"):
        rows, columns, bits = _declared(data)
    check_size(rows, columns, max_pixels)
    with rejecting("corrupt", "the picture cannot be decoded"):
        with _opened(data) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise RejectedImageError("multi_frame", "more than one picture in the file")
            if image.size != (columns, rows):
                raise RejectedImageError("corrupt", "the picture declares two sizes")
            is_grey_jpeg = image.mode == "L" and data.startswith(_JPEG)
            decoded = decode_grey_jpeg(data, rows, columns, least(rows, columns)) if is_grey_jpeg else None
            pixels, white, notes = _grey(image, bits) if decoded is None else (decoded, 255.0, ())
            orientation = _orientation(image)
        if turn := _UPRIGHT.get(orientation):
            pixels, notes = turn(pixels), (*notes, "exif_orientation")
    height, width = (columns, rows) if orientation in _SWAPPING else (rows, columns)
    return Picture(pixels=pixels, white=white, height=height, width=width, bits=bits, notes=notes)


def _opened(data: bytes) -> Image.Image:
    """The picture by the reader of its format, without Pillow's own limit: the size has been checked against ours.

    ``Image.open`` refuses 178 million pixels and more, by a number that every thread of the process shares.
    """
    from PIL import JpegImagePlugin, PngImagePlugin  # noqa: PLC0415  # only where there is a picture

    stream = io.BytesIO(data)
    return PngImagePlugin.PngImageFile(stream) if data.startswith(_PNG) else JpegImagePlugin.jpeg_factory(stream)


def _orientation(image: Image.Image) -> int:
    """That of EXIF, once the picture has been decoded; 1, upright, where there is none that can be read."""
    try:
        with rejecting("corrupt", "the EXIF cannot be read"):
            return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except RejectedImageError:
        return 1


def _declared(data: bytes) -> tuple[int, int, int]:
    """Rows, columns and bits, from the head."""
    if data.startswith(_PNG):
        columns, rows, bits = struct.unpack_from(">IIB", data, 16)  # IHDR is always the first chunk
        return rows, columns, 16 if bits == 16 else 8
    info = read_frame_info(data)
    if info.kind != "jpeg" or info.bits != 8:
        raise RejectedImageError("unsupported", f"a {info.kind} picture of {info.bits} bits")
    return info.rows, info.columns, 8


def _grey(image: Image.Image, bits: int) -> tuple[NDArray[np.generic], float, tuple[str, ...]]:
    """Pixels, the value of white, and notes."""
    if image.mode in {"I;16", "I;16B", "I"} and "transparency" not in image.info:
        return np.asarray(image).astype(np.uint16), 65535.0, ()
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image), 255.0, ()
    if image.mode not in {"L", "LA", "P", "PA", "RGB", "RGBA"}:
        raise RejectedImageError("unsupported", f"a picture of mode {image.mode}")
    rgba = np.asarray(image.convert("RGBA"))
    if rgba[..., 3].min() < _OPAQUE:
        raise RejectedImageError("unsupported", "the picture is transparent in places")
    notes = ["grey_stored_as_colour"] if image.mode not in {"L", "LA"} else []
    if bits == 16:
        notes.append("reduced_to_8_bits")
    return grey_of_rgb(rgba[..., :3], _OPAQUE), 1.0, tuple(notes)
