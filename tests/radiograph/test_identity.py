"""What a file says it is, however long its header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from pneumo_fast.radiograph.identity import HEAD_BYTES, read_identity
from pneumo_fast.radiograph.metadata import MODALITIES, VIEWS
from pneumo_fast.radiograph.read import look_at, read_facts, read_radiograph
from pneumo_fast.radiograph.selection import Selection
from tests.support.radiograph_files import jpeg, save
from tests.support.radiograph_makers import BASELINE

EVERYTHING = Selection(modalities=MODALITIES, views=VIEWS, body_parts=("CHEST",))


@pytest.mark.parametrize("more_bytes", [0, 2 * HEAD_BYTES])
def test_an_id_is_found_however_long_the_header_is(tmp_path: Path, more_bytes: int) -> None:
    path = tmp_path / "a.dcm"
    save(path, syntax=BASELINE, frames=[jpeg()], AccessionNumber="A7", SeriesNumber=3, InstanceNumber=5)
    dataset = pydicom.dcmread(path)
    dataset.private_block(0x0009, "MAKER", create=True).add_new(1, "OB", bytes(more_bytes))
    dataset.save_as(path)
    found = read_identity(tmp_path, path.name, "AccessionNumber", EVERYTHING, 1 << 31)
    assert (found.value, found.series, found.instance, found.unwanted) == ("A7", 3, 5, None)


@pytest.mark.parametrize(
    ("element", "broken"),
    [
        (b"\x18\0\x01\x51CS\2\0AP", b"\x18\0\x01\x51UL\2\0AP"),
        (b"\x18\0\x01\x51CS\2\0AP", b"\x18\0\x01\x51SQ\0\0\4\0\0\0\xfe\xff\0\xe0"),
        (b"\x20\0\x11\0IS\2\x003 ", b"\x20\0\x11\0IS\x88\x13" + b"1" * 5000),
    ],
    ids=["a length that its VR cannot have", "a sequence cut short", "thousands of digits"],
)
def test_an_attribute_that_cannot_be_parsed_does_not_hide_the_file(
    element: bytes, broken: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.dcm"
    data = save(path, AccessionNumber="A7", ViewPosition="AP", SeriesNumber=3)
    assert data.count(element) == 1
    path.write_bytes(data.replace(element, broken))
    found = read_identity(tmp_path, path.name, "AccessionNumber", EVERYTHING, 1 << 31)
    assert (found.value, found.unwanted) == ("A7", None)
    assert read_radiograph(path, 32, selection=EVERYTHING).pixels.any()


@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_identity(path.parent, path.name, "AccessionNumber", EVERYTHING, 1 << 31),
        lambda path: read_radiograph(path, 32),
        lambda path: read_facts(path, 32),
        lambda path: look_at(path, 32, window="auto", max_pixels=1 << 20, selection=None),
    ],
    ids=["identity", "radiograph", "facts", "look"],
)
def test_pydicom_quotes_the_file_in_no_warning_and_no_log(
    read: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.dcm"
    with pydicom.config.disable_value_validation():
        save(path, AccessionNumber="longer than an SH may be", SOPInstanceUID="1.2.no")
    caplog.clear()
    read(path)  # a warning would be an error
    assert not caplog.records
