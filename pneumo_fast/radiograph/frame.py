"""The one frame of a radiograph: compared with what the header says of it, and decoded.

Grey 8-bit JPEG, which most radiographs are, needs Pillow alone; pydicom, which takes longer to import than all
else that a worker process starts with, decodes the others, and is imported for the first of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pneumo_fast.radiograph.codestream import (
    ITEM,
    JPEG_2000,
    check_agreement,
    decode_grey_jpeg,
    join_fragments,
    read_frame_info,
)
from pneumo_fast.radiograph.header import Decoded, Header, PixelFormat

BEGIN_BYTES: Final = 1024  # of pixel data: offset table, boxes and head of a codestream


def by_frame(header: Header, form: PixelFormat) -> PixelFormat:
    """The format, with the bits of a JPEG 2000 frame where it has fewer than the header declares: white is theirs.

    Not where the two differ about the sign as well: nobody can know which bit would hold it.

    Raises
    ------
    RejectedImageError
        ``corrupt``, ``multi_frame`` or ``unsupported`` where the pixel data are no such frame.
    """
    begin = header.get("PixelData")[:BEGIN_BYTES]
    if form.stored <= 8 or not (begin.startswith(ITEM) and JPEG_2000 in begin):
        return form
    info = read_frame_info(join_fragments(header.get("PixelData")))
    if info.kind != "jpeg_2000" or info.signed != form.signed or not 8 <= info.bits < form.stored:
        return form
    return replace(form, stored=info.bits, high=info.bits - 1, notes=(*form.notes, "fewer_bits_in_frame"))


def plain_jpeg(header: Header, form: PixelFormat) -> bytes | None:
    """The frame, where it is grey 8-bit JPEG as the transfer syntax JPEG Baseline has it; None where it is another.

    Raises
    ------
    RejectedImageError
        ``frame_mismatch``, ``corrupt``, ``multi_frame`` or ``unsupported``.
    """
    if not isinstance(header, dict):  # the shortcut reads no other transfer syntax
        return None
    frame = join_fragments(header["PixelData"])
    info = read_frame_info(frame)
    check_agreement(info, form)
    return frame if info.kind == "jpeg" and info.bits == 8 and form.is_grey and not info.progressive else None


def decode(header: Header, form: PixelFormat, least: tuple[int, int] | None = None) -> Decoded:
    """Decode the one frame.

    Parameters
    ----------
    least : (height, width), optional
        An 8-bit JPEG frame may be decoded at half, quarter or eighth scale, as long as it is at least this large.

    Returns
    -------
    Decoded
        Smaller by the scale, if one was used. The notes are ``high_bits_masked`` or ``clipped_to_bits_stored`` if
        there was anything above Bits Stored, and ``other_syntax`` if the frame is compressed in another way than the
        transfer syntax says.

    Raises
    ------
    RejectedImageError
        ``unsupported``, ``needs_decoders``, ``frame_mismatch``, ``bad_header``, ``multi_frame``, ``corrupt``.
    Exception
        Whatever pydicom and its plugins raise on damaged data.
    """
    if (frame := plain_jpeg(header, form)) is not None:
        pixels = decode_grey_jpeg(frame, form.rows, form.columns, least)
        return Decoded(pixels, pixels, ())
    from pneumo_fast.radiograph.pixels import decode_by_pydicom  # noqa: PLC0415  # only where it is needed

    return decode_by_pydicom(header, form, least)
