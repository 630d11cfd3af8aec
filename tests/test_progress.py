"""How work says how far it is."""

from __future__ import annotations

from pneumo_fast.progress import part_of_whole


def test_a_part_is_reported_as_part_of_the_whole() -> None:
    calls: list[tuple[int, int]] = []
    second = part_of_whole(lambda done, total: calls.append((done, total)), 10, 15)
    second(1, 5)
    second(5, 5)
    assert calls == [(11, 15), (15, 15)]
