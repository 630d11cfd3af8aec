"""Writes an image as a DICOM file in RSNA's shape: Secondary Capture, JPEG Baseline, 8 bit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from pneumo_fast.errors import ConfigError


def write_dicom(
    path: Path,
    pixels: NDArray[Any],
    *,
    transfer_syntax: str = uid.JPEGBaseline8Bit,
    photometric: str = "MONOCHROME2",
    jpeg_quality: int = 92,
    **attributes: Any,
) -> None:
    """Write one Secondary Capture image as a DICOM file.

    Parameters
    ----------
    path : Path
        File to write; the UIDs are derived from its name, so that equal calls write equal bytes.
    pixels : ndarray
        Stored values: uint8, int8, uint16 or int16, (rows, columns), or (rows, columns, 3) for colour.
        JPEG Baseline takes uint8 (rows, columns) only.
    transfer_syntax : str
        UID of JPEG Baseline (the default), Explicit VR Little Endian or Implicit VR Little Endian.
    photometric : str
        Photometric Interpretation; it is declared, the values are not changed.
    jpeg_quality : int
        Pillow's quality, 1 to 95.
    **attributes
        Further attributes by DICOM keyword; they replace what is written otherwise, and None leaves one out.

    Raises
    ------
    ConfigError
        If the transfer syntax and the pixels do not go together, or a keyword is not DICOM's.
    """
    dataset = _header(path.stem, photometric)
    dataset.update(_pixel_module(pixels, UID(transfer_syntax), jpeg_quality))
    for keyword, value in attributes.items():
        if tag_for_keyword(keyword) is None:
            raise ConfigError(f"{keyword} is not a DICOM keyword")
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    dataset.save_as(path, enforce_file_format=True)


def _header(name: str, photometric: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = (
        uid.generate_uid(entropy_srcs=["pneumo_fast", level, name]) for level in ("instance", "series", "study")
    )
    dataset.Modality = "CR"
    dataset.ConversionType = "WSD"
    dataset.QualityControlImage = "YES"  # a phantom, no patient (PS3.3 C.7.6.1)
    dataset.PatientName = "SYNTHETIC"
    dataset.PatientID = "SYNTHETIC"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.BodyPartExamined = "CHEST"
    dataset.PhotometricInterpretation = photometric
    return dataset


def _pixel_module(pixels: NDArray[Any], transfer_syntax: UID, jpeg_quality: int) -> Dataset:
    """Describe and encode the pixels (PS3.3 C.7.6.3, PS3.5 A.4)."""
    if pixels.dtype.kind not in "iu" or pixels.itemsize > 2 or (pixels.ndim, *pixels.shape[2:]) not in {(2,), (3, 3)}:
        raise ConfigError(
            f"pixels are {pixels.dtype} {pixels.shape}, but have to be 8- or 16-bit, (rows, columns[, 3])"
        )
    dataset = Dataset()
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if transfer_syntax == uid.JPEGBaseline8Bit:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
        dataset.PixelData = encapsulate([_jpeg(pixels, jpeg_quality)])
        dataset["PixelData"].VR = "OB"
    elif transfer_syntax in {uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian}:
        data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 and not transfer_syntax.is_implicit_VR else "OW"
    else:
        raise ConfigError(
            f"transfer syntax {transfer_syntax.name} cannot be written: "
            "use JPEG Baseline, Explicit VR Little Endian or Implicit VR Little Endian"
        )
    return dataset


def _jpeg(pixels: NDArray[Any], quality: int) -> bytes:
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise ConfigError(f"JPEG Baseline takes uint8 (rows, columns), not {pixels.dtype} {pixels.shape}")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()
