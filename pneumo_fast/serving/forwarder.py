"""Sends results to a node, in a thread of its own; what the node does not take waits."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from pneumo_fast.errors import PacsError
from pneumo_fast.pacs.node import OUT_OF_RESOURCES, NoAnswerError, Node, Sender, associated
from pneumo_fast.serving.database import SpoolDamagedError
from pneumo_fast.serving.spool import Result, Spool

KINDS: Final = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.22")
"""SOP classes of results: Secondary Capture, Enhanced SR."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
MOST_TRIES: Final = 5
"""Times that the node may refuse a result before it is set aside."""
IDLE_S: Final = 5.0
"""For so long the association is kept when there is nothing to send."""

_log = logging.getLogger(__name__)


class Forwarder(threading.Thread):
    """Sends results until it is stopped.

    Attributes
    ----------
    fault : PacsError or None
        Why it ended by itself.
    """

    def __init__(self, spool: Spool, node: Node, calling: str, timeout_s: float) -> None:
        super().__init__(name="forwarder", daemon=True)
        self._spool, self._node, self._calling, self._timeout_s = spool, node, calling, timeout_s
        self._ended = threading.Event()
        self._later: dict[int, float] = {}
        self._unanswered: dict[int, int] = {}  # tries of results without an answer, until another gets one
        self.fault: PacsError | None = None

    def run(self) -> None:
        """Send, and wait longer each time that the node is not there."""
        pause = FIRST_PAUSE_S
        while not self._ended.is_set():
            try:
                if self._next() is None:
                    continue
                with associated(self._node, self._calling, KINDS, self._timeout_s) as association:
                    sender = Sender(self._node, association, self._timeout_s)
                    while result := self._next():
                        self._send(sender, result)
                        pause = FIRST_PAUSE_S
            except SpoolDamagedError as error:
                self.fault = error
                return
            except PacsError as error:
                _log.warning("results wait, the next try is in %g s: %s", pause, error)
                self._ended.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def stop(self) -> None:
        """End after the object that is being sent."""
        self._ended.set()
        self._spool.made.set()
        self.join()

    def _next(self) -> Result | None:
        """The next result; None when there is none for a while, or it is time to end."""
        self._spool.made.clear()
        result = self._look()
        if result is None and not self._ended.is_set():
            self._spool.made.wait(IDLE_S)
            result = self._look()
        return None if self._ended.is_set() else result

    def _look(self) -> Result | None:
        self._later = {number: due for number, due in self._later.items() if due > time.monotonic()}
        unanswered = list(self._unanswered)  # others go first, then the one that was sent longest ago
        return self._spool.next_result({*self._later, *unanswered}) or self._spool.next_result(
            {*self._later, *unanswered[1:]}
        )

    def _send(self, sender: Sender, result: Result) -> None:
        self._unanswered.pop(result.number, None)
        try:
            status = sender.store(result.data)
        except NoAnswerError:
            self._unanswered[result.number] = result.tries
            raise
        if status & 0xFF00 == OUT_OF_RESOURCES:
            raise PacsError(f"{self._node} has no room ({status:#06x})")
        while self._unanswered:  # it is them, since the node answers others
            self._refused(*self._unanswered.popitem(), None)
        if is_stored(status):
            self._spool.sent(result.number, status)
        else:
            self._refused(result.number, result.tries, status)

    def _refused(self, number: int, tries: int, status: int | None) -> None:
        for_good = tries + 1 >= MOST_TRIES
        _log.warning(
            "%s refuses result %d (%s): %s", self._node, number,
            "no answer, while it answers others" if status is None else f"{status:#06x}",
            "it is set aside until the next start" if for_good else "others go before it",
        )  # fmt: skip
        self._spool.refused(number, status, for_good=for_good)
        self._later[number] = time.monotonic() + min(FIRST_PAUSE_S * 4**tries, LONGEST_PAUSE_S)


def is_stored(status: int) -> bool:
    """Whether a status of C-STORE is success, or a warning about what was stored all the same (PS3.4 table B.2-1)."""
    return status == 0 or status & 0xF000 == 0xB000
