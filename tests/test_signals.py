"""The first signal is noted, the second one acts as without us; a closed terminal is one."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pneumo_fast.signals import StopRequest

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    """As under ``nohup``."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest() as request:
        signal.raise_signal(signal.SIGHUP)
        assert not request.signal
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


CLOSED = """
import fcntl, sys, termios
from pneumo_fast.signals import StopRequest
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # whose end is told to this process
with StopRequest() as request:
    print("begun", flush=True)
    while not request.signal:
        pass
    print("more")
    sys.stdout.flush()
    open(sys.argv[1], "w").write("saved")
"""


def test_output_to_a_terminal_that_was_closed_is_no_error(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", CLOSED, str(tmp_path / "state")]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        assert os.read(ours, 7).startswith(b"begun")
        os.close(ours)
        assert process.wait(20) == 0
    assert (tmp_path / "state").read_text() == "saved"
