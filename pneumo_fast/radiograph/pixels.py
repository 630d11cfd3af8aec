"""Decodes the pixel data of one frame of any kind into stored values, by pydicom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.extras import DECODERS
from pneumo_fast.radiograph.codestream import (
    ITEM,
    FrameInfo,
    Kind,
    check_agreement,
    decode_grey_jpeg,
    find_loss,
    join_fragments,
    read_frame_info,
)
from pneumo_fast.radiograph.greyscale import stored_range
from pneumo_fast.radiograph.header import Decoded, Header, PixelFormat, Stored
from pneumo_fast.radiograph.rejection import OUT_OF_MEMORY

_JPEG: Final = ("pillow", "pylibjpeg")  # gdcm aborts the process on some damaged frames
_LOSSLESS: Final = ("gdcm", "pylibjpeg")
_WAVELET: Final = ("pylibjpeg", "pillow", "gdcm")
_HIGH_THROUGHPUT: Final = ("pylibjpeg",)
PLUGINS: Final[dict[UID, tuple[str, ...]]] = {
    uid.JPEGBaseline8Bit: _JPEG, uid.JPEGExtended12Bit: _JPEG,
    uid.JPEGLossless: _LOSSLESS, uid.JPEGLosslessSV1: _LOSSLESS,
    uid.JPEGLSLossless: _LOSSLESS, uid.JPEGLSNearLossless: _LOSSLESS,
    uid.JPEG2000Lossless: _WAVELET, uid.JPEG2000: _WAVELET,
    uid.HTJ2KLossless: _HIGH_THROUGHPUT, uid.HTJ2KLosslessRPCL: _HIGH_THROUGHPUT, uid.HTJ2K: _HIGH_THROUGHPUT,
    uid.RLELossless: ("pylibjpeg", "pydicom"),
}  # fmt: skip
"""pydicom's plugins for each transfer syntax, the fastest first, as measured on one core (docs/radiographs.md)."""
_KINDS: Final[dict[UID, Kind]] = {
    uid.JPEGBaseline8Bit: "jpeg", uid.JPEGExtended12Bit: "jpeg",
    uid.JPEGLossless: "jpeg_lossless", uid.JPEGLosslessSV1: "jpeg_lossless",
    uid.JPEGLSLossless: "jpeg_ls", uid.JPEGLSNearLossless: "jpeg_ls",
}  # fmt: skip
_LOSSLESS_WAVELETS: Final = {uid.JPEG2000Lossless, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL}
_SYNTAXES: Final[dict[Kind, UID]] = {
    "jpeg": uid.JPEGExtended12Bit, "jpeg_lossless": uid.JPEGLossless,
    "jpeg_ls": uid.JPEGLSNearLossless, "jpeg_2000": uid.JPEG2000,
}  # fmt: skip
"""The most general transfer syntax of each kind of codestream."""
_NO_MEMORY: Final = ("Unable to allocate", "out of memory", "bad_alloc")  # NumPy, Pillow, C++
EXCESS: Final = 1 / 16  # share of a frame by which uncompressed pixel data may be too long, as padding


def decode_by_pydicom(header: Header, form: PixelFormat, least: tuple[int, int] | None) -> Decoded:
    """Decode a frame of any kind; see :func:`pneumo_fast.radiograph.frame.decode`."""
    if not isinstance(header, Dataset):  # the shortcut reads JPEG Baseline alone
        return _decode_codestream(header, form, uid.JPEGBaseline8Bit, least)
    syntax = _transfer_syntax(header)
    if syntax is None or (syntax.is_encapsulated and syntax != uid.RLELossless):
        return _decode_codestream(header, form, syntax, least)
    if form.high != form.stored - 1:
        raise RejectedImageError("bad_header", f"High Bit is {form.high} with {form.stored} bits stored")
    if syntax == uid.RLELossless:
        return _decode_by_plugin(header, form, syntax, join_fragments(header.PixelData), frame_bits=0)
    _check_length(header, form)
    header.file_meta.TransferSyntaxUID = syntax
    return _corrected(_pixels(header, form, plugin=""), form)


def _transfer_syntax(header: Dataset) -> UID | None:
    """The transfer syntax, or for files without one how they are in fact encoded; None for a codestream of any kind."""
    if not hasattr(header, "file_meta"):
        header.file_meta = FileMetaDataset()
    syntax = header.file_meta.get("TransferSyntaxUID")
    if not syntax:
        if bytes(header.PixelData[:4]) == ITEM:
            return None
        implicit, little = header.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        return uid.ImplicitVRLittleEndian if implicit else explicit
    if syntax in uid.MPEGTransferSyntaxes:
        raise RejectedImageError("not_an_image", "a video")
    try:
        get_decoder(syntax)
    except NotImplementedError as error:
        raise RejectedImageError("unsupported", "no decoder exists for the transfer syntax") from error
    return UID(syntax)


def _decode_codestream(header: Header, form: PixelFormat, syntax: UID | None, least: tuple[int, int] | None) -> Decoded:
    """Decode what the frame is, whatever the transfer syntax calls it, if the header declares the same image."""
    frame = join_fragments(header.get("PixelData"))
    info = read_frame_info(frame)
    check_agreement(info, form)
    expected = None if syntax is None else _KINDS.get(syntax, "jpeg_2000")
    other = info.kind != expected or (syntax == uid.JPEGBaseline8Bit and (info.bits != 8 or info.progressive))
    notes = ("other_syntax",) if other else ()
    if info.kind == "jpeg" and info.bits == 8 and form.is_grey:
        pixels = decode_grey_jpeg(frame, form.rows, form.columns, least)
        return Decoded(pixels, pixels, notes)
    if not isinstance(header, Dataset):
        header = _as_dataset(header)
    named = syntax
    if syntax is None or other:
        syntax = _SYNTAXES[info.kind]
    clip = _may_overshoot(header, form, named, frame, info)
    decoded = _decode_by_plugin(header, form, syntax, frame, frame_bits=info.bits, clip=clip)
    return replace(decoded, notes=(*notes, *decoded.notes))


def _as_dataset(header: Header) -> Dataset:
    """What the plugins need of a header that the shortcut read."""
    dataset = Dataset()
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        setattr(dataset, keyword, header.get(keyword))
    dataset.file_meta = FileMetaDataset()
    return dataset


def _decode_by_plugin(
    header: Dataset, form: PixelFormat, syntax: UID, frame: bytes, *, frame_bits: int, clip: bool = False
) -> Decoded:
    """Decode with the fastest plugin that can; a plugin that fails passes the frame on to the next."""
    header.file_meta.TransferSyntaxUID = syntax
    header.PixelData = encapsulate([frame])
    header["PixelData"].VR = "OB"
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        header.pop(keyword, None)
    able = _able(syntax, frame_bits)
    installed = _installed(syntax, able)
    if not installed:
        raise RejectedImageError("needs_decoders", f"{syntax.name}: {DECODERS.command}")
    failures = []
    for plugin in installed:
        try:
            return _corrected(_pixels(header, form, plugin), form, clip=clip)
        except RuntimeError as error:  # what pydicom makes of whatever a plugin raises
            if _ran_out_of_memory(error, plugin):
                raise RejectedImageError(*OUT_OF_MEMORY) from error
            failures.append(error)
    hint = "" if set(able) <= {*installed, "pillow"} else "; the extra decoders may be able to"
    raise RejectedImageError("corrupt", f"{' and '.join(installed)} cannot decode the frame{hint}") from failures[-1]


def _ran_out_of_memory(error: RuntimeError, plugin: str) -> bool:
    """Of what a plugin raised pydicom hands on nothing but the text; that of Python's own MemoryError is empty."""
    text = str(error).rstrip()
    return text.endswith(f"{plugin}:") or any(words in text for words in _NO_MEMORY)


def _able(syntax: UID, frame_bits: int) -> tuple[str, ...]:
    """The plugins for such a frame, the fastest first."""
    lossy_12_bit = syntax == uid.JPEGExtended12Bit and frame_bits > 8
    return ("pylibjpeg",) if lossy_12_bit else PLUGINS.get(syntax, ())


def _installed(syntax: UID, able: tuple[str, ...]) -> list[str]:
    return [name for name in able if name in get_decoder(syntax).available_plugins]


@dataclass(frozen=True, slots=True)
class Decoders:
    """What decodes a transfer syntax on this machine."""

    syntax: str
    """Its keyword in pydicom."""
    uid: str
    bits: int | None
    """Bits of a sample, where they decide; else None."""
    plugins: list[str]
    """The fastest first; one that fails passes the frame on to the next. Empty where such files are rejected."""


def installed_decoders() -> list[Decoders]:
    """What decodes each transfer syntax on this machine."""
    plain = [Decoders(syntax.keyword, syntax, None, ["pydicom"]) for syntax in uid.UncompressedTransferSyntaxes]
    frames = [(syntax, bits) for syntax in PLUGINS for bits in ((8, 12) if syntax == uid.JPEGExtended12Bit else (0,))]
    return plain + [
        Decoders(syntax.keyword, syntax, bits or None, _installed(syntax, _able(syntax, bits)))
        for syntax, bits in frames
    ]


def _pixels(header: Dataset, form: PixelFormat, plugin: str) -> Stored:
    """Pydicom's pixel pipeline, up to the conversion of colour spaces."""
    header.PhotometricInterpretation = form.photometric
    header.SamplesPerPixel = form.samples
    header.BitsStored = form.stored
    header.PixelRepresentation = int(form.signed)
    if form.samples > 1 and header.get("PlanarConfiguration") is None:
        header.PlanarConfiguration = 0
    header.NumberOfFrames = 1
    stored = pixel_array(header, decoding_plugin=plugin, correct_unused_bits=not form.is_grey)
    if stored.shape != form.shape:
        raise RejectedImageError("frame_mismatch", f"the frame is {stored.shape}, the header declares {form.shape}")
    return stored


def _check_length(header: Dataset, form: PixelFormat) -> None:
    """Uncompressed pixel data have to be as long as declared, but for padding."""
    expected = form.rows * form.columns * form.samples * form.allocated // 8
    shortest = expected * 2 // 3 if form.photometric == "YBR_FULL_422" else expected
    found = len(header.PixelData)
    if found < shortest:
        raise RejectedImageError("corrupt", f"{found} bytes of pixel data, {shortest} declared")
    if found > expected * (1 + EXCESS) + 1:
        raise RejectedImageError("frame_mismatch", f"{found} bytes of pixel data, {expected} declared")


def _may_overshoot(header: Dataset, form: PixelFormat, named: UID | None, frame: bytes, info: FrameInfo) -> bool:
    """Whether what lies above Bits Stored comes of lossy compression, which goes a little beyond white.

    Masked, such pixels would be black. Overlays and rubbish, which are what masking is for, would not survive lossy
    compression. A reversible JPEG 2000 codestream is lossy where it was cut short, which it does not tell: then Lossy
    Image Compression counts, unless the transfer syntax is a lossless one (the loss may be an earlier one). Not where
    the sign is the header's alone: nobody can know which bit of the frame holds it.
    """
    if info.bits <= form.stored or info.signed != form.signed or not form.is_grey:
        return False
    lossy = find_loss(frame, info)
    if lossy is None:
        return named not in _LOSSLESS_WAVELETS and str(header.get("LossyImageCompression") or "").strip() == "01"
    return lossy


def _corrected(words: Stored, form: PixelFormat, *, clip: bool = False) -> Decoded:
    """Bits above Bits Stored may hold overlays or rubbish (PS3.5 8.1.1); the sign moves to its place."""
    unused = 8 * words.itemsize - form.stored
    if not unused or not form.is_grey:
        return Decoded(words, words, ())
    if clip:
        stored = np.clip(words, *stored_range(form.stored, signed=form.signed))
        return Decoded(stored, words, () if np.array_equal(stored, words) else ("clipped_to_bits_stored",))
    stored = (words << unused) >> unused  # shifts in the array's own signed or unsigned type
    return (
        Decoded(stored, words, ()) if np.array_equal(stored, words) else Decoded(stored, words, ("high_bits_masked",))
    )
