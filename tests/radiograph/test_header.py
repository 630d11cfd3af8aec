"""The shortcut reads what pydicom reads, or steps back."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread, uid
from pydicom.datadict import tag_for_keyword
from pydicom.encaps import encapsulate
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.phantoms.make import make_phantoms
from pneumo_fast.phantoms.options import PhantomConfig
from pneumo_fast.radiograph import header
from pneumo_fast.radiograph.header import parse_header
from pneumo_fast.radiograph.plain_header import JPEG_BASELINE, WANTED, parse_plain
from pneumo_fast.radiograph.read import Radiograph, read_radiograph
from tests.support.radiograph_cases import CASES
from tests.support.radiograph_files import PYDICOM_FILES, RAMP, jpeg, jpeg_2000, lut, save
from tests.support.repository import SHARED

BASELINE = uid.JPEGBaseline8Bit


def outcome(path: Path, size: int = 32) -> Radiograph | str:
    try:
        return read_radiograph(path, size, decode_mode="fast")
    except RejectedImageError as error:
        return error.reason


def by_pydicom(path: Path, monkeypatch: pytest.MonkeyPatch) -> Radiograph | str:
    with monkeypatch.context() as patch:
        patch.setattr(header, "parse_plain", lambda _: None)
        return outcome(path)


def assert_same(one: Radiograph | str, other: Radiograph | str) -> None:
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    np.testing.assert_array_equal(one.pixels, other.pixels)
    for field in set(Radiograph.__slots__) - {"pixels"}:
        assert getattr(one, field) == getattr(other, field), field


def test_tags_are_those_of_the_standard() -> None:
    assert {tag_for_keyword(keyword): keyword for keyword in WANTED.values()} == WANTED
    assert uid.JPEGBaseline8Bit.encode() == JPEG_BASELINE


def test_equals_pydicom_on_real_radiographs(monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted((SHARED / "rsna16").rglob("*.dcm"))
    if not files:
        pytest.skip("the real radiographs are not there")
    for file in files:
        assert parse_plain(file.read_bytes()) is not None
        assert_same(outcome(file), by_pydicom(file, monkeypatch))


def test_equals_pydicom_on_phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phantoms = make_phantoms(PhantomConfig(out=tmp_path, count=4, size_px=64))
    for file in sorted(phantoms.images.iterdir()):
        assert parse_plain(file.read_bytes()) is not None
        assert_same(outcome(file), by_pydicom(file, monkeypatch))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_equals_pydicom_on_every_case(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case.make(tmp_path / "file")
    if (tmp_path / "file").exists():
        assert_same(outcome(tmp_path / "file"), by_pydicom(tmp_path / "file", monkeypatch))


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": ["100", "40"], "WindowWidth": ["50", "80"]},
        {"WindowCenter": "", "WindowWidth": ""},
        {"RescaleSlope": "-1.5", "RescaleIntercept": "1e2"},
        {"photometric": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 9},
        {"PixelSpacing": ["0.143", "0.2"], "PatientAge": "051Y", "PatientSex": "F", "ViewPosition": "PA"},
        {"ImagerPixelSpacing": ["0.1", "0.1"], "BurnedInAnnotation": "YES", "SeriesDescription": "view: AP"},
        {"NumberOfFrames": "1", "BodyPartExamined": "CHEST"},
        {"NumberOfFrames": "2"},
        {"VOILUTFunction": "SIGMOID", "WindowCenter": "100", "WindowWidth": "50"},
        {"SeriesDescription": "view \\ AP"},
        {"SeriesDescription": None, "BitsStored": None, "HighBit": None},
    ],
    ids=str,
)
def test_equals_pydicom_on_attributes(
    attributes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "file", syntax=BASELINE, frames=[jpeg()], **attributes)
    assert_same(outcome(tmp_path / "file"), by_pydicom(tmp_path / "file", monkeypatch))


def as_un(data: bytes, keyword: str, vr: str) -> bytes:
    """A file with one element of VR UN, as archives write what their dictionary lacks (PS3.5 6.2.2)."""
    tag = tag_for_keyword(keyword) or 0
    at = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode())
    begin, layout = (at + 12, "<I") if vr in EXPLICIT_VR_LENGTH_32 else (at + 8, "<H")
    (length,) = struct.unpack_from(layout, data, begin - struct.calcsize(layout))
    return data[: at + 4] + b"UN\0\0" + struct.pack("<I", length) + data[begin:]


_INVERTED = [lut(np.arange(255, -1, -1), 0, 8)]
_ATTRIBUTES: list[dict[str, Any]] = [
    {"Modality": "DX"}, {"SeriesDescription": "view: AP"}, {"PatientSex": "F"}, {"PatientAge": "051Y"},
    {"BodyPartExamined": "CHEST"}, {"ViewPosition": "PA"}, {"ImagerPixelSpacing": ["0.1", "0.1"]},
    {"NumberOfFrames": "2"}, {"PixelSpacing": ["0.143", "0.2"]}, {"PixelAspectRatio": ["2", "1"]},
    {"PixelPaddingValue": 0}, {"PixelPaddingRangeLimit": 9, "PixelPaddingValue": 0}, {"BurnedInAnnotation": "YES"},
    {"QualityControlImage": "YES"}, {"WindowCenter": "100", "WindowWidth": "50"},
    {"WindowWidth": "50", "WindowCenter": "100"}, {"RescaleIntercept": "-9"}, {"RescaleSlope": "-1.5"},
    {"VOILUTFunction": "SIGMOID", "WindowCenter": "100", "WindowWidth": "50"}, {"PresentationLUTShape": "INVERSE"},
    {"ModalityLUTSequence": _INVERTED}, {"VOILUTSequence": _INVERTED},
    *({keyword: value} for keyword, value in {
        "SOPClassUID": "1.2", "SOPInstanceUID": "1.2.3.4", "SamplesPerPixel": 1, "Rows": 64, "Columns": 64,
        "PhotometricInterpretation": "MONOCHROME1", "BitsAllocated": 8, "BitsStored": 8, "PixelRepresentation": 0,
    }.items()),
]  # fmt: skip


@pytest.mark.parametrize("attributes", _ATTRIBUTES, ids=lambda attributes: next(iter(attributes)))
def test_equals_pydicom_on_an_element_of_unknown_vr(
    attributes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, keyword = tmp_path / "file", next(iter(attributes))
    known = save(path, syntax=BASELINE, frames=[jpeg()], **attributes)
    read = outcome(path)
    path.write_bytes(as_un(known, keyword, dcmread(path)[keyword].VR))
    assert_same(outcome(path), by_pydicom(path, monkeypatch))
    assert_same(outcome(path), read)


def test_no_changed_byte_of_the_header_tells_them_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both read the file they read the same; a rejection may have another reason."""
    path = tmp_path / "file"
    small = RAMP[:32, :32]
    data = save(path, small, syntax=BASELINE, frames=[jpeg(small)], WindowCenter="100", WindowWidth="50",
                PatientAge="051Y", RescaleSlope="2", RescaleIntercept="-7")  # fmt: skip
    rng = np.random.default_rng(3)
    read = 0
    for position in range(132, data.index(b"\xe0\x7f\x10\x00") + 30):
        changed = bytearray(data)
        changed[position] = rng.integers(256)
        path.write_bytes(changed)
        if parse_plain(bytes(changed)) is None:
            continue
        one, other = outcome(path), by_pydicom(path, monkeypatch)
        if isinstance(one, str) or isinstance(other, str):
            assert isinstance(one, str) == isinstance(other, str), position
        else:
            assert_same(one, other)
            read += 1
    assert read > 100


def _sequence() -> list[Dataset]:
    return [Dataset()]


@pytest.mark.parametrize(
    ("title", "options"),
    [
        ("another transfer syntax", {"syntax": uid.JPEG2000Lossless, "frames": [jpeg_2000()]}),
        ("uncompressed", {}),
        ("colour", {"photometric": "RGB", "syntax": BASELINE, "frames": [jpeg()]}),
        ("a palette", {"RedPaletteColorLookupTableDescriptor": [256, 0, 8], "syntax": BASELINE, "frames": [jpeg()]}),
        ("a VOI LUT", {"VOILUTSequence": _sequence(), "syntax": BASELINE, "frames": [jpeg()]}),
        ("text that is not ASCII", {"SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": "Größe",
                                    "syntax": BASELINE, "frames": [jpeg()]}),
        ("text of ASCII bytes that is not ASCII", {"SpecificCharacterSet": ["", "ISO 2022 IR 87"],
                                                   "SeriesDescription": "疎", "syntax": BASELINE, "frames": [jpeg()]}),
    ],
)  # fmt: skip
def test_steps_back(title: str, options: dict[str, Any], tmp_path: Path) -> None:
    assert parse_plain(save(tmp_path / "file", **options)) is None, title
    assert isinstance(parse_header((tmp_path / "file").read_bytes()), Dataset)


@pytest.mark.parametrize("keyword", ["BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"])
def test_an_empty_number_has_its_obvious_value(keyword: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "file", syntax=BASELINE, frames=[jpeg()])
    dataset = dcmread(tmp_path / "file")
    dataset[keyword].value = None
    dataset.save_as(tmp_path / "file")
    assert parse_plain((tmp_path / "file").read_bytes()) is not None
    radiograph = outcome(tmp_path / "file")
    assert isinstance(radiograph, Radiograph)
    assert radiograph.notes == (f"no_{keyword}",)
    assert_same(radiograph, by_pydicom(tmp_path / "file", monkeypatch))


@pytest.mark.parametrize("name", ["MR_small.dcm", "image_dfl.dcm", "SC_rgb_jpeg.dcm", "rtplan.dcm", "README.txt"])
def test_steps_back_on_files_of_others(name: str) -> None:
    assert parse_plain((PYDICOM_FILES / name).read_bytes()) is None


def test_steps_back_from_truncated_pixel_data(tmp_path: Path) -> None:
    data = save(tmp_path / "file", syntax=BASELINE, data=encapsulate([jpeg()]))
    assert parse_plain(data) is not None
    assert parse_plain(data[:-20]) is None
    (tmp_path / "file").write_bytes(data[:-20])
    assert outcome(tmp_path / "file") == "corrupt"
