"""Pixels that hold padding, whatever sign and how many bits their value was written with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from pneumo_fast.radiograph.read import read_radiograph
from tests.support.radiograph_files import RAMP, save


def test_padding_does_not_count(tmp_path: Path) -> None:
    """Neither the pixels that hold padding nor the border that makes the image square."""
    save(tmp_path / "file", RAMP[:, :40], PixelPaddingValue=0, PixelPaddingRangeLimit=18)
    radiograph = read_radiograph(tmp_path / "file", 64)
    assert radiograph.padding_pixels == int((RAMP[:, :40] <= 18).sum()) + 24 * 64


@pytest.mark.parametrize(("value", "bits"), [(63536, 16), (-2000, 16), (2096, 12)])
def test_padding_written_with_the_wrong_sign(tmp_path: Path, value: int, bits: int) -> None:
    pixels = np.where(RAMP < 20, -2000, RAMP.astype(np.int16)).astype(np.int16)
    save(tmp_path / "file", pixels, BitsStored=bits)
    dataset = pydicom.dcmread(tmp_path / "file")
    dataset.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    dataset.save_as(tmp_path / "file")
    assert read_radiograph(tmp_path / "file", 64).padding_pixels == int((RAMP < 20).sum())


@pytest.mark.parametrize(
    ("signed", "value", "limit", "padded"),
    [
        (True, -32768, None, None),  # cut down to 12 bits it would be 0
        (False, 65535, None, None),  # 4095
        (False, -1, None, None),
        (False, 4096, None, None),
        (False, 4095, None, (4095, 4095)),
        (False, 0, 65535, (0, 0)),
        (True, 63536, None, (-2000, -2000)),
        (True, 2096, None, (-2000, -2000)),
        (True, -32768, -1990, (-2048, -1990)),
        (False, 4000, 4095, (4000, 4095)),
    ],
)
def test_padding_is_not_cut_down_to_bits_stored(
    tmp_path: Path, signed: bool, value: int, limit: int | None, padded: tuple[int, int] | None
) -> None:
    low = -2048 if signed else 0
    pixels = np.arange(low, low + 4096).reshape(64, 64).astype(np.int16 if signed else np.uint16)
    save(tmp_path / "file", pixels, "MONOCHROME1", BitsStored=12)
    whole = read_radiograph(tmp_path / "file", 64)
    dataset = pydicom.dcmread(tmp_path / "file")
    for keyword, number in (("PixelPaddingValue", value), ("PixelPaddingRangeLimit", limit)):
        if number is not None:
            dataset.add_new(keyword, "SS" if number < 0 else "US", number)
    dataset.save_as(tmp_path / "file")
    first, last = padded or (1, 0)
    is_padding = (pixels >= first) & (pixels <= last)
    radiograph = read_radiograph(tmp_path / "file", 64)
    assert radiograph.padding_pixels == is_padding.sum()
    np.testing.assert_allclose(radiograph.pixels, np.where(is_padding, 0.0, whole.pixels), atol=1e-6)


@pytest.mark.parametrize("value", [-32768, 0x8000])
def test_padding_that_only_the_whole_words_hold(tmp_path: Path, value: int) -> None:
    pixels = np.where(RAMP < 20, -32768, RAMP - 30.0).astype(np.int16)
    save(tmp_path / "file", pixels, "MONOCHROME1", BitsStored=12)
    dataset = pydicom.dcmread(tmp_path / "file")
    dataset.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    dataset.save_as(tmp_path / "file")
    radiograph = read_radiograph(tmp_path / "file", 64)
    assert (pixels == 0).any()
    np.testing.assert_array_equal(radiograph.pixels == 0.0, RAMP < 20)
    assert radiograph.notes == ("high_bits_masked",)
