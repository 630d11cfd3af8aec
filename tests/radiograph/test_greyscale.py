"""The greyscale curve at values worked out by hand from PS3.3 C.11."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.greyscale import Curve, apply_curve, greyscale_curve, stored_range
from tests.support.radiograph_files import lut


def curve(bits: int = 8, *, signed: bool = False, **attributes: Any) -> Curve:
    header = Dataset()
    header.PhotometricInterpretation = "MONOCHROME2"
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return greyscale_curve(header, bits, signed=signed, window="auto")


def shown(of: Curve, *stored: int) -> list[float]:
    return [float(value) for value in of.apply(np.array(stored, dtype=np.float64))]


@pytest.mark.parametrize(
    ("function", "center", "width", "values"),
    [
        # LINEAR: black up to c - 0.5 - (w-1)/2 = 77.5 - 25 ..., white above 127.5; (x - 99.5) / 50 + 0.5 between
        (None, 100, 51, {0: 0, 74: 0, 75: 0.01, 99: 0.49, 100: 0.51, 124: 0.99, 125: 1, 255: 1}),
        ("LINEAR", 100, 51, {75: 0.01, 124: 0.99}),
        ("LINEAR", 100, 1, {99: 0, 100: 1, 101: 1}),
        # LINEAR_EXACT: (x - c) / w + 0.5
        ("LINEAR_EXACT", 100, 50, {75: 0, 76: 0.02, 100: 0.5, 124: 0.98, 125: 1}),
        ("LINEAR_EXACT", 100, 0.5, {99: 0, 100: 0.5, 101: 1}),
        # SIGMOID: 1 / (1 + exp(-4 (x - c) / w))
        (
            "SIGMOID",
            100,
            40,
            {100: 0.5, 110: 1 / (1 + np.exp(-1)), 60: 1 / (1 + np.exp(4)), 255: 1 / (1 + np.exp(-15.5))},
        ),
    ],
)
def test_windows(function: str | None, center: float, width: float, values: dict[int, float]) -> None:
    more: dict[str, Any] = {"VOILUTFunction": function} if function else {}
    found = curve(WindowCenter=center, WindowWidth=width, **more)
    assert shown(found, *values) == pytest.approx(list(values.values()), abs=1e-12)
    assert found.intensity == "window"
    assert found.linear is None


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": 2048, "WindowWidth": 4096},
        {"WindowCenter": 300, "WindowWidth": 80},
        {"WindowCenter": 600, "WindowWidth": 1000},
        {"WindowCenter": 128, "WindowWidth": 1025},
        {"WindowCenter": 256.1, "WindowWidth": 80},
        {"WindowCenter": -0.1, "WindowWidth": 80},
        {"WindowCenter": -50, "WindowWidth": 80},
        {"WindowCenter": 100, "WindowWidth": 0},
        {"WindowCenter": 100, "WindowWidth": -5},
        {"WindowCenter": 100, "WindowWidth": 0.5},
        {"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "CUBIC"},
        {"WindowCenter": 100, "WindowWidth": 1e-310, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 100, "WindowWidth": 1e-310, "VOILUTFunction": "SIGMOID"},
    ],
)
def test_a_misfit_window_is_noted_and_left_out(window: dict[str, Any]) -> None:
    found = curve(**window)
    assert found.notes == ("window_ignored",)
    assert found.intensity == "range"
    assert shown(found, 0, 51, 255) == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize(
    ("attributes", "stored", "values"),
    [
        ({"bits": 15}, (0, 32767), (0, 1)),
        ({"bits": 12, "signed": True}, (-2048, 0, 2047), (0, 2048 / 4095, 1)),
        ({"RescaleSlope": 2.8, "RescaleIntercept": -240}, (0, 100, 255), (0, 100 / 255, 1)),
        ({"RescaleSlope": -3, "RescaleIntercept": 7}, (0, 100, 255), (1, 155 / 255, 0)),
        ({"RescaleIntercept": -1024}, (0, 51), (0, 0.2)),
        ({"RescaleSlope": 0.5, "WindowCenter": 100.5, "WindowWidth": 2}, (199, 200, 202), (0, 0.5, 1)),
    ],
)
def test_ranges_and_rescale(attributes: dict[str, Any], stored: tuple[int, ...], values: tuple[float, ...]) -> None:
    assert shown(curve(**attributes), *stored) == pytest.approx(values)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("slope", [1.0, -2.8])
def test_the_linear_form_is_the_curve(bits: int, signed: bool, slope: float) -> None:
    found = curve(bits, signed=signed, RescaleSlope=slope, RescaleIntercept=-240)
    assert found.linear is not None
    scale, offset = found.linear
    x = np.linspace(*stored_range(bits, signed=signed), 99)
    np.testing.assert_allclose(found.apply(x), x * scale + offset, atol=1e-9)


@pytest.mark.parametrize(
    ("item", "values"),
    [
        (lut(np.array([0, 85, 170, 255]), 10, 8), {0: 0, 10: 0, 11: 85 / 255, 13: 1, 200: 1}),
        (lut(np.array([0, 85, 170, 255]), 10, 8, words=False), {10: 0, 11: 85 / 255, 12: 170 / 255, 13: 1}),
        (lut(np.array([4095, 2048, 0]), 0, 12), {0: 1, 1: 2048 / 4095, 2: 0, 255: 0}),  # decreasing
        (lut(np.array([0, 512, 1023]), 0, 16), {1: 512 / 1023, 2: 1}),  # 10 bits used of 16 declared
        (lut(np.array([0, 512, 1023]), 0, 12), {1: 512 / 4095, 2: 1023 / 4095}),  # of 12: it is dark on purpose
        (lut(np.array([0, 512, 1023]), 0, 9), {1: 512 / 1023, 2: 1}),  # more used than declared
        (lut(np.arange(1 << 16), 0, 16, count=0), {0: 0, 51: 51 / 65535, 255: 255 / 65535}),  # 0 means 65,536
    ],
)
def test_voi_lut(item: Dataset, values: dict[int, float]) -> None:
    found = curve(VOILUTSequence=[item])
    assert shown(found, *values) == pytest.approx(list(values.values()))
    assert found.intensity == "voi_lut"


@pytest.mark.parametrize("first", [-4, 65532])
@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_negative_first_value_however_it_is_written(first: int, keyword: str) -> None:
    item = lut(np.array([0, 51, 102, 255]), first, 8)
    attributes: dict[str, Any] = {keyword: [item]}
    assert shown(curve(signed=True, **attributes), -100, -4, -3, -1, 5) == pytest.approx([0, 0, 0.2, 1, 1])


def test_lut_data_as_numbers() -> None:
    item = lut(np.array([0]), 0, 8, count=3)
    item.add_new("LUTData", "US", [0, 51, 255])
    assert shown(curve(VOILUTSequence=[item]), 0, 1, 2) == pytest.approx([0, 0.2, 1])


@pytest.mark.parametrize(
    ("numbers", "bits", "values"),
    [
        ([0, 13107, -13108, -1], 16, [0, 0.2, 0.8, 1]),
        ([0, 51, -52, -1], 8, [0, 0.2, 0.8, 1]),  # bytes, one in a word, that were signed
        ([0x3300, -0x34], 8, [0, 0.2, 0.8, 1]),  # bytes, two in a word
        ([0, 819, 3276, 4095], 12, [0, 0.2, 0.8, 1]),
    ],
)
@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_lut_data_as_signed_numbers_are_unsigned(
    numbers: list[int], bits: int, values: list[float], keyword: str
) -> None:
    item = lut(np.array([0]), 0, bits, count=4)
    item.add_new("LUTData", "SS", numbers)
    attributes: dict[str, Any] = {keyword: [item]}
    assert shown(curve(**attributes), 0, 1, 2, 3) == pytest.approx(values)


def test_lut_data_of_a_big_endian_file() -> None:
    item = lut(np.array([0, 0x3300, 0xFF00]).astype(np.uint16).byteswap(), 0, 16)
    header = Dataset()
    header.set_original_encoding(False, False)
    header.PhotometricInterpretation = "MONOCHROME2"
    item["LUTData"].value = np.array([0, 13107, 65535]).astype(">u2").tobytes()
    header.VOILUTSequence = [item]
    found = greyscale_curve(header, 8, signed=False, window="auto")
    assert shown(found, 0, 1, 2) == pytest.approx([0, 0.2, 1])


def test_the_modality_lut_comes_before_the_window() -> None:
    found = curve(ModalityLUTSequence=[lut(np.arange(256)[::-1], 0, 8)], WindowCenter=100, WindowWidth=51)
    assert shown(found, 0, 155, 156, 255) == pytest.approx([1, 0.51, 0.49, 0])


@pytest.mark.parametrize(
    "attributes",
    [
        {"RescaleSlope": 0},
        {"VOILUTSequence": [Dataset()]},
        {"VOILUTSequence": [lut(np.zeros(9), 0, 8)]},
        {"VOILUTSequence": [lut(np.arange(9), 0, 8, count=256)]},
        {"VOILUTSequence": [lut(np.full(256, 7), 0, 8)]},  # every pixel would be equal
        {"ModalityLUTSequence": [lut(np.full(256, 7), 0, 8)]},
        {"ModalityLUTSequence": [lut(np.array([7]), 0, 8)]},
        {"ModalityLUTSequence": [lut(np.arange(9), 0, 16, count=0)]},
    ],
)
def test_what_cannot_be_applied_is_rejected(attributes: dict[str, Any]) -> None:
    with pytest.raises(RejectedImageError, match="bad_header"):
        curve(**attributes)


@pytest.mark.parametrize(
    ("photometric", "shape", "black", "notes"),
    [
        ("MONOCHROME1", None, 1.0, ()),
        ("MONOCHROME1", "INVERSE", 1.0, ()),
        ("MONOCHROME1", "IDENTITY", 1.0, ("presentation_lut_contradicts",)),
        ("MONOCHROME2", "IDENTITY", 0.0, ()),
        ("MONOCHROME2", "INVERSE", 0.0, ("presentation_lut_contradicts",)),
    ],
)
def test_inverted_at_most_once(photometric: str, shape: str | None, black: float, notes: tuple[str, ...]) -> None:
    more: dict[str, Any] = {"PresentationLUTShape": shape} if shape else {}
    found = curve(PhotometricInterpretation=photometric, **more)
    assert shown(found, 0) == [black]
    assert found.notes == notes


@pytest.mark.parametrize(
    ("bits", "dtype"), [(8, "uint8"), (12, "int16"), (16, "uint16"), (20, "uint32"), (32, "int32")]
)
def test_the_table_is_the_curve(bits: int, dtype: str) -> None:
    signed = dtype.startswith("i")
    low, high = stored_range(bits, signed=signed)
    stored = np.linspace(low, high, 1000).astype(dtype).reshape(40, 25)
    found = curve(bits, signed=signed, WindowCenter=(low + high) / 3, WindowWidth=(high - low) / 2)
    applied = apply_curve(found, stored, bits, signed=signed)
    assert applied.dtype == np.float32
    np.testing.assert_allclose(applied, found.apply(stored.astype(np.float64)), atol=1e-6)


@pytest.mark.parametrize(("width", "notes"), [(512, ()), (513, ("window_wider_than_values",)), (1024, None)])
def test_how_wide_a_window_may_be(width: int, notes: tuple[str, ...] | None) -> None:
    found = curve(WindowCenter=128, WindowWidth=width)
    assert found.intensity == "window"
    assert found.notes == (("window_wider_than_values",) if notes is None else notes)


@pytest.mark.parametrize("center", [0, 256])
def test_where_the_centre_of_a_window_may_lie(center: float) -> None:
    assert curve(WindowCenter=center, WindowWidth=80).intensity == "window"


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 0.5, 1.0, -1.0, 50.0, 1000.0, 1e-20, 1e-310, 1e-90, 1e90, 1e308, -1e308]),
)


@given(
    bits=st.sampled_from([1, 8, 12, 16, 20, 32]),
    signed=st.booleans(),
    attributes=st.fixed_dictionaries({}, optional=dict.fromkeys(
        ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"), NUMBERS
    )),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)  # fmt: skip
def test_every_display_value_is_in_its_range(
    bits: int, signed: bool, attributes: dict[str, float], function: str
) -> None:
    try:
        header = {"PhotometricInterpretation": "MONOCHROME2", "VOILUTFunction": function, **attributes}
        found = greyscale_curve(header, bits, signed=signed, window="auto")
    except RejectedImageError:
        return
    low, high = stored_range(bits, signed=signed)
    stored = np.unique(np.linspace(low, high, 200).astype(np.int64))
    with np.errstate(all="raise", under="ignore"):
        values = apply_curve(found, stored, bits, signed=signed)
    assert np.isfinite(values).all()
    assert values.min() >= 0.0
    assert values.max() <= 1.0
    if found.intensity == "range":
        assert abs(float(values[-1]) - float(values[0])) > 0.999, "no grey level is lost"
    if found.linear:
        scale, offset = found.linear
        np.testing.assert_allclose(stored * scale + offset, values, atol=1e-3)


@pytest.mark.parametrize("slope", [1e-20, -1e-20, 1e308, 1e-310])
def test_a_rescale_that_leaves_no_grey_levels_apart_is_refused(slope: float) -> None:
    with pytest.raises(RejectedImageError, match="leave no grey levels apart"):
        greyscale_curve({"RescaleSlope": slope, "RescaleIntercept": 1000.0}, 8, signed=False, window="auto")
