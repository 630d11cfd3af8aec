"""Which radiographs are wanted: what a header says counts, what it does not say is no reason to refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.errors import ConfigError, RejectedImageError
from pneumo_fast.radiograph.metadata import MODALITIES, VIEWS
from pneumo_fast.radiograph.selection import Selection

FRONTAL = {"Modality": "DX", "ViewPosition": "PA", "BodyPartExamined": "CHEST"}


def default() -> Selection:
    """What ``convert`` wants unless told otherwise."""
    config = ConvertConfig(images=Path("i"), labels=Path("l"))
    return Selection(modalities=config.modalities, views=config.views, body_parts=config.body_parts)


def reason(selection: Selection, **header: str) -> str:
    try:
        selection.check(FRONTAL | header)
    except RejectedImageError as error:
        return error.reason
    return ""


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, ""),
        *(({"Modality": name}, "") for name in ("CR", "DX", "RG", "OT", "", "cr ", "rubbish")),
        *(({"Modality": name}, "other_modality") for name in set(MODALITIES) - {"CR", "DX", "RG", "OT"}),
        *(({"ViewPosition": name}, "") for name in ("AP", "PA", "LLD", "", "rubbish")),
        *(({"ViewPosition": name}, "other_view") for name in ("LL", "RL", "LATERAL", "LAT")),
        ({"ViewPosition": "", "SeriesDescription": "CHEST LATERAL"}, "other_view"),
        ({"ViewPosition": "", "SeriesDescription": "PA AND LATERAL"}, ""),
        *(({"BodyPartExamined": name}, "") for name in ("CHEST", "THORAX", "", "rubbish")),
        *(({"BodyPartExamined": name}, "other_body_part") for name in ("ABDOMEN", "HAND", "hand")),
    ],
)
def test_frontal_chest_radiographs_are_wanted(header: dict[str, str], expected: str) -> None:
    assert reason(default(), **header) == expected


def test_a_selection_may_be_wider_or_narrower() -> None:
    wide = Selection(modalities=MODALITIES, views=VIEWS, body_parts=("HAND",))
    assert reason(wide, Modality="CT", ViewPosition="LL", BodyPartExamined="HAND") == ""
    assert reason(wide) == "other_body_part"
    assert reason(Selection(modalities=("CR",), views=("AP",), body_parts=("CHEST",))) == "other_modality"


@pytest.mark.parametrize(("field", "word"), [("modalities", "XRAY"), ("views", "pa"), ("body_parts", "TUMMY")])
def test_what_does_not_exist_is_refused(field: str, word: str) -> None:
    with pytest.raises(ConfigError, match=f"'{word}' is unknown: use one of"):
        ConvertConfig(images=Path("i"), labels=Path("l"), **{field: (word,)})  # type: ignore[arg-type]
