"""What may be known of an image: read leniently, bounded, and nothing else."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from pydicom import Dataset, config

from pneumo_fast.radiograph.header import PixelFormat
from pneumo_fast.radiograph.metadata import Metadata, marks, parse_age, read_metadata
from tests.support.radiograph_files import RAMP, header

CANARY = "ZZCANARYZZ"


def metadata(**attributes: Any) -> Metadata:
    with config.disable_value_validation():
        dataset = header(RAMP, **attributes)
        return read_metadata(dataset, PixelFormat.of(dataset))


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("51", "51"), ("051Y", "51"), ("006M", "0"), ("018M", "1"), ("030W", "0"), ("400D", "1"), ("0", "0"),
        ("120Y", "120"), ("121Y", ""), ("155", ""), ("", ""), ("51 years", ""), ("-5Y", ""), ("Y", ""), ("5.5", ""),
        ("99999Y", ""), ("٣٢", "32"),
    ],
)  # fmt: skip
def test_age(text: str, years: str) -> None:
    assert parse_age(text) == years


@pytest.mark.parametrize(("written", "sex"), [("M", "M"), ("f", "F"), (" O ", "O"), ("", ""), ("male", ""), (None, "")])
def test_sex(written: str | None, sex: str) -> None:
    assert metadata(PatientSex=written).sex == sex


@pytest.mark.parametrize(
    ("position", "description", "view"),
    [
        ("AP", "", "AP"), ("pa ", "", "PA"), ("LL", "view: AP", "LL"), ("", "view: PA", "PA"), (None, None, ""),
        (None, "CHEST LAT", "LATERAL"), (None, "chest ap/lat", ""), (None, "PAPA", ""), ("XX", "AP", "AP"),
        ("RLO", "", "RLO"), (None, "W034 Thorax p.a.", ""),
    ],
)  # fmt: skip
def test_view(position: str | None, description: str | None, view: str) -> None:
    assert metadata(ViewPosition=position, SeriesDescription=description).view == view


@pytest.mark.parametrize(
    ("imager", "pixel", "spacing"),
    [([0.143, 0.143], None, "0.143"), (None, [0.2, 0.3], "0.2\\0.3"), (None, [0.2, 0.2001], "0.2"),
     ([0.1, 0.1], [0.9, 0.9], "0.1"), (None, None, ""),
     ([0, 0], None, ""), ([99, 99], [0.5, 0.5], "0.5"), ([], None, "")],
)  # fmt: skip
def test_spacing(imager: list[float] | None, pixel: list[float] | None, spacing: str) -> None:
    assert metadata(ImagerPixelSpacing=imager, PixelSpacing=pixel).spacing_mm == spacing


@pytest.mark.parametrize(
    ("attributes", "height"),
    [
        ({}, 1.0),
        ({"PixelSpacing": [0.2, 0.1]}, 2.0),
        ({"ImagerPixelSpacing": [0.1, 0.2], "PixelSpacing": [0.2, 0.1]}, 0.5),
        ({"PixelSpacing": [0.143, 0.1431]}, 1.0),
        ({"PixelSpacing": [0.202, 0.2]}, 1.01),
        ({"PixelAspectRatio": [4, 3]}, 4 / 3),
        ({"PixelAspectRatio": [4, 3], "PixelSpacing": [0.1, 0.1]}, 1.0),
        ({"PixelAspectRatio": [0, 3]}, 1.0),
    ],
)
def test_the_height_of_a_pixel(attributes: dict[str, list[float]], height: float) -> None:
    assert metadata(**attributes).pixel_height == pytest.approx(height)


def test_size_bits_body_part_and_burned_in() -> None:
    found = metadata(BodyPartExamined="chest", BurnedInAnnotation="YES")
    assert (found.height, found.width, found.bits_stored, found.photometric) == (64, 64, 8, "MONOCHROME2")
    assert (found.body_part, found.burned_in) == ("CHEST", "YES")


def test_no_free_text_comes_through() -> None:
    planted = ("PatientName", "PatientID", "PatientSex", "PatientAge", "ViewPosition", "SeriesDescription", "StudyID",
               "BodyPartExamined", "BurnedInAnnotation", "AccessionNumber", "InstitutionName")  # fmt: skip
    found = metadata(**dict.fromkeys(planted, CANARY), PatientBirthDate="19010203", PatientComments=CANARY * 9)
    assert CANARY not in str(asdict(found)).upper()
    assert "1901" not in str(asdict(found))


@pytest.mark.parametrize(("value", "marked"), [("YES", True), ("BOTH", True), ("NO", False), ("", False), ("Y", False)])
def test_phantoms_and_test_images_are_marked(value: str, marked: bool) -> None:
    image = Dataset()
    image.QualityControlImage = value
    assert marks(image) == (("quality_control_image",) if marked else ())
