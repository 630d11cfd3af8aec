"""Every kind of file, and what becomes of it: the table that ``docs/radiographs.md`` shows and ``test_dicom`` holds."""

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
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, encapsulate_extended

from tests.support.radiograph_files import RAMP, X, decoded_jpeg, header, jpeg, jpeg_2000, lut, save

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


def _file(*arguments: Any, **options: Any) -> Make:
    return lambda path: save(path, *arguments, **options)


def _read(title: str, make: Make, values: Values, notes: str = "", **more: Any) -> Case:
    return Case(title, "read", make, values, notes, **more)


def _bytes(content: Callable[[Path], bytes]) -> Make:
    return lambda path: path.write_bytes(content(path))


def _edited(edit: Callable[[bytes], bytes], **options: Any) -> Make:
    return _bytes(lambda path: edit(save(path, **options)))


def _picture(image: Image.Image | NDArray[Any], kind: str, **options: Any) -> Make:
    def make(path: Path) -> None:
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, kind, **options)

    return make


def _window(x: Values, center: float, width: float) -> Values:
    """The LINEAR function as PS3.3 C.11.2.1.2.1 writes it, with output 0 to 1."""
    low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    return np.where(x <= low, 0.0, np.where(x > high, 1.0, (x - (center - 0.5)) / (width - 1) + 0.5))


def _with_offsets(offsets: bytes) -> bytes:
    """A JPEG frame behind a Basic Offset Table of these bytes."""
    table = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(offsets)) + offsets
    return table + encapsulate([jpeg()], has_bot=False)[8:]


def _odd_fragment() -> bytes:
    frame = jpeg().rstrip(b"\0")
    frame += b"\xff" * (1 - len(frame) % 2)  # fill bytes may stand behind the end of the image
    return b"".join(
        b"\xfe\xff" + struct.pack("<HI", *item) + content
        for item, content in (((0xE000, 0), b""), ((0xE000, len(frame)), frame), ((0xE0DD, 0), b""))
    )


def _extended_offsets(path: Path) -> None:
    data, offsets, lengths = encapsulate_extended([jpeg()])
    save(path, syntax=_BASELINE, data=data, ExtendedOffsetTable=offsets, ExtendedOffsetTableLengths=lengths)


def _no_meta(data: bytes) -> bytes:
    """From the first element after the file meta information."""
    return data[data.index(b"\x08\x00\x16\x00") :]


def _no_syntax(path: Path) -> None:
    data = save(path, syntax=_BASELINE, frames=[jpeg()])
    path.write_bytes(_no_meta(data))


def _declared(frame: bytes, marker: bytes, offset: int, size: tuple[int, int], order: str) -> bytes:
    """The frame with another size in its own head."""
    at = frame.index(marker) + offset
    return frame[:at] + struct.pack(order, *size) + frame[at + struct.calcsize(order) :]


def _jpeg_ls(rows: int, columns: int) -> bytes:
    frame = b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 11, 8, rows, columns, 1) + b"\x01\x11\x00"
    return frame + b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00\xff\xd9"


def _deflated_bomb(path: Path) -> None:
    data = save(path)
    meta, rest = data[: len(data) - len(_no_meta(data))], _no_meta(data)
    meta = meta.replace(b"\x14\x001.2.840.10008.1.2.1\0", b"\x16\x001.2.840.10008.1.2.1.99")
    deflating = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = deflating.compress(rest) + deflating.flush(zlib.Z_FULL_FLUSH)
    zeros = deflating.compress(bytes(1 << 20)) + deflating.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(meta + first + 1024 * zeros + deflating.flush())


def _palette(entries: NDArray[Any], bits: int) -> dict[str, Any]:
    tables = {f"{c}PaletteColorLookupTableData": entries.astype("<u2").tobytes() for c in ("Red", "Green", "Blue")}
    descriptors = {f"{c}PaletteColorLookupTableDescriptor": [len(entries), 0, bits] for c in ("Red", "Green", "Blue")}
    return tables | descriptors


def _huge_png(path: Path) -> None:
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)))


def _rle(path: Path) -> None:
    dataset = pydicom.dcmread(io.BytesIO(save(path)))
    dataset.compress(uid.RLELossless, encoding_plugin="pydicom")
    dataset.save_as(path)


def _truncated_png(path: Path) -> None:
    Image.fromarray(RAMP).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:-60])


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


_BASELINE, _EXTENDED, _J2K = uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEG2000Lossless
_WIDE = RAMP.astype(np.uint16) * 16
_SIGNED = RAMP.astype(np.int16) * 8 - 1000
_GREY_RGB = np.repeat(RAMP[..., None], 3, axis=2)
_COLOURED = np.stack([RAMP, RAMP[::-1], RAMP], axis=2)
_YBR = np.stack([RAMP, np.full_like(RAMP, 128), np.full_like(RAMP, 128)], axis=2)
_YBR_422 = np.stack([RAMP[:, ::2], RAMP[:, 1::2], _YBR[:, ::2, 1], _YBR[:, ::2, 2]], axis=2).tobytes()
_J = decoded_jpeg(jpeg())
_PROGRESSIVE = jpeg(progressive=True)
_PAD = np.where(X < 20, 0.0, X / 255)
_ODD = RAMP[:33, :33]

GREYSCALE = [
    _read("8 bits, MONOCHROME2, no window", _file(), X / 255),
    _read("MONOCHROME1", _file(photometric="MONOCHROME1"), 1 - X / 255),
    _read(
        "MONOCHROME1 with a window: windowed, then inverted",
        _file(photometric="MONOCHROME1", WindowCenter=100, WindowWidth=50),
        1 - _window(X, 100, 50),
        intensity="window",
    ),
    _read(
        "MONOCHROME1 with Presentation LUT Shape INVERSE: inverted once",
        _file(photometric="MONOCHROME1", PresentationLUTShape="INVERSE"),
        1 - X / 255,
    ),
    _read(
        "MONOCHROME2 with Presentation LUT Shape INVERSE: not inverted",
        _file(PresentationLUTShape="INVERSE"),
        X / 255,
        "presentation_lut_contradicts",
    ),
    _read("12 bits stored in 16", _file(_WIDE, BitsStored=12), X * 16 / 4095),
    _read("15 bits stored in 16", _file(_WIDE, BitsStored=15), X * 16 / 32767),
    _read("20 bits stored in 32", _file(RAMP.astype(np.uint32) << 12, BitsStored=20), X * 4096 / (2**20 - 1)),
    _read("signed pixels", _file(_SIGNED, BitsStored=12), (X * 8 - 1000 + 2048) / 4095),
    _read(
        "rescale of slope 2.8 and intercept -240: the full range is white",
        _file(RescaleSlope="2.8", RescaleIntercept="-240"),
        X / 255,
    ),
    _read(
        "rescale, then window",
        _file(RescaleSlope="2.8", RescaleIntercept="-240", WindowCenter="100", WindowWidth="300"),
        _window(X * 2.8 - 240, 100, 300),
        intensity="window",
    ),
    _read("negative rescale slope", _file(RescaleSlope="-1", RescaleIntercept="255"), 1 - X / 255),
    _read(
        "modality LUT",
        _file(ModalityLUTSequence=[lut(np.arange(256)[::-1] * 16, 0, 12)]),
        (4080 - X * 16) / 4095,
    ),
    _read(
        "VOI LUT, also beside a window: the LUT counts",
        _file(VOILUTSequence=[lut(np.arange(256) // 2, 0, 8)], WindowCenter=100, WindowWidth=50),
        X / 2 / 127,
        intensity="voi_lut",
    ),
    _read("window, center or width empty", _file(WindowCenter="", WindowWidth=""), X / 255),
    _read(
        "several windows: the first",
        _file(WindowCenter=["100", "40"], WindowWidth=["50", "80"]),
        _window(X, 100, 50),
        "first_window_of_several",
        intensity="window",
    ),
    _read(
        "a window that cannot belong to these values: ignored",
        _file(WindowCenter=2048, WindowWidth=4096),
        X / 255,
        "window_ignored",
    ),
    _read(
        "overlay or rubbish above Bits Stored: masked",
        _file(_WIDE | np.uint16(0x8000), BitsStored=12),
        X * 16 / 4095,
        "high_bits_masked",
    ),
    _read(
        "Pixel Padding Value: black", _file(photometric="MONOCHROME1", PixelPaddingValue=0), np.where(X, 1 - X / 255, 0)
    ),
    _read("Pixel Padding Range Limit", _file(PixelPaddingValue=0, PixelPaddingRangeLimit=18), _PAD),
    _read(
        "High Bit, Bits Stored, Pixel Representation, Photometric Interpretation or Samples per Pixel missing",
        _file(
            **dict.fromkeys(
                ("HighBit", "PixelRepresentation", "PhotometricInterpretation", "SamplesPerPixel", "BitsStored")
            )
        ),
        X / 255,
        "no_SamplesPerPixel no_PhotometricInterpretation no_BitsStored no_HighBit no_PixelRepresentation",
    ),
]
ENCODINGS = [
    _read("implicit little-endian", _file(syntax=uid.ImplicitVRLittleEndian), X / 255),
    _read("explicit big-endian", _file(_WIDE, syntax=uid.ExplicitVRBigEndian, BitsStored=12), X * 16 / 4095),
    _read("deflated", _file(syntax=uid.DeflatedExplicitVRLittleEndian), X / 255),
    _read("RLE", _rle, X / 255),
    _read("JPEG Baseline", _file(syntax=_BASELINE, frames=[jpeg()]), _J),
    _read("JPEG Extended of 8 bits", _file(syntax=_EXTENDED, frames=[jpeg()]), _J),
    _read(
        "JPEG Baseline whose frame is progressive",
        _file(syntax=_BASELINE, frames=[_PROGRESSIVE]),
        decoded_jpeg(_PROGRESSIVE),
        "other_syntax",
    ),
    _read(
        "JPEG Baseline with an embedded colour profile",
        _file(syntax=_BASELINE, frames=[jpeg(icc_profile=b"x" * 99)]),
        _J,
    ),
    _read("JPEG 2000", _file(_WIDE, syntax=_J2K, frames=[jpeg_2000(_WIDE)], BitsStored=12), X * 16 / 4095),
    _read("JPEG 2000 with the boxes of a JP2 file", _file(syntax=_J2K, frames=[jpeg_2000(boxes=True)]), X / 255),
    _read(
        "another codestream than the transfer syntax says",
        _file(syntax=_BASELINE, frames=[jpeg_2000()]),
        X / 255,
        "other_syntax",
    ),
    _read(
        "one frame in several fragments", _file(syntax=_BASELINE, data=encapsulate([jpeg()], fragments_per_frame=3)), _J
    ),
    _read("Basic Offset Table empty", _file(syntax=_BASELINE, data=_with_offsets(b"")), _J),
    _read("Basic Offset Table wrong", _file(syntax=_BASELINE, data=_with_offsets(b"\x99\x99\0\0")), _J),
    _read("Extended Offset Table", _extended_offsets, _J),
    _read("a fragment of odd length", _file(syntax=_BASELINE, data=_odd_fragment()), _J),
    _read("no preamble", _edited(lambda data: data[132:]), X / 255),
    _read("no file meta information", _edited(_no_meta), X / 255),
    _read("no file meta information, implicit", _edited(_no_meta, syntax=uid.ImplicitVRLittleEndian), X / 255),
    _read("compressed, without a transfer syntax", _no_syntax, _J, "other_syntax"),
    _read(
        "group length of the file meta information wrong",
        _edited(lambda data: data[:140] + b"\x07" + data[141:]),
        X / 255,
    ),
    _read(
        "a sequence of undefined length", _edited(lambda data: data, ReferencedStudySequence=[header(RAMP)]), X / 255
    ),
    _read("rubbish after the pixel data", _edited(lambda data: data + b"rubbish" * 99), X / 255),
    _read("some padding after the pixels", _file(data=RAMP.tobytes() + bytes(64)), X / 255),
    _read(
        "an odd number of pixels", _file(np.tile(RAMP, (2, 1))[:65, : 65 - 2]), np.tile(RAMP, (2, 1))[:65, :63] / 255
    ),
]
COLOURS = [
    _read("RGB whose channels are equal: their luminance", _file(_GREY_RGB, "RGB"), X / 255, "grey_stored_as_colour"),
    _read(
        "the same, by planes",
        _file(_GREY_RGB, "RGB", PlanarConfiguration=1, data=_GREY_RGB.transpose(2, 0, 1).tobytes()),
        X / 255,
        "grey_stored_as_colour",
    ),
    _read("YBR_FULL without colour", _file(_YBR, "YBR_FULL"), X / 255, "grey_stored_as_colour", tolerance=1 / 255),
    _read(
        "YBR_FULL_422 without colour",
        _file(_YBR, "YBR_FULL_422", data=_YBR_422),
        X / 255,
        "grey_stored_as_colour",
        tolerance=1 / 255,
    ),
    _read(
        "colour JPEG Baseline without colour",
        _file(_GREY_RGB, "YBR_FULL_422", syntax=_BASELINE, frames=[jpeg(_GREY_RGB)]),
        decoded_jpeg(jpeg(_GREY_RGB))[..., 0],
        "grey_stored_as_colour",
    ),
    _read(
        "PALETTE COLOR without colour",
        _file(RAMP, "PALETTE COLOR", **_palette(np.arange(256) * 257, 16)),
        X / 255,
        "grey_stored_as_colour",
    ),
    _read(
        "PALETTE COLOR that declares 16 bits and uses 8",
        _file(RAMP, "PALETTE COLOR", **_palette(np.arange(256), 16)),
        X / 255,
        "grey_stored_as_colour",
    ),
    Case("RGB in colour", "colour", _file(_COLOURED, "RGB")),
    Case("PNG or JPEG in colour", "colour", _picture(_COLOURED, "PNG")),
    Case("JPEG picture in CMYK", "unsupported", _picture(Image.new("CMYK", (64, 64)), "JPEG")),
]
PICTURES = [
    _read("PNG of 8 bits", _picture(RAMP, "PNG"), X / 255),
    _read("PNG of 16 bits", _picture(_WIDE, "PNG"), X * 16 / 65535),
    _read("PNG, grey stored as colour", _picture(_GREY_RGB, "PNG"), X / 255, "grey_stored_as_colour"),
    _read(
        "PNG with a palette",
        _picture(Image.fromarray(_GREY_RGB).quantize(256), "PNG"),
        X / 255,
        "grey_stored_as_colour",
    ),
    _read("PNG, opaque", _picture(Image.fromarray(RAMP).convert("LA"), "PNG"), X / 255),
    _read("JPEG", _picture(RAMP, "JPEG", quality=95), _J),
    _read(
        "JPEG with an EXIF orientation: turned upright",
        _picture(RAMP, "JPEG", quality=95, exif=_exif(6)),
        np.rot90(_J, -1),
        "exif_orientation",
    ),
    Case("PNG, transparent in places", "unsupported", _picture(Image.new("LA", (64, 64), (9, 9)), "PNG")),
    Case("PNG of 1 bit", "unsupported", _picture(Image.new("1", (64, 64)), "PNG")),
    Case(
        "PNG, animated",
        "multi_frame",
        _picture(RAMP, "PNG", save_all=True, append_images=[Image.fromarray(RAMP[::-1])]),
    ),
    Case("PNG that declares 60,000 x 60,000", "too_large", _huge_png),
    Case("PNG, truncated", "corrupt", _truncated_png),
    Case("JPEG, truncated", "corrupt", _bytes(lambda _: jpeg()[:600])),
    Case("a picture of 20 x 64", "bad_size", _picture(RAMP[:20], "PNG")),
]
REJECTED = [
    Case("no file", "not_readable", lambda _: None),
    Case("an empty file", "not_dicom", _bytes(lambda _: b"")),
    Case("text", "not_dicom", _bytes(lambda _: b"patientId,Target\n" * 99)),
    Case("two frames", "multi_frame", _file(NumberOfFrames=2, data=RAMP.tobytes() * 2)),
    Case("two compressed frames, undeclared", "multi_frame", _file(syntax=_BASELINE, frames=[jpeg(), jpeg()])),
    Case("a video", "not_an_image", _file(syntax=uid.MPEG4HP41, data=_with_offsets(b""))),
    Case("no pixel data", "not_an_image", _bytes(lambda path: save(path)[: save(path).index(b"\xe0\x7f\x10\x00")])),
    Case("Bits Allocated missing", "bad_header", _file(BitsAllocated=None)),
    Case("Rows missing", "not_an_image", _file(Rows=None)),
    Case("more bits stored than allocated", "bad_header", _file(BitsStored=12)),
    Case("High Bit is not Bits Stored - 1, uncompressed", "bad_header", _file(_WIDE, BitsStored=12, HighBit=15)),
    Case("three samples in MONOCHROME2", "bad_header", _file(_GREY_RGB)),
    Case("1 bit allocated", "unsupported", _file(BitsAllocated=1, BitsStored=1)),
    Case("12 bits allocated", "unsupported", _file(BitsAllocated=12, BitsStored=12)),
    Case("an unknown Photometric Interpretation", "unsupported", _file(photometric="HSV")),
    Case("an unknown transfer syntax", "unsupported", _file(syntax=uid.UID("1.2.840.10008.1.2.4.94"), frames=[jpeg()])),
    Case("Rescale Slope of 0", "bad_header", _file(RescaleSlope="0", RescaleIntercept="0")),
    Case(
        "a LUT with fewer entries than it declares",
        "bad_header",
        _file(VOILUTSequence=[lut(np.arange(200), 0, 8, count=256)]),
    ),
    Case("0 x 0 pixels", "bad_size", _file(Rows=0, Columns=0)),
    Case("1 x 1 pixels", "bad_size", _file(Rows=1, Columns=1)),
    Case("1 : 30", "bad_size", _file(np.tile(RAMP, (1, 30)))),
    Case("65,535 x 65,535 declared", "too_large", _file(Rows=65535, Columns=65535)),
    Case("a hundred times the file's size declared", "corrupt", _file(Rows=640, Columns=640)),
    Case("a deflated data set of a gigabyte", "too_large", _deflated_bomb),
    Case(
        "JPEG whose frame has another size",
        "frame_mismatch",
        _file(syntax=_BASELINE, frames=[_declared(jpeg(), b"\xff\xc0", 5, (65500, 65500), ">HH")]),
    ),
    Case(
        "JPEG 2000 whose frame has another size",
        "frame_mismatch",
        _file(syntax=_J2K, frames=[_declared(jpeg_2000(), b"\xff\x4f\xff\x51", 8, (1 << 30, 1 << 30), ">II")]),
    ),
    Case(
        "JPEG-LS whose frame has another size",
        "frame_mismatch",
        _file(syntax=uid.JPEGLSLossless, frames=[_jpeg_ls(65500, 65500)]),
    ),
    Case("JPEG whose frame has other samples", "frame_mismatch", _file(syntax=_BASELINE, frames=[jpeg(_GREY_RGB)])),
    Case(
        "JPEG whose frame has fewer bits than are stored",
        "frame_mismatch",
        _file(_WIDE, syntax=_BASELINE, frames=[jpeg()], BitsStored=12),
    ),
    Case("much more pixel data than declared", "frame_mismatch", _file(data=RAMP.tobytes() * 2)),
    Case("less pixel data than declared", "corrupt", _file(data=RAMP.tobytes()[:-2])),
    Case(
        "truncated inside the pixel data",
        "corrupt",
        _edited(lambda data: data[:-99], syntax=_BASELINE, frames=[jpeg()]),
    ),
    Case("a truncated JPEG frame", "corrupt", _file(syntax=_BASELINE, frames=[jpeg()[:600]])),
    Case("rubbish for a frame", "corrupt", _file(syntax=_BASELINE, frames=[b"rubbish " * 99])),
    Case(
        "no fragments under a compressed transfer syntax",
        "corrupt",
        _edited(lambda data: data.replace(b".10008.1.2.1\0", b".10008.1.2.5\0")),
    ),
]
SECTIONS = {
    "Greyscale": GREYSCALE,
    "Encodings": ENCODINGS,
    "Colour": COLOURS,
    "Pictures": PICTURES,
    "Rejected": REJECTED,
}
CASES = [case for cases in SECTIONS.values() for case in cases]
