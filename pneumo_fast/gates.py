"""What every file has to pass before memory is taken for it, and how whatever goes wrong becomes a rejection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pneumo_fast.errors import RejectedImageError

SMALLEST_SIDE: Final = 32
LONGEST_ASPECT: Final = 4.0


@contextmanager
def rejecting(reason: str, detail: str) -> Iterator[None]:
    """Turn whatever is raised into a rejection.

    pydicom, Pillow and their plugins raise what their input leads them to (more than ten types were seen on damaged
    files), and one file is the unit of failure: this is the one place where any exception is caught. The text of the
    exception may quote the file, so only its type is kept.
    """
    try:
        yield
    except (RejectedImageError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # what decoders written in Rust raise when they panic is no Exception
        raise RejectedImageError(reason, f"{detail} ({type(error).__name__})") from error


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
