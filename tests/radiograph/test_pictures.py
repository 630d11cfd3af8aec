"""Pictures that are not what they declare."""

from __future__ import annotations

import pytest

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.pictures import read_picture
from tests.support.radiograph_files import jpeg


def test_a_picture_of_two_declared_sizes_is_rejected() -> None:
    """The size that is checked against the limit is that of the first frame's head; Pillow takes the last."""
    data = jpeg()
    at = data.index(b"\xff\xc0")
    head = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    smaller = head[:5] + b"\x00\x20\x00\x20" + head[9:]
    assert read_picture(data, lambda *_: None, 1 << 20).pixels.shape == (64, 64)
    with pytest.raises(RejectedImageError, match="the picture declares two sizes") as error:
        read_picture(data[:at] + smaller + data[at:], lambda *_: None, 1 << 20)
    assert error.value.reason == "corrupt"
