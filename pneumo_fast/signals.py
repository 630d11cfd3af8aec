"""Turns SIGINT and SIGTERM into a request that a loop heeds at the end of its step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """Notes the first SIGINT or SIGTERM while the block lasts; at the second one, things go as without the block."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal = 0
        """Number of the signal that came; 0 for none."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        """Listen, if this is the main thread: no other can."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self._give_back()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
