"""The head of a compressed frame: what is refused."""

from __future__ import annotations

import pytest

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.codestream import read_frame_info

START = b"\xff\xd8"
FRAME = b"\x00\x0b\x08\x00\x40\x00\x40\x01\x01\x11\x00"
"""Behind its marker: 8 bits, 64 x 64, one component."""
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"


@pytest.mark.parametrize(
    ("frame", "reason", "detail"),
    [
        (START + b"\xff\xc5" + FRAME, "unsupported", "hierarchical or arithmetic"),
        (START + b"\xff\xc9" + FRAME, "unsupported", "hierarchical or arithmetic"),
        (START + SCAN, "corrupt", "has no start-of-frame segment"),
        (START + b"\xff\xd9" + FRAME, "corrupt", "has no start-of-frame segment"),
        (START + b"\x00\xc0" + FRAME, "corrupt", "has no start-of-frame segment"),
        (START + b"\xff\xc0" + FRAME[:4], "corrupt", "ends in its head"),
        (b"\xff\xd7" + FRAME, "corrupt", "begins like none that is known"),
    ],
)
def test_a_frame_that_cannot_be_read_is_rejected(frame: bytes, reason: str, detail: str) -> None:
    with pytest.raises(RejectedImageError, match=detail) as error:
        read_frame_info(frame)
    assert error.value.reason == reason


def test_the_same_head_is_read_where_it_is_supported() -> None:
    info = read_frame_info(START + b"\xff\xc0" + FRAME + SCAN)
    assert (info.kind, info.rows, info.columns, info.bits) == ("jpeg", 64, 64, 8)
