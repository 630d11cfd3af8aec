"""One DICOM file, written and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from pneumo_fast.errors import ConfigError
from pneumo_fast.phantoms.dicom_file import write_dicom


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">u2", "i2"])
def test_uncompressed_values_come_back(tmp_path: Path, dtype: str, transfer_syntax: str, photometric: str) -> None:
    stored = np.random.default_rng(0).integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (5, 7)).astype(dtype)
    write_dicom(tmp_path / "a.dcm", stored, transfer_syntax=transfer_syntax, photometric=photometric)
    file = pydicom.dcmread(tmp_path / "a.dcm")
    assert file.file_meta.TransferSyntaxUID == transfer_syntax
    assert file.PhotometricInterpretation == photometric
    np.testing.assert_array_equal(file.pixel_array, stored)


def test_jpeg_values_come_back_nearly(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(60), 2 * np.arange(70)).astype(np.uint8)
    write_dicom(tmp_path / "a.dcm", ramp, jpeg_quality=95)
    file = pydicom.dcmread(tmp_path / "a.dcm")
    assert (file.file_meta.TransferSyntaxUID, file.LossyImageCompression) == (JPEGBaseline8Bit, "01")
    assert np.abs(file.pixel_array.astype(int) - ramp).max() <= 3


def test_colour_is_written_as_it_is(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    write_dicom(tmp_path / "a.dcm", colour, transfer_syntax=ExplicitVRLittleEndian, photometric="RGB")
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "a.dcm").pixel_array, colour)


def test_attributes_replace_and_leave_out(tmp_path: Path) -> None:
    stored = np.zeros((4, 4), np.uint16)
    options: dict[str, Any] = {
        "BitsStored": 12,
        "HighBit": 11,
        "WindowCenter": 40.0,
        "Modality": None,
        "ViewPosition": None,
    }
    write_dicom(tmp_path / "a.dcm", stored, transfer_syntax=ExplicitVRLittleEndian, **options)
    file = pydicom.dcmread(tmp_path / "a.dcm")
    assert (file.BitsStored, file.HighBit, file.WindowCenter) == (12, 11, 40.0)
    assert "Modality" not in file
    assert "ViewPosition" not in file


@pytest.mark.parametrize(
    ("stored", "options", "message"),
    [
        (np.zeros((4, 4), np.uint16), {}, "JPEG Baseline takes uint8"),
        (np.zeros((4, 4, 3), np.uint8), {}, "JPEG Baseline takes uint8"),
        (np.zeros((4, 4), np.float32), {}, "pixels are float32"),
        (np.zeros(4, np.uint8), {}, r"pixels are uint8 \(4,\)"),
        (np.zeros((4, 4), np.uint8), {"transfer_syntax": JPEG2000Lossless}, "JPEG 2000 .* cannot be written"),
        (np.zeros((4, 4), np.uint8), {"WindowCentre": 1}, "WindowCentre is not a DICOM keyword"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, stored: NDArray[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_dicom(tmp_path / "a.dcm", stored, **options)
    assert not list(tmp_path.iterdir())
