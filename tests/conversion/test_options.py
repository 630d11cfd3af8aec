"""What options of ``convert`` come to."""

from __future__ import annotations

import pytest

from pneumo_fast.conversion.options import most_rejects


@pytest.mark.parametrize(
    ("allowed", "total", "most"),
    [
        (0.29, 100, 29),  # 28.999999999999996 in binary
        (0.57, 100, 57),
        (0.7 / 100, 1_000, 7),  # as 0.7% is read
        (0.01, 99, 0),
        (0.29, 99, 28),
        (0.1, 10**7, 10**6),
        (0.0, 100, 0),
        (1.0, 100, 100),
        (1, 100, 1),
        (500, 100, 500),
    ],
)  # fmt: skip
def test_a_share_of_files_is_rounded_down_as_it_was_typed(allowed: float, total: int, most: int) -> None:
    assert most_rejects(allowed, total) == most


def test_every_hundredth_of_a_hundred_is_itself() -> None:
    assert [most_rejects(share / 100, 100) for share in range(101)] == list(range(101))
