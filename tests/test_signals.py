"""The first signal is noted, the second one acts as without us."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pneumo_fast.signals import StopRequest

SIGNALS = StopRequest.SIGNALS


class OursError(Exception):
    """Raised by the handler that was there before."""


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.fixture(autouse=True)
def before() -> Iterator[list[object]]:
    """A handler of another's for each signal."""

    def answer(number: int, _frame: object) -> None:
        raise OursError(number)

    found = [signal.signal(number, answer) for number in SIGNALS]
    yield handlers()
    for number, handler in zip(SIGNALS, found, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("second", SIGNALS)
@pytest.mark.parametrize("first", SIGNALS)
def test_the_second_signal_acts_as_without_the_block(first: signal.Signals, second: signal.Signals) -> None:
    with StopRequest() as request:
        signal.raise_signal(first)
        assert request.signal == first
        with pytest.raises(OursError):
            signal.raise_signal(second)
        assert request.signal == first


@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
def test_the_handlers_are_those_from_before_when_the_block_ends(error: Exception | None, before: list[object]) -> None:
    try:
        with StopRequest():
            assert all(one not in before for one in handlers())
            if error:
                raise error
    except ZeroDivisionError:
        pass
    assert handlers() == before


def test_a_thread_beside_the_main_one_sets_no_handler(before: list[object]) -> None:
    def enter() -> int:
        with StopRequest() as request:
            assert handlers() == before
            return request.signal

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter).result() == 0
