"""Ties a worker process to the one that started it. Imports next to nothing, so that it takes hold at once."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # prctl(2): be killed when the thread that started this process ends
MOST_DISPENSABLE: Final = "1000"  # proc(5): whom the kernel kills first when memory runs out


def put_on_leash(parent: int) -> None:
    """Die when ``parent`` dies, leave Ctrl-C to it, and be killed before it when memory runs out.

    To be called before anything slow: whoever is killed a moment after it started a process leaves nothing behind.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    with contextlib.suppress(OSError):  # not every container has it
        Path("/proc/self/oom_score_adj").write_text(MOST_DISPENSABLE)
