"""Any radiograph gives the right image or a rejection that says why."""

from __future__ import annotations

import importlib.util
import re
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.encaps import get_frame

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.read import Radiograph, read_radiograph
from pneumo_fast.radiograph.rejection import REASONS
from tests.support.radiograph_cases import CASES, SECTIONS
from tests.support.radiograph_files import PYDICOM_FILES, X, decoded_jpeg, jpeg, save
from tests.support.radiograph_makers import BASELINE, Case
from tests.support.repository import DOCS, SHARED
from tests.support.strategies import IN_PLACE

DOCUMENT = DOCS / "radiographs.md"
MUCH = 48 << 20  # bytes: pydicom reads a file in no less than a few MB; no absurd size may take more than this


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_the_table(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "file"
    case.make(path)
    if case.outcome == "read":
        assert case.values is not None
        size = max(case.values.shape)
        radiograph = read_radiograph(path, size)
        height, width = case.values.shape
        top, left = (size - height) // 2, (size - width) // 2
        shown = radiograph.pixels[top : top + height, left : left + width]
        np.testing.assert_allclose(shown, case.values, atol=case.tolerance)
        assert " ".join(radiograph.notes) == case.notes
        assert radiograph.intensity == case.intensity
    else:
        with pytest.raises(RejectedImageError) as caught:
            read_radiograph(path, 64)
        assert caught.value.reason == case.outcome
        assert case.outcome in REASONS


def test_every_row_of_the_table_stands_in_the_docs() -> None:
    rows = re.findall(r"^\| (.+?) \| (?:read|`(\w+)`) \|(.*)\|$", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert rows == [
        (case.title, "" if case.outcome == "read" else case.outcome, f" `{case.notes}` " if case.notes else " ")
        for case in CASES
    ]
    assert [line[4:] for line in DOCUMENT.read_text().splitlines() if line.startswith("### ")] == list(SECTIONS)


def test_every_reason_stands_in_the_docs() -> None:
    text = DOCUMENT.read_text()
    assert [reason for reason in REASONS if f"| `{reason}` | {REASONS[reason]} |" not in text] == []


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.outcome in {"too_large", "frame_mismatch", "bad_size"}],
    ids=lambda c: c.title,
)
def test_absurd_sizes_take_no_memory(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "file"
    case.make(path)
    tracemalloc.start()
    try:
        with pytest.raises(RejectedImageError):
            read_radiograph(path, 64)
        assert tracemalloc.get_traced_memory()[1] < MUCH
    finally:
        tracemalloc.stop()


def test_a_gigabyte_declared_in_two_kilobytes_takes_no_memory(tmp_path: Path) -> None:
    save(tmp_path / "file", Rows=30000, Columns=50000, data=bytes(2000))
    tracemalloc.start()
    try:
        with pytest.raises(RejectedImageError, match="corrupt"):
            read_radiograph(tmp_path / "file", 64, max_pixels=1 << 31)
        assert tracemalloc.get_traced_memory()[1] < MUCH
    finally:
        tracemalloc.stop()


def test_window_none_applies_neither_window_nor_lut(tmp_path: Path) -> None:
    save(tmp_path / "file", WindowCenter=100, WindowWidth=50)
    radiograph = read_radiograph(tmp_path / "file", 64, window="none")
    np.testing.assert_allclose(radiograph.pixels, X / 255, atol=1e-6)
    assert radiograph.intensity == "range"


def test_pixels_that_are_not_square_are_decoded_whole(tmp_path: Path) -> None:
    """What reduced decoding leaves is measured in pixels, and might be too few of the longer ones."""
    picture = np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
    save(tmp_path / "file", picture, syntax=BASELINE, frames=[jpeg(picture)], PixelSpacing=["0.1", "0.2"])
    fast = read_radiograph(tmp_path / "file", 64, decode_mode="fast")
    np.testing.assert_array_equal(fast.pixels, read_radiograph(tmp_path / "file", 64).pixels)


TEXTS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: f"{number:.9g}"),
    st.sampled_from(["0", "1", "-1", "50", "1000", "1e-20", "-1e-20", "1e-310", "1e308", "-1e308"]),
)
"""As DS has them: at most 16 characters."""
OF_THE_VALUES = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")


@settings(IN_PLACE, max_examples=100)
@given(
    bits=st.integers(9, 16),
    signed=st.booleans(),
    texts=st.fixed_dictionaries({}, optional=dict.fromkeys(OF_THE_VALUES, TEXTS)),
    words=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("PixelPaddingValue", "PixelPaddingRangeLimit"), st.integers(0, 32767))
    ),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
def test_any_header_gives_values_from_0_to_1_or_a_rejection(
    tmp_path: Path, bits: int, signed: bool, texts: dict[str, str], words: dict[str, int], function: str,
    photometric: str,
) -> None:  # fmt: skip
    pixels = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    attributes: dict[str, Any] = {"BitsStored": bits, "PixelRepresentation": int(signed), **texts, **words}
    save(tmp_path / "file", pixels, photometric, VOILUTFunction=function, **attributes)
    for size in (32, 16):
        try:
            shown = read_radiograph(tmp_path / "file", size).pixels
        except RejectedImageError:
            continue
        assert np.isfinite(shown).all()
        assert shown.min() >= 0.0
        assert shown.max() <= 1.0


def test_a_uid_is_hashed_and_the_same_uid_has_the_same_hash(tmp_path: Path) -> None:
    hashes = []
    for number, uid in enumerate(("1.2.3", "1.2.3", "1.2.4")):
        save(tmp_path / str(number), SOPInstanceUID=uid)
        hashes.append(read_radiograph(tmp_path / str(number), 32).uid_hash)
    assert hashes[0] == hashes[1] != hashes[2]
    assert re.fullmatch("[0-9a-f]{16}", hashes[0])


def test_the_file_name_decides_nothing(tmp_path: Path) -> None:
    save(tmp_path / "really_dicom.png")
    assert read_radiograph(tmp_path / "really_dicom.png", 64).uid_hash


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("read", "read_regular"), ("read", "parse_header"), ("read", "decode"), ("read", "resize"),
        ("pictures", "decode_grey_jpeg"),
    ],
)  # fmt: skip
def test_memory_that_runs_out_is_no_damage(
    place: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "pictures":
        (tmp_path / "file").write_bytes(jpeg())
    else:
        save(tmp_path / "file")

    def run_out(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(f"pneumo_fast.radiograph.{place}.{name}", run_out)
    with pytest.raises(RejectedImageError, match="out_of_memory"):
        read_radiograph(tmp_path / "file", 64)


def test_fast_is_close_to_exact_on_real_radiographs() -> None:
    files = sorted((SHARED / "rsna16").rglob("*.dcm"))
    if not files:
        pytest.skip("the real radiographs are not there")
    for file in files:
        fast, exact = (read_radiograph(file, 224, decode_mode=mode).pixels for mode in ("fast", "exact"))
        difference = np.abs(fast - exact) * 255
        assert 0 < difference.mean() <= 0.3
        assert difference.max() <= 15


def test_real_radiographs_are_scaled_by_255() -> None:
    files = sorted((SHARED / "rsna16").rglob("*.dcm"))
    if not files:
        pytest.skip("the real radiographs are not there")
    for file in files[:4]:
        stored = decoded_jpeg(get_frame(pydicom.dcmread(file).PixelData, 0, number_of_frames=1))
        np.testing.assert_allclose(read_radiograph(file, 1024).pixels, stored, rtol=0, atol=1e-7)


def installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


FOREIGN = {
    "693_J2KI.dcm": ("", "read"),
    "CT_small.dcm": ("", "read"),
    "ExplVR_BigEnd.dcm": ("", "colour"),
    "ExplVR_BigEndNoMeta.dcm": ("", "not_an_image"),
    "ExplVR_LitEndNoMeta.dcm": ("", "not_an_image"),
    "GDCMJ2K_TextGBR.dcm": ("openjpeg", "colour"),
    "J2K_pixelrep_mismatch.dcm": ("", "read"),
    "JPEG-lossy.dcm": ("libjpeg", "corrupt"),
    "JPEG2000-embedded-sequence-delimiter.dcm": ("", "frame_mismatch"),
    "JPEG2000.dcm": ("", "read"),
    "JPGExtended.dcm": ("libjpeg", "read"),
    "MR_small.dcm": ("", "read"),
    "MR_small_RLE.dcm": ("", "read"),
    "MR_small_bigendian.dcm": ("", "read"),
    "MR_small_implicit.dcm": ("", "read"),
    "MR_small_jp2klossless.dcm": ("", "read"),
    "MR_small_jpeg_ls_lossless.dcm": ("libjpeg", "read"),
    "MR_small_padded.dcm": ("", "read"),
    "MR_truncated.dcm": ("", "corrupt"),
    "SC_rgb_dcmtk_+eb+cy+np.dcm": ("", "colour"),
    "SC_rgb_gdcm_KY.dcm": ("", "colour"),
    "SC_rgb_jls_lossy_line.dcm": ("libjpeg", "colour"),
    "SC_rgb_jpeg_gdcm.dcm": ("libjpeg", "colour"),
    "SC_rgb_rle_32bit.dcm": ("", "colour"),
    "SC_rgb_rle_2frame.dcm": ("", "multi_frame"),
    "SC_rgb_small_odd.dcm": ("", "bad_size"),
    "SC_ybr_full_422_uncompressed.dcm": ("", "colour"),
    "badVR.dcm": ("", "bad_header"),
    "dicomdirtests/DICOMDIR": ("", "not_an_image"),
    "examples_overlay.dcm": ("", "read"),
    "examples_palette.dcm": ("", "colour"),
    "examples_ybr_color.dcm": ("", "multi_frame"),
    "image_dfl.dcm": ("", "read"),
    "liver_1frame.dcm": ("", "unsupported"),
    "no_meta.dcm": ("", "not_dicom"),
    "reportsi.dcm": ("", "not_an_image"),
    "rtdose_rle.dcm": ("", "multi_frame"),
    "rtplan.dcm": ("", "not_an_image"),
    "rtplan_truncated.dcm": ("", "not_an_image"),
    "rtstruct.dcm": ("", "not_an_image"),
    "test-SR.dcm": ("", "not_an_image"),
    "waveform_ecg.dcm": ("", "not_an_image"),
    "zipMR.gz": ("", "not_dicom"),
    "HTJ2K_08_RGB.dcm": ("openjpeg", "colour"),
    "JLSL_16_15_1_1F.dcm": ("libjpeg", "read"),
    "JPGLosslessP14SV1_1s_1f_8b.dcm": ("libjpeg", "read"),
    "RG1_J2KI.dcm": ("", "read"),
    "RG3_J2KI.dcm": ("", "read"),
    "SC_rgb_2frame.dcm": ("", "multi_frame"),
    "liver_nonbyte_aligned.dcm": ("", "multi_frame"),
    "mlut_18.dcm": ("", "read"),
    "vlut_04.dcm": ("", "read"),
}
"""Files of pydicom's and of ``variants``: the module of the extra decoders that each needs, and what becomes of it."""


def _rejection_or_image(path: Path, size: int) -> Radiograph | RejectedImageError:
    try:
        return read_radiograph(path, size)
    except RejectedImageError as error:
        return error


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others(name: str) -> None:
    path = next((p for p in (PYDICOM_FILES / name, SHARED / "variants" / name) if p.is_file()), None)
    if path is None:
        pytest.skip(f"{name} is not there")
    needs, outcome = FOREIGN[name]
    result = _rejection_or_image(path, 512)
    if isinstance(result, RejectedImageError):
        assert result.reason in ({outcome} if not needs or installed(needs) else {"needs_decoders", "corrupt"})
        return
    assert outcome == "read"
    expected = _reference(pydicom.dcmread(path))
    full = read_radiograph(path, max(expected.shape)).pixels
    top, left = ((full.shape[0] - side) // 2 for side in expected.shape)
    shown = full[top : top + expected.shape[0], left : left + expected.shape[1]]
    np.testing.assert_allclose(shown, expected, atol=2e-6)


def _reference(header: pydicom.Dataset) -> NDArray[np.float64]:
    """The greyscale pipeline once more, value by value, for what these files hold."""
    bits, signed = header.BitsStored, header.PixelRepresentation == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one of the files has padding after its pixels
        x = header.pixel_array.astype(np.float64)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if "ModalityLUTSequence" in header:
        item = header.ModalityLUTSequence[0]
        low, x, high = 0, _looked_up(item, x), 2 ** item.LUTDescriptor[2] - 1
    else:
        slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
        x, low, high = x * slope + intercept, low * slope + intercept, high * slope + intercept
    if "VOILUTSequence" in header:
        item = header.VOILUTSequence[0]
        shown = _looked_up(item, x) / (2 ** item.LUTDescriptor[2] - 1)
    elif "WindowCenter" in header:
        center, width = (float(np.atleast_1d(header[k].value)[0]) for k in ("WindowCenter", "WindowWidth"))
        shown = np.clip((x - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    else:
        shown = (x - low) / (high - low)
    shown = np.asarray(shown, dtype=np.float64)
    return 1 - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown


def _looked_up(item: pydicom.Dataset, x: NDArray[np.float64]) -> NDArray[np.float64]:
    data = item.LUTData
    table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    first = item.LUTDescriptor[1]
    return np.asarray(table[np.clip(x - first, 0, len(table) - 1).astype(int)], dtype=np.float64)
