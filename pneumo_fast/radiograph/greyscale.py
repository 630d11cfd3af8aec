"""From stored pixel values to display values in [0, 1], as DICOM says: every photometric rule is in here.

A single-channel image has a greyscale curve; a grey picture stored in colour has its luminance, below.

The order is that of the standard's pipeline (PS3.4 N.2): modality LUT or rescale, then VOI LUT or window, then
presentation (inversion of MONOCHROME1). Each step maps one value to one value, so the whole is one curve, worked
out in float64 on a table of all values that can be stored and then looked up. White is the top of the declared
range, never the image's own maximum, so that equal values look equal in every image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.header import COLOUR, Header, PixelFormat, Stored, first_number, has_several
from pneumo_fast.vocabulary import Window

if TYPE_CHECKING:
    from pydicom import Dataset

Values = NDArray[np.float64]
Step = Callable[[Values], Values]
Linear = tuple[float, float]
"""(scale, offset): display = stored * scale + offset."""

LARGEST_TABLE_BITS: Final = 16  # wider values go through the curve one by one
TINIEST, LARGEST = 1e-100, 1e100  # slopes, and widths of windows, beyond these bring float64 to its limits
FINEST_STEP: Final = 2.0**-40  # of two grey levels, as a share of the largest value: float64 resolves 2**-52
GREY_TOLERANCE: Final = 4 / 255  # lossy chroma rounding makes grey channels differ by this much
WORD_BITS: Final = 16  # that an entry of a LUT and Pixel Padding Value are stored in, however few bits the pixels have
BYTE_BITS: Final = 8
WIDE_WINDOW, WIDEST_WINDOW = 2, 4  # times the range of the values
LUMINANCE: Final = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def check_photometric(form: PixelFormat) -> None:
    """Refuse a photometric interpretation that is not known, or has another number of samples than it must.

    Raises
    ------
    RejectedImageError
        ``unsupported`` or ``bad_header``.
    """
    if not form.is_grey and form.photometric not in COLOUR:
        raise RejectedImageError("unsupported", "the Photometric Interpretation is not one of the known ones")
    if form.samples != (3 if form.photometric in COLOUR - {"PALETTE COLOR"} else 1):
        raise RejectedImageError("bad_header", f"{form.samples} samples per pixel with {form.photometric}")
    if form.signed and not form.is_grey:
        raise RejectedImageError("bad_header", f"Pixel Representation is 1, signed, with {form.photometric}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Maps stored values to display values."""

    apply: Step
    """Stored values (any shape) to display values in [0, 1], 0 being black."""
    linear: Linear | None
    """The same for every value that can be stored, where it is a straight line; else None."""
    intensity: str
    """How white was decided: ``range`` (declared range), ``window``, ``voi_lut``."""
    notes: tuple[str, ...] = ()
    """Peculiarities of the header that were decided by rule."""


def greyscale_curve(header: Header, bits_stored: int, *, signed: bool, window: Window) -> Curve:
    """Work out the curve of a single-channel image.

    Parameters
    ----------
    header : Header
    bits_stored : int
        1 to 32.
    signed : bool
        Whether stored values are two's complement.
    window : "auto" or "none"
        ``auto`` applies a VOI LUT where there is one, else the first window, unless that cannot belong to these
        values; ``none`` never does.

    Raises
    ------
    RejectedImageError
        ``bad_header`` for a LUT or rescale that cannot be applied.
    """
    modality, low, high = _modality(header, *stored_range(bits_stored, signed=signed), signed=signed)
    notes: list[str] = []
    voi, intensity = _linear(low, high), "range"
    if window == "auto":
        if _items(header, "VOILUTSequence"):
            voi, intensity = _voi_lut(header, notes, negative=low < 0), "voi_lut"
        elif found := _window(header, low, high, notes):
            voi, intensity = found, "window"
    monochrome1 = _is_monochrome1(header, notes)

    def apply(stored: Values) -> Values:
        shown = voi(modality(stored))
        return 1.0 - shown if monochrome1 else shown  # the inversion of MONOCHROME1

    linear = None
    if intensity == "range" and not _items(header, "ModalityLUTSequence"):
        black, one = (modality(np.array([0.0, 1.0])) - low) / (high - low)
        linear = (float(black - one), float(1.0 - black)) if monochrome1 else (float(one - black), float(black))
    return Curve(apply=apply, linear=linear, intensity=intensity, notes=tuple(notes))


def apply_curve(curve: Curve, stored: NDArray[np.integer], bits_stored: int, *, signed: bool) -> NDArray[np.float32]:
    """Display values of an image, float32 in [0, 1], of the shape of ``stored``."""
    if bits_stored > LARGEST_TABLE_BITS:
        return curve.apply(stored.astype(np.float64)).astype(np.float32)
    low, high = stored_range(bits_stored, signed=signed)
    table = curve.apply(np.arange(low, high + 1, dtype=np.float64)).astype(np.float32)
    if low == 0 and stored.dtype.kind == "u":
        return table.take(stored, mode="clip")
    return table.take(stored.astype(np.int64) - low, mode="clip")


def stored_range(bits_stored: int, *, signed: bool) -> tuple[int, int]:
    """Smallest and largest value that can be stored (PS3.3 C.7.6.3.1.4)."""
    if signed:
        return -(1 << (bits_stored - 1)), (1 << (bits_stored - 1)) - 1
    return 0, (1 << bits_stored) - 1


def _linear(low: float, high: float) -> Step:
    return lambda x: np.clip((x - low) / (high - low), 0.0, 1.0)


def _modality(header: Header, low: float, high: float, *, signed: bool) -> tuple[Step, float, float]:
    """Modality LUT (PS3.3 C.11.1), else rescale; with the range of what comes out."""
    if items := _items(header, "ModalityLUTSequence"):
        table, first, full = _read_lut(header, items[0], "modality LUT", negative=signed)
        return _lookup(table, first), 0.0, full
    found = first_number(header, "RescaleSlope"), first_number(header, "RescaleIntercept")
    slope, intercept = (1.0 if found[0] is None else found[0]), (found[1] or 0.0)
    if slope == 0.0:
        raise RejectedImageError("bad_header", "Rescale Slope is 0, which makes every pixel equal")
    ends = sorted((low * slope + intercept, high * slope + intercept))
    if not TINIEST < abs(slope) < LARGEST or not abs(slope) > FINEST_STEP * max(map(abs, ends)):
        raise RejectedImageError("bad_header", "Rescale Slope and Intercept leave no grey levels apart")
    return (lambda x: x * slope + intercept), ends[0], ends[1]


def _voi_lut(header: Header, notes: list[str], *, negative: bool) -> Step:
    """The first VOI LUT (PS3.3 C.11.2.1.1), scaled to [0, 1]."""
    items = _items(header, "VOILUTSequence")
    if len(items) > 1:
        notes.append("first_voi_lut_of_several")
    table, first, full = _read_lut(header, items[0], "VOI LUT", negative=negative)
    return _lookup(table / full, first)


def _window(header: Header, low: float, high: float, notes: list[str]) -> Step | None:
    """The first window (PS3.3 C.11.2.1.2); None where there is none or it cannot belong to these values.

    Exported 8-bit copies often carry the window of their 12-bit original; applied, it would give a nearly black
    image. A window whose centre lies outside the values, or which is more than four times as wide as they are, is not
    applied; one that is more than twice as wide is, and noted.
    """
    center, width = first_number(header, "WindowCenter"), first_number(header, "WindowWidth")
    if center is None or width is None:
        return None
    kind = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    narrowest = 1.0 if kind == "LINEAR" else TINIEST
    misfit = not low <= center <= high + 1 or width > WIDEST_WINDOW * (high - low + 1)
    if width < narrowest or misfit or kind not in {"LINEAR", "LINEAR_EXACT", "SIGMOID"}:
        notes.append("window_ignored")
        return None
    if width > WIDE_WINDOW * (high - low + 1):
        notes.append("window_wider_than_values")
    if has_several(header.get("WindowCenter")):
        notes.append("first_window_of_several")
    if kind == "SIGMOID":
        return lambda x: 1.0 / (1.0 + np.exp(np.clip(-4.0 * (x - center) / width, -700.0, 700.0)))
    if kind == "LINEAR_EXACT":
        return lambda x: np.clip((x - center) / width + 0.5, 0.0, 1.0)
    if width == 1.0:
        return lambda x: (x > center - 0.5).astype(np.float64)
    return lambda x: np.clip((x - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _is_monochrome1(header: Header, notes: list[str]) -> bool:
    """MONOCHROME1 means low values are white; Presentation LUT Shape says the same once more, not twice.

    The DX module pairs INVERSE with MONOCHROME1 and IDENTITY with MONOCHROME2 (PS3.3 C.8.11.3.1.2). Where they
    contradict each other the Photometric Interpretation counts, being the one that every viewer obeys.
    """
    monochrome1 = str(header.get("PhotometricInterpretation")).strip().upper() == "MONOCHROME1"
    shape = str(header.get("PresentationLUTShape") or "").strip().upper()
    if (shape == "INVERSE" and not monochrome1) or (shape == "IDENTITY" and monochrome1):
        notes.append("presentation_lut_contradicts")
    return monochrome1


def _read_lut(header: Header, item: Dataset, name: str, *, negative: bool) -> tuple[Values, int, float]:
    """A LUT's data, the first value mapped, and the output value of white (PS3.3 C.11.1.1).

    White is all ones in as many bits as the descriptor declares. Where it declares the 16 of the word that an entry is
    stored in, or fewer than the data use, the bits that the data use count (docs/decisions/0007-lut-white.md).
    """
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if descriptor is None or data is None or len(descriptor) != 3:
        raise RejectedImageError("bad_header", f"the {name} has no descriptor or no data")
    entries, first = (int(descriptor[0]) & 0xFFFF) or 1 << 16, int(descriptor[1])
    if negative and first >= 1 << 15:
        first -= 1 << 16
    little = getattr(header, "original_encoding", (None, True))[1] in {None, True}
    table = _lut_data(data, entries, int(descriptor[2]), "<" if little else ">")
    if len(table) < entries:
        raise RejectedImageError("bad_header", f"the {name} declares {entries} entries and has {len(table)}")
    table = table[:entries]
    if table.min() == table.max():
        raise RejectedImageError("bad_header", f"the {name} makes every pixel equal")
    declared, used = int(descriptor[2]), int(table.max()).bit_length()
    bits = declared if used <= declared < WORD_BITS else used
    return table, first, float((1 << bits) - 1)


def _lut_data(data: object, entries: int, bits: int, order: str) -> Values:
    """LUT Data come as numbers, or as words in the file's byte order; entries of 8 bits may be packed two in a word.

    Outputs are unsigned (PS3.3 C.11.1.1.1), but old files write them as signed numbers (VR SS).
    """
    if isinstance(data, bytes):
        words = np.frombuffer(data, f"{order}u2")
    else:
        numbers = np.atleast_1d(np.asarray(data)).astype(np.int64)
        lone_bytes = bits <= BYTE_BITS and len(numbers) >= entries and _are_signed_bytes(numbers)
        words = (numbers & (0xFF if lone_bytes else 0xFFFF)).astype("<u2")
    if bits <= BYTE_BITS and len(words) == (entries + 1) // 2:
        words = np.frombuffer(words.astype("<u2").tobytes(), np.uint8)
    return words.astype(np.float64)


def _are_signed_bytes(numbers: NDArray[np.int64]) -> bool:
    """Whether entries of 8 bits were written as signed bytes, one in a word, so that 255 became -1."""
    low, high = stored_range(BYTE_BITS, signed=True)
    return low <= int(numbers.min()) < 0 and int(numbers.max()) <= high


def _lookup(table: Values, first: int) -> Step:
    """Values below the first entry take the first, values above the last the last."""
    return lambda x: table[np.clip(np.rint(x) - first, 0, len(table) - 1).astype(np.int64)]


def _items(header: Header, keyword: str) -> list[Dataset]:
    return list(header.get(keyword) or [])


def grey_of_colour(header: Dataset, form: PixelFormat, stored: Stored) -> NDArray[np.float64]:
    """A grey picture stored in colour, by luminance; a colour picture is rejected.

    Parameters
    ----------
    stored : ndarray of integers, shape (rows, columns, 3), or (rows, columns) of palette indices

    Returns
    -------
    ndarray of float64, shape (rows, columns)
        In [0, 1].

    Raises
    ------
    RejectedImageError
        ``colour``.
    """
    bits = form.stored
    if form.photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut  # noqa: PLC0415  # needed nowhere else

        stored = apply_color_lut(stored, header)[..., :3]
        bits = 8 if stored.max() < 1 << 8 else 16
    return grey_of_rgb(stored, (1 << bits) - 1)


def grey_of_rgb(rgb: NDArray[np.integer], white: int) -> NDArray[np.float64]:
    """A grey picture's luminance, in [0, 1].

    Parameters
    ----------
    rgb : ndarray of integers, shape (rows, columns, 3)
    white : int
        The value of white.

    Returns
    -------
    ndarray of float64, shape (rows, columns)

    Raises
    ------
    RejectedImageError
        ``colour`` where the channels of any pixel differ by more than 4/255.
    """
    darkest, brightest = rgb.min(axis=-1), rgb.max(axis=-1)
    if int((brightest - darkest).max()) > GREY_TOLERANCE * white:
        raise RejectedImageError("colour", "the three channels differ")
    return np.clip(rgb @ (LUMINANCE / white), 0.0, 1.0)
