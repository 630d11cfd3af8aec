"""Pictures: which way is up, how many pixels are too many, and those that are not what they declare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.pictures import read_picture
from pneumo_fast.radiograph.read import read_radiograph
from tests.support.radiograph_files import RAMP, jpeg


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


def test_a_picture_has_no_metadata(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(jpeg(RAMP[:48]))
    metadata = read_radiograph(tmp_path / "a.dcm", 64).metadata
    known = {"height": 48, "width": 64, "bits_stored": 8, "photometric": "MONOCHROME2", "pixel_height": 1.0}
    assert {name: known.get(name, "") for name in metadata.__slots__} == {
        name: getattr(metadata, name) for name in metadata.__slots__
    }


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_pillows_limit_of_pixels_is_not_ours(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a", kind)
    expected = read_radiograph(tmp_path / "a", 64).pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2 - 1)
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a", 64).pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """Against Pillow's own, on a picture that is no square and has no symmetry; full scale and reduced."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.add.outer(np.arange(128) // 2, np.arange(96) * 2).astype(np.uint8))
    picture.save(tmp_path / "a.jpg", quality=100, exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        upright = np.asarray(ImageOps.exif_transpose(image)) / 255
    height, width = upright.shape
    radiograph = read_radiograph(tmp_path / "a.jpg", 128)
    top, left = (128 - height) // 2, (128 - width) // 2
    np.testing.assert_allclose(radiograph.pixels[top : top + height, left : left + width], upright, atol=1e-6)
    assert (radiograph.metadata.height, radiograph.metadata.width) == (height, width)
    fast, exact = (read_radiograph(tmp_path / "a.jpg", 32, decode_mode=mode).pixels for mode in ("fast", "exact"))
    assert np.abs(fast - exact).max() < 6 / 255


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("exif", [b"", b"II*\0", b"rubbish", b"II*\0\xff\xff\xff\x7f"], ids=repr)
def test_a_picture_whose_exif_is_damaged_stands_upright(kind: str, exif: bytes, tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "file", kind, exif=b"Exif\0\0" + exif)
    radiograph = read_radiograph(tmp_path / "file", len(RAMP))
    assert radiograph.notes == ()
    np.testing.assert_allclose(radiograph.pixels, RAMP / 255, atol=0.05)
