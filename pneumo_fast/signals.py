"""The signals that ask for an end, and how they become a request that a loop heeds at the end of its step."""

from __future__ import annotations

import os
import signal
import stat
import threading
from contextlib import suppress
from types import FrameType
from typing import Any


def stopping_signals() -> list[signal.Signals]:
    """SIGINT, SIGTERM and, unless it is ignored as under ``nohup``, SIGHUP, which comes when the terminal is closed."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


def leave_closed_terminal() -> None:
    """Let output to a terminal that is gone lead nowhere: its error would end the process before its state is saved."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)


class StopRequest:
    """Notes the first of these signals while the block lasts; at the second one, things go as without the block."""

    def __init__(self) -> None:
        self.signal = 0
        """Number of the signal that came; 0 for none."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        """Listen, if this is the main thread: no other can."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in stopping_signals()}
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self._give_back()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        if number == signal.SIGHUP:
            leave_closed_terminal()
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
