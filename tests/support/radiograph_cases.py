"""Every kind of file, and what becomes of it: the table that ``docs/radiographs.md`` shows."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from tests.support.radiograph_files import RAMP, X, decoded_jpeg, header, jpeg, jpeg_2000, lut, save
from tests.support.radiograph_makers import (
    BASELINE,
    EXTENDED,
    J2K,
    Case,
    declared,
    deflated_bomb,
    deflated_bomb_behind,
    edited,
    exif,
    extended_offsets,
    file,
    huge_png,
    jpeg_ls,
    made_square,
    no_meta,
    no_syntax,
    odd_fragment,
    palette,
    picture,
    read,
    rle,
    signed_lut,
    truncated_png,
    wavelet,
    wide_frame,
    window,
    with_offsets,
    without_syntax,
    written,
)

_WIDE = RAMP.astype(np.uint16) * 16
_CHECKED = (np.indices((64, 64)).sum(0) // 8 % 2 * 4095).astype(np.uint16)
_SIGNED = RAMP.astype(np.int16) * 8 - 1000
_JPEG_12 = jpeg().replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c")  # 12 bits after its head
_GREY_RGB = np.repeat(RAMP[..., None], 3, axis=2)
_COLOURED = np.stack([RAMP, RAMP[::-1], RAMP], axis=2)
_YBR = np.stack([RAMP, np.full_like(RAMP, 128), np.full_like(RAMP, 128)], axis=2)
_YBR_422 = np.stack([RAMP[:, ::2], RAMP[:, 1::2], _YBR[:, ::2, 1], _YBR[:, ::2, 2]], axis=2).tobytes()
_J = decoded_jpeg(jpeg())
_PROGRESSIVE = jpeg(progressive=True)
_PAD = np.where(X < 20, 0.0, X / 255)


GREYSCALE = [
    read("8 bits, MONOCHROME2, no window", file(), X / 255),
    read("MONOCHROME1", file(photometric="MONOCHROME1"), 1 - X / 255),
    read(
        "MONOCHROME1 with a window: windowed, then inverted",
        file(photometric="MONOCHROME1", WindowCenter=100, WindowWidth=50),
        1 - window(X, 100, 50),
        intensity="window",
    ),
    read(
        "MONOCHROME1 with Presentation LUT Shape INVERSE: inverted once",
        file(photometric="MONOCHROME1", PresentationLUTShape="INVERSE"),
        1 - X / 255,
    ),
    read(
        "MONOCHROME2 with Presentation LUT Shape INVERSE: not inverted",
        file(PresentationLUTShape="INVERSE"),
        X / 255,
        "presentation_lut_contradicts",
    ),
    read("12 bits stored in 16", file(_WIDE, BitsStored=12), X * 16 / 4095),
    read("15 bits stored in 16", file(_WIDE, BitsStored=15), X * 16 / 32767),
    read("20 bits stored in 32", file(RAMP.astype(np.uint32) << 12, BitsStored=20), X * 4096 / (2**20 - 1)),
    read("signed pixels", file(_SIGNED, BitsStored=12), (X * 8 - 1000 + 2048) / 4095),
    read(
        "rescale of slope 2.8 and intercept -240: the full range is white",
        file(RescaleSlope="2.8", RescaleIntercept="-240"),
        X / 255,
    ),
    read(
        "rescale, then window",
        file(RescaleSlope="2.8", RescaleIntercept="-240", WindowCenter="100", WindowWidth="300"),
        window(X * 2.8 - 240, 100, 300),
        intensity="window",
    ),
    read("negative rescale slope", file(RescaleSlope="-1", RescaleIntercept="255"), 1 - X / 255),
    read(
        "modality LUT",
        file(ModalityLUTSequence=[lut(np.arange(256)[::-1] * 16, 0, 12)]),
        (4080 - X * 16) / 4095,
    ),
    read(
        "VOI LUT, also beside a window: the LUT counts",
        file(VOILUTSequence=[lut(np.arange(256) // 2, 0, 8)], WindowCenter=100, WindowWidth=50),
        X / 2 / 255,
        intensity="voi_lut",
    ),
    read(
        "LUT Data as signed numbers: unsigned",
        file(VOILUTSequence=[signed_lut(np.arange(256) * 257)]),
        X / 255,
        intensity="voi_lut",
    ),
    read("window, center or width empty", file(WindowCenter="", WindowWidth=""), X / 255),
    read(
        "several windows: the first",
        file(WindowCenter=["100", "40"], WindowWidth=["50", "80"]),
        window(X, 100, 50),
        "first_window_of_several",
        intensity="window",
    ),
    read(
        "a window that cannot belong to these values: ignored",
        file(WindowCenter=2048, WindowWidth=4096),
        X / 255,
        "window_ignored",
    ),
    read(
        "a window more than twice as wide as the values: applied",
        file(WindowCenter=127.5, WindowWidth=766),
        window(X, 127.5, 766),
        "window_wider_than_values",
        intensity="window",
    ),
    read(
        "pixels that are not square, by ImagerPixelSpacing, PixelSpacing or PixelAspectRatio: made square",
        file(PixelSpacing=["0.2", "0.1"]),
        made_square(X / 255),
        "pixels_made_square",
    ),
    read(
        "Quality Control Image YES or BOTH: a phantom, or a test image",
        file(QualityControlImage="YES"),
        X / 255,
        "quality_control_image",
    ),
    read(
        "overlay or rubbish above Bits Stored: masked",
        file(_WIDE | np.uint16(0x8000), BitsStored=12),
        X * 16 / 4095,
        "high_bits_masked",
    ),
    read(
        "Pixel Padding Value: black", file(photometric="MONOCHROME1", PixelPaddingValue=0), np.where(X, 1 - X / 255, 0)
    ),
    read("Pixel Padding Range Limit", file(PixelPaddingValue=0, PixelPaddingRangeLimit=18), _PAD),
    read(
        "Pixel Padding Value that Bits Stored cannot hold: no pixel",
        file(_WIDE, "MONOCHROME1", BitsStored=12, PixelPaddingValue=4096),
        1 - X * 16 / 4095,
    ),
    read(
        "the same, held by words above Bits Stored: black",
        file(np.where(X < 20, np.uint16(0x8000), _WIDE), "MONOCHROME1", BitsStored=12, PixelPaddingValue=0x8000),
        np.where(X < 20, 0, 1 - X * 16 / 4095),
        "high_bits_masked",
    ),
    read(
        "High Bit, Bits Stored, Pixel Representation, Photometric Interpretation or Samples per Pixel missing",
        file(
            **dict.fromkeys(
                ("HighBit", "PixelRepresentation", "PhotometricInterpretation", "SamplesPerPixel", "BitsStored")
            )
        ),
        X / 255,
        "no_SamplesPerPixel no_PhotometricInterpretation no_BitsStored no_HighBit no_PixelRepresentation",
    ),
]
ENCODINGS = [
    read("implicit little-endian", file(syntax=uid.ImplicitVRLittleEndian), X / 255),
    read("explicit big-endian", file(_WIDE, syntax=uid.ExplicitVRBigEndian, BitsStored=12), X * 16 / 4095),
    read("deflated", file(syntax=uid.DeflatedExplicitVRLittleEndian), X / 255),
    read("RLE", rle, X / 255),
    read("JPEG Baseline", file(syntax=BASELINE, frames=[jpeg()]), _J),
    read("JPEG Extended of 8 bits", file(syntax=EXTENDED, frames=[jpeg()]), _J),
    read(
        "JPEG Baseline whose frame is progressive",
        file(syntax=BASELINE, frames=[_PROGRESSIVE]),
        decoded_jpeg(_PROGRESSIVE),
        "other_syntax",
    ),
    read(
        "JPEG Baseline with an embedded colour profile",
        file(syntax=BASELINE, frames=[jpeg(icc_profile=b"x" * 99)]),
        _J,
    ),
    read("JPEG 2000", file(_WIDE, syntax=J2K, frames=[jpeg_2000(_WIDE)], BitsStored=12), X * 16 / 4095),
    read(
        "JPEG 2000 of fewer bits than declared: white is theirs",
        wavelet(_WIDE, BitsStored=16, HighBit=15),
        X * 16 / 4095,
        "fewer_bits_in_frame",
    ),
    read(
        "the same, signed",
        wavelet(_SIGNED, BitsStored=16, HighBit=15),
        (X * 8 - 1000 + 2048) / 4095,
        "fewer_bits_in_frame",
    ),
    read(
        "JPEG 2000 whose highest bit is the sign that the header declares",
        wavelet(_SIGNED.astype(np.uint16) & 0xFFF, PixelRepresentation=1),
        (X * 8 - 1000 + 2048) / 4095,
    ),
    read(
        "lossy JPEG 2000 of more bits than are stored, beyond white: clipped",
        wide_frame(_CHECKED, ratio=4, BitsStored=12),
        _CHECKED / 4095,
        "clipped_to_bits_stored",
        tolerance=0.4,
    ),
    read(
        "lossless JPEG 2000 of more bits than are stored: masked",
        wide_frame(_WIDE | np.uint16(0x8000), BitsStored=12),
        X * 16 / 4095,
        "high_bits_masked",
    ),
    read("JPEG 2000 with the boxes of a JP2 file", file(syntax=J2K, frames=[jpeg_2000(boxes=True)]), X / 255),
    read(
        "another codestream than the transfer syntax says",
        file(syntax=BASELINE, frames=[jpeg_2000()]),
        X / 255,
        "other_syntax",
    ),
    read(
        "one frame in several fragments", file(syntax=BASELINE, data=encapsulate([jpeg()], fragments_per_frame=3)), _J
    ),
    read("Basic Offset Table empty", file(syntax=BASELINE, data=with_offsets(b"")), _J),
    read("Basic Offset Table wrong", file(syntax=BASELINE, data=with_offsets(b"\x99\x99\0\0")), _J),
    read("Extended Offset Table", extended_offsets, _J),
    read("a fragment of odd length", file(syntax=BASELINE, data=odd_fragment()), _J),
    read("no preamble", edited(lambda data: data[132:]), X / 255),
    read("no file meta information", edited(no_meta), X / 255),
    read("no file meta information, implicit", edited(no_meta, syntax=uid.ImplicitVRLittleEndian), X / 255),
    read("compressed, without a transfer syntax", no_syntax, _J, "other_syntax"),
    read("file meta information without a transfer syntax", edited(without_syntax), X / 255),
    read("the same, compressed", edited(without_syntax, syntax=BASELINE, frames=[jpeg()]), _J, "other_syntax"),
    read(
        "group length of the file meta information wrong",
        edited(lambda data: data[:140] + b"\x07" + data[141:]),
        X / 255,
    ),
    read("a sequence of undefined length", edited(lambda data: data, ReferencedStudySequence=[header(RAMP)]), X / 255),
    read("rubbish after the pixel data", edited(lambda data: data + b"rubbish" * 99), X / 255),
    read("some padding after the pixels", file(data=RAMP.tobytes() + bytes(64)), X / 255),
    read("an odd number of pixels", file(np.tile(RAMP, (2, 1))[:65, : 65 - 2]), np.tile(RAMP, (2, 1))[:65, :63] / 255),
]
COLOURS = [
    read("RGB whose channels are equal: their luminance", file(_GREY_RGB, "RGB"), X / 255, "grey_stored_as_colour"),
    read(
        "the same, by planes",
        file(_GREY_RGB, "RGB", PlanarConfiguration=1, data=_GREY_RGB.transpose(2, 0, 1).tobytes()),
        X / 255,
        "grey_stored_as_colour",
    ),
    read("YBR_FULL without colour", file(_YBR, "YBR_FULL"), X / 255, "grey_stored_as_colour", tolerance=1 / 255),
    read(
        "YBR_FULL_422 without colour",
        file(_YBR, "YBR_FULL_422", data=_YBR_422),
        X / 255,
        "grey_stored_as_colour",
        tolerance=1 / 255,
    ),
    read(
        "colour JPEG Baseline without colour",
        file(_GREY_RGB, "YBR_FULL_422", syntax=BASELINE, frames=[jpeg(_GREY_RGB)]),
        decoded_jpeg(jpeg(_GREY_RGB))[..., 0],
        "grey_stored_as_colour",
    ),
    read(
        "PALETTE COLOR without colour",
        file(RAMP, "PALETTE COLOR", **palette(np.arange(256) * 257, 16)),
        X / 255,
        "grey_stored_as_colour",
    ),
    read(
        "PALETTE COLOR that declares 16 bits and uses 8",
        file(RAMP, "PALETTE COLOR", **palette(np.arange(256), 16)),
        X / 255,
        "grey_stored_as_colour",
    ),
    Case("RGB in colour", "colour", file(_COLOURED, "RGB")),
    Case("PNG or JPEG in colour", "colour", picture(_COLOURED, "PNG")),
    Case("JPEG picture in CMYK", "unsupported", picture(Image.new("CMYK", (64, 64)), "JPEG")),
]
PICTURES = [
    read("PNG of 8 bits", picture(RAMP, "PNG"), X / 255),
    read("PNG of 16 bits", picture(_WIDE, "PNG"), X * 16 / 65535),
    read("PNG, grey stored as colour", picture(_GREY_RGB, "PNG"), X / 255, "grey_stored_as_colour"),
    read(
        "PNG with a palette",
        picture(Image.fromarray(_GREY_RGB).quantize(256), "PNG"),
        X / 255,
        "grey_stored_as_colour",
    ),
    read("PNG, opaque", picture(Image.fromarray(RAMP).convert("LA"), "PNG"), X / 255),
    read("JPEG", picture(RAMP, "JPEG", quality=95), _J),
    read(
        "JPEG with an EXIF orientation: turned upright",
        picture(RAMP, "JPEG", quality=95, exif=exif(6)),
        np.rot90(_J, -1),
        "exif_orientation",
    ),
    Case("PNG, transparent in places", "unsupported", picture(Image.new("LA", (64, 64), (9, 9)), "PNG")),
    Case("PNG of 1 bit", "unsupported", picture(Image.new("1", (64, 64)), "PNG")),
    Case(
        "PNG, animated",
        "multi_frame",
        picture(RAMP, "PNG", save_all=True, append_images=[Image.fromarray(RAMP[::-1])]),
    ),
    Case("PNG that declares 60,000 x 60,000", "too_large", huge_png),
    Case("PNG, truncated", "corrupt", truncated_png),
    Case("JPEG, truncated", "corrupt", written(lambda _: jpeg()[:600])),
    Case("a picture of 20 x 64", "bad_size", picture(RAMP[:20], "PNG")),
]
REJECTED = [
    Case("no file", "not_readable", lambda _: None),
    Case("an empty file", "not_dicom", written(lambda _: b"")),
    Case("text", "not_dicom", written(lambda _: b"patientId,Target\n" * 99)),
    Case("two frames", "multi_frame", file(NumberOfFrames=2, data=RAMP.tobytes() * 2)),
    Case("two compressed frames, undeclared", "multi_frame", file(syntax=BASELINE, frames=[jpeg(), jpeg()])),
    Case("a video", "not_an_image", file(syntax=uid.MPEG4HP41, data=with_offsets(b""))),
    Case("no pixel data", "not_an_image", written(lambda path: save(path)[: save(path).index(b"\xe0\x7f\x10\x00")])),
    Case("Bits Allocated missing", "bad_header", file(BitsAllocated=None)),
    Case("Rows missing", "not_an_image", file(Rows=None)),
    Case("more bits stored than allocated", "bad_header", file(BitsStored=12)),
    Case("High Bit is not Bits Stored - 1, uncompressed", "bad_header", file(_WIDE, BitsStored=12, HighBit=15)),
    Case(
        "the same, JPEG 2000 that has those bits",
        "bad_header",
        wide_frame(_WIDE * 16, BitsStored=12, HighBit=15),
    ),
    Case("three samples in MONOCHROME2", "bad_header", file(_GREY_RGB)),
    Case("RGB that is declared signed", "bad_header", file(_GREY_RGB, "RGB", PixelRepresentation=1)),
    Case("1 bit allocated", "unsupported", file(BitsAllocated=1, BitsStored=1)),
    Case("12 bits allocated", "unsupported", file(BitsAllocated=12, BitsStored=12)),
    Case("an unknown Photometric Interpretation", "unsupported", file(photometric="HSV")),
    Case("an unknown transfer syntax", "unsupported", file(syntax=uid.UID("1.2.840.10008.1.2.4.94"), frames=[jpeg()])),
    Case("Rescale Slope of 0", "bad_header", file(RescaleSlope="0", RescaleIntercept="0")),
    Case(
        "a rescale that leaves no grey levels apart",
        "bad_header",
        file(RescaleSlope="1e-20", RescaleIntercept="1000"),
    ),
    Case(
        "a LUT with fewer entries than it declares",
        "bad_header",
        file(VOILUTSequence=[lut(np.arange(200), 0, 8, count=256)]),
    ),
    Case("a LUT that makes every pixel equal", "bad_header", file(VOILUTSequence=[lut(np.full(256, 7), 0, 8)])),
    Case("0 x 0 pixels", "bad_size", file(Rows=0, Columns=0)),
    Case("1 x 1 pixels", "bad_size", file(Rows=1, Columns=1)),
    Case("1 : 30", "bad_size", file(np.tile(RAMP, (1, 30)))),
    Case("1 : 30 once its pixels are square", "bad_size", file(PixelAspectRatio=["30", "1"])),
    Case("65,535 x 65,535 declared", "too_large", file(Rows=65535, Columns=65535)),
    Case("a hundred times the file's size declared", "corrupt", file(Rows=640, Columns=640)),
    Case("a deflated data set of a gigabyte", "too_large", deflated_bomb),
    Case(
        "a deflated data set of a gigabyte behind long file meta",
        "too_large",
        partial(deflated_bomb_behind, preamble=True),
    ),
    Case(
        "a deflated data set of a gigabyte without preamble",
        "too_large",
        partial(deflated_bomb_behind, preamble=False),
    ),
    Case(
        "8-bit JPEG that is declared signed",
        "frame_mismatch",
        file(syntax=BASELINE, frames=[jpeg()], PixelRepresentation=1),
    ),
    Case(
        "12-bit JPEG that is declared signed",
        "frame_mismatch",
        file(_WIDE, syntax=EXTENDED, frames=[_JPEG_12], BitsStored=12, PixelRepresentation=1),
    ),
    Case("JPEG 2000 of fewer than 8 bits", "frame_mismatch", wavelet(_WIDE // 64, 6, BitsStored=16, HighBit=15)),
    Case("signed JPEG 2000 that is declared unsigned", "frame_mismatch", wavelet(_SIGNED, PixelRepresentation=0)),
    Case(
        "unsigned JPEG 2000 of fewer bits that is declared signed",
        "frame_mismatch",
        wavelet(_WIDE, BitsStored=16, HighBit=15, PixelRepresentation=1),
    ),
    Case(
        "JPEG whose frame has another size",
        "frame_mismatch",
        file(syntax=BASELINE, frames=[declared(jpeg(), b"\xff\xc0", 5, (65500, 65500), ">HH")]),
    ),
    Case(
        "JPEG 2000 whose frame has another size",
        "frame_mismatch",
        file(syntax=J2K, frames=[declared(jpeg_2000(), b"\xff\x4f\xff\x51", 8, (1 << 30, 1 << 30), ">II")]),
    ),
    Case(
        "JPEG-LS whose frame has another size",
        "frame_mismatch",
        file(syntax=uid.JPEGLSLossless, frames=[jpeg_ls(65500, 65500)]),
    ),
    Case("JPEG whose frame has other samples", "frame_mismatch", file(syntax=BASELINE, frames=[jpeg(_GREY_RGB)])),
    Case(
        "JPEG whose frame has fewer bits than are stored",
        "frame_mismatch",
        file(_WIDE, syntax=BASELINE, frames=[jpeg()], BitsStored=12),
    ),
    Case("much more pixel data than declared", "frame_mismatch", file(data=RAMP.tobytes() * 2)),
    Case("less pixel data than declared", "corrupt", file(data=RAMP.tobytes()[:-2])),
    Case(
        "truncated inside the pixel data",
        "corrupt",
        edited(lambda data: data[:-99], syntax=BASELINE, frames=[jpeg()]),
    ),
    Case("a truncated JPEG frame", "corrupt", file(syntax=BASELINE, frames=[jpeg()[:600]])),
    Case("rubbish for a frame", "corrupt", file(syntax=BASELINE, frames=[b"rubbish " * 99])),
    Case(
        "no fragments under a compressed transfer syntax",
        "corrupt",
        edited(lambda data: data.replace(b".10008.1.2.1\0", b".10008.1.2.5\0")),
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
