"""Whether DICOM nodes answer a C-ECHO."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pneumo_fast.errors import PacsError
from pneumo_fast.pacs.node import Node, check_aet, echo, require_pynetdicom


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Of a node."""

    node: str
    """As it was given."""
    fault: str | None
    """Why it did not answer as it should; None where it did."""


def ask(nodes: Iterable[str], calling: str) -> tuple[Answer, ...]:
    """Ask each node, ``AET@HOST:PORT``, by our AE title.

    Raises
    ------
    ConfigError
        If one is no node, or our AE title is none.
    PacsError
        If pynetdicom is not installed.
    """
    title = check_aet("aet", calling)
    parsed = [Node.parse(node) for node in nodes]
    if parsed:
        require_pynetdicom("doctor --echo")
    return tuple(_ask(node, title) for node in parsed)


def _ask(node: Node, calling: str) -> Answer:
    try:
        echo(node, calling)
    except PacsError as error:
        return Answer(node=str(node), fault=str(error).removeprefix(f"{node}: "))
    return Answer(node=str(node), fault=None)
