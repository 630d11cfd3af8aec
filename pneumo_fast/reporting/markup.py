"""Pieces of HTML and SVG as text, and how figures are written in them.

:data:`Html` is a type of its own: what comes from data is plain ``str`` and becomes ``Html`` only by :func:`text`,
which escapes it, so that the type checker finds every place where that was forgotten.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final, NewType

from pneumo_fast.formatting import EstimateJson, interval, number

Html = NewType("Html", str)
"""Text that is markup already."""
VOID: Final = frozenset({"img", "input", "link", "meta"})
"""Elements without an end."""


def text(value: object) -> Html:
    """Escape a value for use between tags."""
    return Html(html.escape(str(value)))


def tag(name: str, /, *content: Html, **attributes: object) -> Html:
    """An element.

    Parameters
    ----------
    attributes
        By name, with ``_`` for ``-`` and one more at the end where the name is a word of Python (``class_``); escaped.
        True gives an attribute without a value, None and False give none.
    """
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return Html(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{''.join(content)}</{name}>")


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


def join(parts: Iterable[Html], between: str = "") -> Html:
    """Put pieces side by side, perhaps with plain text between them."""
    return Html(text(between).join(parts))


def paragraph(sentence: str, class_: str | None = None) -> Html:
    """A paragraph of plain text."""
    return tag("p", text(sentence), class_=class_)


def bullets(sentences: Iterable[str]) -> Html:
    """A list of sentences."""
    return tag("ul", *(tag("li", text(sentence)) for sentence in sentences))


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Html]], *, hide_caption: bool = False) -> Html:
    """A table in a box of its own, in which it can be moved sideways; the first cell of each row is its heading."""
    head = tag("tr", *(tag("th", text(column), scope="col") for column in columns))
    body = (tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest)) for first, *rest in rows)
    named = tag("caption", text(caption), class_="unseen" if hide_caption else None)
    inside = tag("table", named, tag("thead", head), tag("tbody", *body))
    return tag("div", inside, class_="scroll", tabindex="0", role="region", aria_label=caption)


def facts(pairs: Iterable[tuple[str, Html]]) -> Html:
    """A list of names with their values."""
    return tag("dl", *(tag("div", tag("dt", text(name)), tag("dd", value)) for name, value in pairs), class_="facts")


def details(summary: str, *content: Html) -> Html:
    """Content that is folded up at first."""
    return tag("details", tag("summary", text(summary)), *content)


def estimate(e: EstimateJson) -> Html:
    """A figure with its interval."""
    between = interval(e)
    shown = tag("span", text(number(e["value"])), class_="value")
    return join([shown, tag("span", text(f"({between})"), class_="interval")], " ") if between else shown
