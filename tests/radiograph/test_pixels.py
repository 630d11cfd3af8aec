"""Which decoder takes which transfer syntax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.pixels.decoders.base import Decoder, get_decoder

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.extras import DECODERS
from pneumo_fast.radiograph import pixels
from pneumo_fast.radiograph.codestream import find_loss, read_frame_info
from pneumo_fast.radiograph.frame import decode
from pneumo_fast.radiograph.header import PixelFormat
from pneumo_fast.radiograph.pixels import installed_decoders
from pneumo_fast.radiograph.read import read_radiograph
from tests.support.radiograph_files import RAMP
from tests.support.radiograph_makers import jpeg_ls, wide_frame

COMPRESSED = [syntax for syntax in pixels.PLUGINS if syntax != uid.JPEGExtended12Bit]


def only(monkeypatch: pytest.MonkeyPatch, *plugins: str) -> None:
    """Let these be all that is installed."""
    monkeypatch.setattr(Decoder, "available_plugins", property(lambda _decoder: plugins))


def plugins_of(syntax: str, bits: int | None = None) -> list[str]:
    (found,) = [known for known in installed_decoders() if (known.uid, known.bits) == (syntax, bits)]
    return found.plugins


def test_every_transfer_syntax_that_is_read_is_listed() -> None:
    listed = {known.uid for known in installed_decoders()}
    assert listed == {*pixels.PLUGINS, *uid.UncompressedTransferSyntaxes}
    assert all(get_decoder(uid.UID(syntax)) for syntax in listed)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.keyword)
def test_order_is_that_of_decoding(syntax: uid.UID, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "gdcm", "pillow", "pydicom", "pylibjpeg")
    assert tuple(plugins_of(syntax)) == pixels.PLUGINS[syntax]
    monkeypatch.setitem(pixels.PLUGINS, syntax, ("pillow", "gdcm"))
    assert plugins_of(syntax) == ["pillow", "gdcm"]


def test_a_lossy_jpeg_of_12_bits_has_its_own_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "pillow", "pylibjpeg")
    assert plugins_of(uid.JPEGExtended12Bit, 8) == ["pillow", "pylibjpeg"]
    assert plugins_of(uid.JPEGExtended12Bit, 12) == ["pylibjpeg"]


def test_what_the_decoders_are_said_to_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "pillow", "pydicom")
    rejected = {known.syntax for known in installed_decoders() if not known.plugins}
    kinds = {"JPEGLossless": "JPEG Lossless", "JPEGLS": "JPEG-LS", "HTJ2K": "HTJ2K", "JPEGExtended12Bit": "12-bit JPEG"}
    assert all(name.startswith(tuple(kinds)) for name in rejected)
    said = DECODERS.without.split(" are rejected")[0]
    assert all(word in said for word in kinds.values())
    assert all(any(name.startswith(kind) for name in rejected) for kind in kinds)


@pytest.mark.parametrize(("near", "lossy"), [(b"\0", False), (b"\2", True)])
def test_jpeg_ls_tells_whether_it_is_lossless(near: bytes, lossy: bool) -> None:
    frame = jpeg_ls(64, 64).replace(b"\x08\x01\x01\x00\x00", b"\x08\x01\x01\x00" + near)
    assert find_loss(frame, read_frame_info(frame)) is lossy


@pytest.mark.parametrize(
    ("syntax", "lossy", "note", "white"),
    [
        (uid.JPEG2000, "01", "clipped_to_bits_stored", 1.0),
        (uid.JPEG2000, "00", "high_bits_masked", 0.0),
        (uid.JPEG2000Lossless, "01", "high_bits_masked", 0.0),  # the loss was an earlier one
    ],
)
def test_reversible_jpeg_2000_may_have_been_cut_short(
    syntax: uid.UID, lossy: str, note: str, white: float, tmp_path: Path
) -> None:
    pixels = np.where(RAMP > 125, 4096, 0).astype(np.uint16)
    wide_frame(pixels, syntax=syntax, BitsStored=12, LossyImageCompression=lossy)(tmp_path / "file")
    radiograph = read_radiograph(tmp_path / "file", 64)
    assert radiograph.notes == (note,)
    assert radiograph.pixels[-1, 0] == white


@pytest.mark.parametrize("text", ["", "Unable to allocate 8 GiB for an array"])
def test_memory_that_runs_out_in_a_plugin_is_no_damage(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide_frame(RAMP.astype(np.uint16))(tmp_path / "file")

    def run_out(*_: object, **_more: object) -> None:
        raise MemoryError(text) if text else MemoryError

    monkeypatch.setattr("openjpeg.utils._openjpeg.decode", run_out)
    with pytest.raises(RejectedImageError, match="out_of_memory"):
        read_radiograph(tmp_path / "file", 64)


def test_a_syntax_without_a_decoder_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    assert plugins_of(uid.RLELossless) == []
    header = pydicom.dcmread(str(get_testdata_file("MR_small_RLE.dcm")))
    with pytest.raises(RejectedImageError, match=rf"needs_decoders: RLE Lossless: {DECODERS.command}$"):
        decode(header, PixelFormat.of(header))
