"""What every file has to pass before memory is taken for it, and how whatever goes wrong becomes a rejection."""

from __future__ import annotations

from typing import Final

from pneumo_fast.errors import RejectedImageError

SMALLEST_SIDE: Final = 32
LONGEST_ASPECT: Final = 4.0
OUT_OF_MEMORY: Final = "out_of_memory", "there was not enough memory to read the file"
"""Reason and detail of a file that might be read with more memory."""
NO_PIXELS: Final = "not_an_image", "no pixel data"
"""Reason and detail of a DICOM object that shows nothing."""


class rejecting:  # noqa: N801  # called like a function, as those of contextlib are; theirs takes four times as long
    """Turn whatever is raised into a rejection.

    pydicom, Pillow and their plugins raise what their input leads them to (more than ten types were seen on damaged
    files), and one file is the unit of failure: so any exception is caught here. The text of the
    exception may quote the file, so only its type is kept.
    """

    __slots__ = ("_detail", "_reason")

    def __init__(self, reason: str, detail: str) -> None:
        self._reason, self._detail = reason, detail

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        """Reject the file, unless it is rejected already or the process is to end."""
        if kind is None or isinstance(error, RejectedImageError | KeyboardInterrupt | SystemExit | GeneratorExit):
            return  # what decoders written in Rust raise when they panic is a BaseException, but none of these
        if isinstance(error, MemoryError):  # the file may be as it should be
            raise RejectedImageError(*OUT_OF_MEMORY) from error
        raise RejectedImageError(self._reason, f"{self._detail} ({kind.__name__})") from error


def check_size(rows: int, columns: int, max_pixels: int) -> None:
    """Refuse an image that is too small, too long or larger than allowed.

    Raises
    ------
    RejectedImageError
        ``bad_size``, ``too_large``.
    """
    shorter, longer = sorted((rows, columns))
    if shorter < SMALLEST_SIDE or longer > LONGEST_ASPECT * shorter:
        raise RejectedImageError("bad_size", f"{rows} x {columns} pixels")
    if rows * columns > max_pixels:
        raise RejectedImageError("too_large", f"{rows} x {columns} pixels declared, {max_pixels} allowed")


REASONS: Final = {
    "not_readable": "the file cannot be opened or read",
    "not_dicom": "the file is neither DICOM nor PNG nor JPEG",
    "not_an_image": "a DICOM object without one still image: a report, a waveform, a PDF, a video",
    "other_modality": "a modality that is not wanted, for instance CT (--modality)",
    "other_body_part": "a body part that is not wanted, for instance a hand (--body-part)",
    "other_view": "a view that is not wanted, for instance a lateral (--view)",
    "multi_frame": "more than one frame, so not one radiograph",
    "bad_header": "an attribute that describes the pixels is missing or impossible",
    "bad_size": "fewer than 32 pixels on a side, or more than four times as long as wide",
    "too_large": "more pixels declared than are allowed",
    "colour": "a colour image",
    "unsupported": "a transfer syntax or photometric interpretation that cannot be read",
    "needs_decoders": "a transfer syntax that needs the extra decoders",
    "frame_mismatch": "the compressed frame's size or kind is not what the header declares",
    "changed": "the file is no longer the one that was indexed (--layout source)",
    "corrupt": "the pixel data are truncated or damaged",
    "out_of_memory": "there was not enough memory to read the file",
    "crashed": "the file crashed its worker process twice",
    "timeout": "reading the file took longer than allowed, twice",
    "ambiguous": "several files match one row of the label table",
    "not_the_first": "another file of the row was taken (--several first)",
    "not_retrieved": "a server did not hand it out (predict --dicomweb)",
    "own_result": "a result of this package, not a radiograph (predict --dicomweb)",
}
"""Every reason code a rejection can carry."""
REMEDIES: Final = {
    "too_large": "--max-pixels",
    "needs_decoders": "the extra decoders",
    "timeout": "--timeout-s",
    "out_of_memory": "fewer --workers",
    "ambiguous": "--several first or --several all",
}
"""What helps against some of them, where the files are as they should be."""
SKIPPED: Final = frozenset({
    "not_an_image", "other_modality", "other_body_part", "other_view", "not_the_first", "own_result",
})  # fmt: skip
"""Reasons that are no fault of a file: it is another object than is wanted, and does not count as rejected."""
