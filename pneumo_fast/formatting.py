"""How figures are written, with their intervals: one way for page, card and figures, and its ASCII for the terminal.

And how commands are, which a shell is to take.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, Protocol


class HasInterval(Protocol):
    """A figure with its interval, as :class:`pneumo_fast.metrics.intervals.Estimate` is one."""

    @property
    def value(self) -> float | None:
        """The figure; None where the images do not define it."""

    @property
    def low(self) -> float | None:
        """Lower end of its interval; None exactly where ``high`` is."""

    @property
    def high(self) -> float | None:
        """Upper end."""


LARGEST_FIXED = 1e15
"""From here on a number is written with an exponent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notation:
    """The characters that numbers are written with."""

    none: str
    """Stands where a figure has no value."""
    minus: str
    percent: str

    def number(self, value: float | None, digits: int = 3, *, signed: bool = False) -> str:
        """A figure with some decimals, halves rounded away from zero, as JavaScript's ``toFixed`` writes it."""
        if value is None:
            return self.none
        if abs(value) >= LARGEST_FIXED:  # which no figure of ours is, but one in somebody else's file may be
            return format(value, "+.3g" if signed else ".3g").replace("-", self.minus)
        rounded = Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
        plain = rounded.copy_abs() if rounded.is_zero() else rounded
        return format(plain, "+f" if signed else "f").replace("-", self.minus)

    def share(self, share: float, digits: int = 1) -> str:
        """A share in [0, 1] as a percentage."""
        return f"{self.number(100 * share, digits)}{self.percent}"

    def interval(self, e: HasInterval, digits: int = 2, *, signed: bool = False) -> str:
        """Both ends of an estimate's interval; empty where it has none."""
        if e.low is None:
            return ""
        ends = (self.number(end, digits, signed=signed) for end in (e.low, e.high))
        return " to ".join(ends)

    def estimate(self, e: HasInterval, digits: int = 3, *, signed: bool = False) -> str:
        """A figure, and its interval in brackets, where it has one."""
        value, between = self.number(e.value, digits, signed=signed), self.interval(e, signed=signed)
        return f"{value} ({between})" if between else value


TYPESET: Final = Notation(
    none="\N{EN DASH}", minus="\N{MINUS SIGN}", percent="\N{NO-BREAK SPACE}%"
)  # fmt: skip
"""For pages, cards and figures."""
TERMINAL: Final = Notation(none="-", minus="-", percent="%")

CONTROL: Final = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]")
"""Characters that steer a terminal or the direction of a text, rather than being text."""


def harmless(text: str) -> str:
    """A text from outside without control characters, each of which becomes a replacement character."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def shell_command(*words: object) -> str:
    """A command of ours as a shell takes it: ``pneumo-fast evaluate 'my run'``."""
    return shlex.join(["pneumo-fast", *map(str, words)])


number = TYPESET.number
percent = TYPESET.share
