"""What a compressed frame says about itself, read from its first bytes before any decoder sees it.

A decoder believes its codestream, not the DICOM header around it: a codestream that declares 65,535 x 65,535 pixels
makes it take the memory for them. The two are therefore compared first.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.header import PixelFormat

Kind = Literal["jpeg", "jpeg_lossless", "jpeg_ls", "jpeg_2000"]

_KINDS: Final[dict[int, Kind]] = {
    0xC0: "jpeg", 0xC1: "jpeg", 0xC2: "jpeg", 0xC3: "jpeg_lossless", 0xF7: "jpeg_ls",
}  # fmt: skip
"""Start-of-frame markers (ISO 10918-1 table B.1; ISO 14495-1): baseline, extended, progressive, lossless, JPEG-LS."""
_OTHER_FRAMES: Final = {0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # hierarchical or arithmetic
_ALONE: Final = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_PROGRESSIVE, _START_OF_SCAN, _END_OF_IMAGE = 0xC2, 0xDA, 0xD9
_CODING_STYLE, _START_OF_TILE, _REVERSIBLE = 0x52, 0x90, 1  # ISO 15444-1 A.6.1, A.4.2, table A.20
JPEG_2000: Final = b"\xff\x4f\xff\x51"
_STARTS: Final = (b"\xff\xd8\xff", JPEG_2000)
ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED: Final = 0xFFFFFFFF

_length = struct.Struct("<I").unpack_from
_segment = struct.Struct(">BBH").unpack_from
_frame = struct.Struct(">BHHB").unpack_from
_siz = struct.Struct(">4x2x2xIIII16xHB").unpack_from


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """The head of a codestream."""

    kind: Kind
    rows: int
    columns: int
    samples: int
    bits: int
    """Precision of a sample."""
    progressive: bool = False
    signed: bool = False
    """Whether the codestream itself says that its samples are; only JPEG 2000 can."""


def read_frame_info(frame: bytes) -> FrameInfo:
    """Read the head of a JPEG, JPEG-LS or JPEG 2000 codestream (with or without the boxes of JP2).

    Raises
    ------
    RejectedImageError
        ``corrupt`` where there is none, ``unsupported`` for hierarchical and arithmetic JPEG.
    """
    try:
        if frame[:2] == b"\xff\xd8":
            return _read_jpeg(frame)
        if (start := frame.find(JPEG_2000)) >= 0:
            right, bottom, left, top, samples, depth = _siz(frame, start)
            size, bits = (bottom - top, right - left), (depth & 0x7F) + 1
            return FrameInfo("jpeg_2000", *size, samples, bits, signed=depth > 0x7F)
    except struct.error as error:
        raise RejectedImageError("corrupt", "the compressed frame ends in its head") from error
    raise RejectedImageError("corrupt", "the compressed frame begins like none that is known")


def _read_jpeg(frame: bytes) -> FrameInfo:
    position = 2
    while True:
        fill, marker, length = _segment(frame, position)
        if fill != 0xFF or marker in {_START_OF_SCAN, _END_OF_IMAGE}:
            raise RejectedImageError("corrupt", "the JPEG frame has no start-of-frame segment")
        if marker in _OTHER_FRAMES:
            raise RejectedImageError("unsupported", "the JPEG frame is hierarchical or arithmetic")
        if kind := _KINDS.get(marker):
            bits, rows, columns, samples = _frame(frame, position + 4)
            return FrameInfo(kind, rows, columns, samples, bits, marker == _PROGRESSIVE)
        position += 1 if marker == 0xFF else 2 if marker in _ALONE else 2 + length


def find_loss(frame: bytes, info: FrameInfo) -> bool | None:
    """Whether compression changed the values; None for JPEG 2000 that is reversible, but may have been cut short."""
    if info.kind in {"jpeg", "jpeg_lossless"}:
        return info.kind == "jpeg"
    try:
        if info.kind == "jpeg_ls":
            scan = _find_segment(frame, 2, _START_OF_SCAN)
            return bool(scan[5 + 2 * scan[4]])  # NEAR, behind the components (ISO 14495-1 C.2.3)
        coding = _find_segment(frame, frame.find(JPEG_2000) + 2, _CODING_STYLE)
        return None if coding[13] == _REVERSIBLE else True
    except (struct.error, IndexError):
        return None


def _find_segment(frame: bytes, position: int, wanted: int) -> bytes:
    """The first segment of a marker, from its marker on; empty where there is none before the data."""
    while True:
        fill, marker, length = _segment(frame, position)
        if fill != 0xFF or marker in {_START_OF_TILE, _END_OF_IMAGE}:
            return b""
        if marker == wanted:
            return frame[position : position + 2 + length]
        position += 1 if marker == 0xFF else 2 + length


def check_agreement(info: FrameInfo, form: PixelFormat) -> None:
    """Refuse a frame that is not the image that the header declares (``frame_mismatch``, ``bad_header``)."""
    declared, found = (form.rows, form.columns, form.samples), (info.rows, info.columns, info.samples)
    if found != declared:
        raise RejectedImageError("frame_mismatch", f"the frame is {found}, the header declares {declared}")
    if not form.stored <= info.bits <= form.allocated:
        raise RejectedImageError(
            "frame_mismatch", f"the frame has {info.bits} bits, the header declares {form.stored} of {form.allocated}"
        )
    if info.bits > form.stored and form.high != form.stored - 1:  # the values lie elsewhere, or the header is wrong
        raise RejectedImageError("bad_header", f"High Bit is {form.high} with {form.stored} bits stored of {info.bits}")
    if info.signed and not form.signed:
        raise RejectedImageError("frame_mismatch", "the frame has signed values, the header declares unsigned ones")
    if form.signed and info.kind == "jpeg":  # its samples are unsigned (PS3.5 8.2.1); JPEG 2000 may hold the sign's bit
        raise RejectedImageError("frame_mismatch", "the header declares signed values, a lossy JPEG has none")


def join_fragments(pixel_data: bytes) -> bytes:
    """The one frame of encapsulated pixel data (PS3.5 A.4): all fragments after the first item, joined.

    The first item, the Basic Offset Table, says nothing that one frame needs, and is often empty or wrong.

    Raises
    ------
    RejectedImageError
        ``corrupt``, and ``multi_frame`` where more than one fragment begins a codestream.
    """
    position, fragments = 0, []
    while pixel_data[position : position + 4] == ITEM and position + 8 <= len(pixel_data):
        (length,) = _length(pixel_data, position + 4)
        position += 8 + length
        if length == _UNDEFINED or position > len(pixel_data):
            raise RejectedImageError("corrupt", "a fragment is longer than the pixel data")
        fragments.append(pixel_data[position - length : position])
    del fragments[:1]
    if not any(fragments) or pixel_data[position : position + 4] not in {b"", _DELIMITER}:
        raise RejectedImageError("corrupt", "the pixel data are no sequence of fragments")
    if sum(fragment.startswith(_STARTS) for fragment in fragments) > 1:
        raise RejectedImageError("multi_frame", f"{len(fragments)} compressed frames")
    return fragments[0] if len(fragments) == 1 else b"".join(fragments)


def decode_grey_jpeg(frame: bytes, rows: int, columns: int, least: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Decode a JPEG of one component.

    Parameters
    ----------
    rows, columns : int
        What the frame was found to declare.
    least : (height, width), optional
        The frame may be decoded at half, quarter or eighth scale, as long as it is at least this large: libjpeg
        then leaves the high frequencies out of its inverse transform.

    Returns
    -------
    ndarray of uint8, shape (rows // scale, columns // scale), scale 1, 2, 4 or 8

    Raises
    ------
    RejectedImageError
        ``frame_mismatch``.
    Exception
        Whatever Pillow raises on damaged data.
    """
    scale = _scale(rows, columns, least)
    pixels = np.empty((rows // scale, columns // scale), dtype=np.uint8)
    size = pixels.shape[::-1]
    try:  # straight into the array: opening the frame as a file first takes a tenth longer
        Image.frombuffer("L", size, pixels, "raw", "L", 0, 1).frombytes(frame, "jpeg", "L", "", scale, 0)
    except ValueError:  # truncated, or without its last marker: a file may end so, bytes in memory may not
        from PIL.JpegImagePlugin import JpegImageFile  # noqa: PLC0415  # only where it is needed

        with JpegImageFile(io.BytesIO(frame)) as image:  # Image.open has a limit of its own; the size has been checked
            if image.size != (columns, rows) or image.mode != "L":
                raise RejectedImageError("frame_mismatch", f"the JPEG frame is {image.size} {image.mode}") from None
            image.draft("L", size)
            return np.asarray(image)
    return pixels


def _scale(rows: int, columns: int, least: tuple[int, int] | None) -> int:
    """The largest of 8, 4, 2, 1 that divides the frame and leaves it at least as large as asked."""
    if least is None:
        return 1
    fits = (
        scale
        for scale in (8, 4, 2)
        if rows % scale == columns % scale == 0 and rows // scale >= least[0] and columns // scale >= least[1]
    )
    return next(fits, 1)
