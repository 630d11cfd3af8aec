"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called as (things done, things to do in all)."""


def silent(_done: int, _total: int) -> None:
    """Report no progress."""


def part_of_whole(on_progress: OnProgress, before: int, total: int) -> OnProgress:
    """Report a part of the work as part of the whole: ``before`` of ``total`` things were done before it."""
    return lambda done, _of: on_progress(before + done, total)
