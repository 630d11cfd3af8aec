"""How figures are written, with their intervals: the same for terminal, page and card."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

EstimateJson = Mapping[str, Any]
"""An estimate as ``metrics.json`` has it: ``value``, ``low`` and ``high``, each a number or None."""

NONE: Final = "\N{EN DASH}"
"""Stands where a figure has no value."""


def number(value: float | None, digits: int = 3) -> str:
    """A figure with some decimals, halves rounded away from zero, as JavaScript's ``toFixed`` writes it."""
    if value is None:
        return NONE
    rounded = Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    return f"{rounded.copy_abs() if rounded.is_zero() else rounded:f}".replace("-", "\N{MINUS SIGN}")


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage."""
    return f"{number(100 * share, digits)}\N{NO-BREAK SPACE}%"


def interval(estimate: EstimateJson) -> str:
    """Both ends of an estimate's interval; empty where it has none."""
    if estimate["low"] is None:
        return ""
    return f"{number(estimate['low'], 2)} to {number(estimate['high'], 2)}"


def plain_estimate(e: EstimateJson) -> str:
    """A figure with its interval, as plain text."""
    between = interval(e)
    return f"{number(e['value'])} ({between})" if between else number(e["value"])
