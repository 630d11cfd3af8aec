"""Makes small DICOM files of every kind; the pixels are a ramp whose values the tests can work out by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

SIDE = 64
RAMP: NDArray[np.uint8] = (2 * np.add.outer(np.arange(SIDE), np.arange(SIDE))).astype(np.uint8)
"""Shape (64, 64), the even values 0 to 252."""
X: NDArray[np.float64] = RAMP.astype(np.float64)
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def header(pixels: NDArray[Any], photometric: str = "MONOCHROME2", **attributes: Any) -> Dataset:
    """A data set that describes the pixels; attributes replace what is written otherwise, and None leaves one out."""
    dataset = Dataset()
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.PatientName = "SYNTHETIC"
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = photometric
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    for keyword, value in attributes.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    if "BitsStored" in dataset and "HighBit" not in attributes:
        dataset.HighBit = dataset.BitsStored - 1
    return dataset


def save(
    path: Path,
    pixels: NDArray[Any] = RAMP,
    photometric: str = "MONOCHROME2",
    *,
    syntax: UID = uid.ExplicitVRLittleEndian,
    frames: list[bytes] | None = None,
    data: bytes | None = None,
    **attributes: Any,
) -> bytes:
    """Write a file and return its bytes; ``frames`` are compressed frames, ``data`` the pixel data as they stand."""
    dataset = header(pixels, photometric, **attributes)
    raw = pixels.astype(pixels.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
    dataset.PixelData = data if data is not None else encapsulate(frames) if frames else raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if frames or syntax.is_encapsulated or pixels.itemsize == 1 else "OW"
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path.read_bytes()


def jpeg(pixels: NDArray[Any] = RAMP, **options: Any) -> bytes:
    return _encoded(pixels, "JPEG", **{"quality": 95, **options})


def jpeg_2000(pixels: NDArray[Any] = RAMP, *, boxes: bool = False) -> bytes:
    return _encoded(pixels, "JPEG2000", irreversible=False, no_jp2=not boxes)


def _encoded(pixels: NDArray[Any], kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue() + b"\0" * (stream.tell() % 2)


def decoded_jpeg(frame: bytes) -> NDArray[np.float64]:
    """What Pillow alone makes of a frame, in [0, 1]."""
    with Image.open(io.BytesIO(frame)) as image:
        return np.asarray(image) / 255


def lut(entries: NDArray[Any], first: int, bits: int, *, count: int | None = None, words: bool = True) -> Dataset:
    """An item of a LUT sequence, its data as OW bytes of 16-bit words."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) if count is None else count, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2" if words else "u1").tobytes())
    item.ModalityLUTType = "US"
    return item
