"""Numbers and their intervals as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.formatting import TERMINAL, TYPESET, Notation
from pneumo_fast.metrics.intervals import Estimate

MINUS, DASH, SPACE = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "digits", "typeset", "terminal"),
    [
        (0.12345, 3, "0.123", "0.123"),
        (0.0625, 3, "0.063", "0.063"),  # JavaScript's (0.0625).toFixed(3)
        (0.3125, 3, "0.313", "0.313"),
        (1.0, 3, "1.000", "1.000"),
        (-0.5, 2, f"{MINUS}0.50", "-0.50"),
        (-0.0004, 3, "0.000", "0.000"),
        (12.0, 0, "12", "12"),
        (None, 3, DASH, "-"),
        (-1e308, 3, f"{MINUS}1e+308", "-1e+308"),  # of a tampered file
    ],
)
def test_a_number(value: float | None, digits: int, typeset: str, terminal: str) -> None:
    assert TYPESET.number(value, digits) == typeset
    assert TERMINAL.number(value, digits) == terminal


@pytest.mark.parametrize(("value", "written"), [(0.01, "+0.010"), (-0.01, "-0.010"), (0.0, "+0.000"), (None, "-")])
def test_a_difference_has_a_sign(value: float | None, written: str) -> None:
    assert TERMINAL.number(value, signed=True) == written


def test_a_share() -> None:
    assert TYPESET.share(0.2346) == f"23.5{SPACE}%"
    assert TERMINAL.share(0.2346) == "23.5%"
    assert TYPESET.share(0.95, 0) == f"95{SPACE}%"


@pytest.mark.parametrize(
    ("notation", "signed", "written"),
    [
        (TYPESET, False, f"{MINUS}0.123 ({MINUS}0.20 to 0.10)"),
        (TERMINAL, False, "-0.123 (-0.20 to 0.10)"),
        (TERMINAL, True, "-0.123 (-0.20 to +0.10)"),
    ],
)
def test_an_estimate(notation: Notation, *, signed: bool, written: str) -> None:
    assert notation.estimate(Estimate(value=-0.123, low=-0.2, high=0.1), signed=signed) == written


@pytest.mark.parametrize("notation", [TYPESET, TERMINAL])
def test_an_estimate_without_an_interval(notation: Notation) -> None:
    assert notation.estimate(Estimate(value=0.5)) == "0.500"
    assert notation.estimate(Estimate(value=None)) == notation.none
    assert notation.interval(Estimate(value=0.5)) == ""


@given(st.floats(-1e6, 1e6), st.integers(0, 6))
def test_what_is_written_is_the_number(value: float, digits: int) -> None:
    assert math.isclose(float(TERMINAL.number(value, digits)), value, rel_tol=1e-12, abs_tol=0.5000001 * 10**-digits)
