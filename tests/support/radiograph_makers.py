"""A row of the table in ``radiograph_cases``, and the ways in which its file can be written or damaged."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from openjpeg.utils import encode
from PIL import Image
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate, encapsulate_extended

from tests.support.radiograph_files import RAMP, jpeg, lut, save

Make = Callable[[Path], object]
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    title: str
    outcome: str
    """``read``, or the reason code of the rejection."""
    make: Make
    """Writes the file."""
    values: Values | None = None
    """The display values, in [0, 1], worked out by hand."""
    notes: str = ""
    """All notes of the radiograph, in order."""
    intensity: str = "range"
    tolerance: float = 1e-6


def file(*arguments: Any, **options: Any) -> Make:
    return lambda path: save(path, *arguments, **options)


def read(title: str, make: Make, values: Values, notes: str = "", **more: Any) -> Case:
    return Case(title, "read", make, values, notes, **more)


def written(content: Callable[[Path], bytes]) -> Make:
    return lambda path: path.write_bytes(content(path))


def edited(edit: Callable[[bytes], bytes], **options: Any) -> Make:
    return written(lambda path: edit(save(path, **options)))


def picture(image: Image.Image | NDArray[Any], kind: str, **options: Any) -> Make:
    def make(path: Path) -> None:
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, kind, **options)

    return make


def window(x: Values, center: float, width: float) -> Values:
    """The LINEAR function as PS3.3 C.11.2.1.2.1 writes it, with output 0 to 1."""
    low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    return np.where(x <= low, 0.0, np.where(x > high, 1.0, (x - (center - 0.5)) / (width - 1) + 0.5))


def with_offsets(offsets: bytes) -> bytes:
    """A JPEG frame behind a Basic Offset Table of these bytes."""
    table = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(offsets)) + offsets
    return table + encapsulate([jpeg()], has_bot=False)[8:]


def odd_fragment() -> bytes:
    frame = jpeg().rstrip(b"\0")
    frame += b"\xff" * (1 - len(frame) % 2)  # fill bytes may stand behind the end of the image
    return b"".join(
        b"\xfe\xff" + struct.pack("<HI", *item) + content
        for item, content in (((0xE000, 0), b""), ((0xE000, len(frame)), frame), ((0xE0DD, 0), b""))
    )


def extended_offsets(path: Path) -> None:
    data, offsets, lengths = encapsulate_extended([jpeg()])
    save(path, syntax=BASELINE, data=data, ExtendedOffsetTable=offsets, ExtendedOffsetTableLengths=lengths)


def no_meta(data: bytes) -> bytes:
    """From the first element after the file meta information."""
    return data[data.index(b"\x08\x00\x16\x00") :]


def no_syntax(path: Path) -> None:
    data = save(path, syntax=BASELINE, frames=[jpeg()])
    path.write_bytes(no_meta(data))


def without_syntax(data: bytes) -> bytes:
    """Without the Transfer Syntax UID in its file meta information."""
    at = data.index(b"\x02\x00\x10\x00UI")
    (length,) = struct.unpack_from("<H", data, at + 6)
    return data[:at] + data[at + 8 + length :]


def declared(frame: bytes, marker: bytes, offset: int, size: tuple[int, int], order: str) -> bytes:
    """The frame with another size in its own head."""
    at = frame.index(marker) + offset
    return frame[:at] + struct.pack(order, *size) + frame[at + struct.calcsize(order) :]


def jpeg_ls(rows: int, columns: int) -> bytes:
    frame = b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 11, 8, rows, columns, 1) + b"\x01\x11\x00"
    return frame + b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00\xff\xd9"


def deflated_bomb(path: Path) -> None:
    data = save(path)
    meta, rest = data[: len(data) - len(no_meta(data))], no_meta(data)
    meta = meta.replace(b"\x14\x001.2.840.10008.1.2.1\0", b"\x16\x001.2.840.10008.1.2.1.99")
    deflating = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = deflating.compress(rest) + deflating.flush(zlib.Z_FULL_FLUSH)
    zeros = deflating.compress(bytes(1 << 20)) + deflating.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(meta + first + 1024 * zeros + deflating.flush())


def deflated_bomb_behind(path: Path, *, preamble: bool) -> None:
    """The same where its transfer syntax stands far behind a long (0002,0001), or without preamble."""
    deflated_bomb(path)
    data = path.read_bytes()
    meta_end = data.index(b"\x02\x00\x10\x00UI")
    long = b"\x02\x00\x01\x00OB\0\0" + struct.pack("<I", 10_000) + bytes(10_000)
    path.write_bytes(data[:132] + long + data[meta_end:] if preamble else data[meta_end:])


def made_square(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """An image whose pixels are twice as high as wide, fitted into the square that it fills now, by Pillow."""
    rows, columns = image.shape
    narrow = Image.fromarray(image.astype(np.float32)).resize((columns // 2, rows), Image.Resampling.BILINEAR)
    return np.pad(np.asarray(narrow, np.float64), ((0, 0), (columns // 4, columns // 4)))


def signed_lut(entries: NDArray[Any]) -> Dataset:
    """An item of a LUT sequence of 16 bits whose data are signed numbers, as in old files."""
    item = lut(entries, 0, 16)
    item.add_new("LUTData", "SS", entries.astype("<u2").view("<i2").tolist())
    return item


def palette(entries: NDArray[Any], bits: int) -> dict[str, Any]:
    tables = {f"{c}PaletteColorLookupTableData": entries.astype("<u2").tobytes() for c in ("Red", "Green", "Blue")}
    descriptors = {f"{c}PaletteColorLookupTableDescriptor": [len(entries), 0, bits] for c in ("Red", "Green", "Blue")}
    return tables | descriptors


def huge_png(path: Path) -> None:
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)))


def rle(path: Path) -> None:
    dataset = pydicom.dcmread(io.BytesIO(save(path)))
    dataset.compress(uid.RLELossless, encoding_plugin="pydicom")
    dataset.save_as(path)


def wavelet(pixels: NDArray[Any], bits: int = 12, **declared: Any) -> Make:
    """A JPEG 2000 frame of the sign of ``pixels``, whose header declares something else."""

    def make(path: Path) -> None:
        dataset = pydicom.dcmread(io.BytesIO(save(path, pixels, BitsStored=bits)))
        dataset.compress(uid.JPEG2000Lossless, encoding_plugin="pylibjpeg")
        for keyword, value in declared.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)

    return make


def wide_frame(pixels: NDArray[Any], *, ratio: float = 1, **declared: Any) -> Make:
    """A JPEG 2000 frame of 16 bits, reversible unless compressed by a ratio."""
    ratios = [ratio] if ratio > 1 else None
    frame = bytes(encode(pixels, 16, 2, compression_ratios=ratios))
    syntax = uid.JPEG2000 if ratio > 1 else J2K
    return file(pixels, frames=[frame + b"\0" * (len(frame) % 2)], **{"syntax": syntax, **declared})


def truncated_png(path: Path) -> None:
    Image.fromarray(RAMP).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:-60])


def exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


BASELINE, EXTENDED, J2K = uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEG2000Lossless
