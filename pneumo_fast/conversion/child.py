"""What a child process runs, tied to the one that started it: a worker converts task after task.

Imports next to nothing at first, so that the tie holds at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import pickle
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1  # prctl(2): be killed when the thread that started this process ends
MOST_DISPENSABLE: Final = "1000"  # proc(5): whom the kernel kills first when memory runs out
MEMORY_BYTES: Final = 6 << 30  # address space of a worker: a decoder that wants more is stopped by this
IDLE_S: Final = 20.0  # a worker that is given nothing to do for so long ends; another is started when needed


def die_with_parent(parent: int) -> None:
    """Die when ``parent`` dies, leave Ctrl-C to it, and be killed before it when memory runs out.

    To be called before anything slow: whoever is killed a moment after it started a process leaves nothing behind.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    with contextlib.suppress(OSError):  # not every container has it
        Path("/proc/self/oom_score_adj").write_text(MOST_DISPENSABLE)


def main(parent: int) -> None:
    """Serve tasks from standard input until it ends; answer each with one line of JSON on standard output.

    Argument: the descriptor of the journal's memory.
    """
    die_with_parent(parent)
    from pneumo_fast.conversion.gpu_decoder import has_driver, open_decoder  # noqa: PLC0415
    from pneumo_fast.conversion.shard import convert_task  # noqa: PLC0415  # once the tie holds
    from pneumo_fast.conversion.task import JOURNAL, NO_FILE, shallow  # noqa: PLC0415

    _limit_memory()
    journal = mmap.mmap(int(sys.argv[1]), JOURNAL.size)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a native decoder prints must not pass for an answer

    def at(position: int) -> None:
        JOURNAL.pack_into(journal, 0, position, time.monotonic())

    while select.select([sys.stdin], [], [], IDLE_S)[0]:
        try:
            task, rejected_sources = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the supervisor, which started us
        except EOFError:
            return
        if task.gpu is not None and has_driver():
            _lift_memory_limit()
            if open_decoder(task.gpu) is None:
                _limit_memory()
        try:
            answer: dict[str, Any] = shallow(convert_task(task, rejected_sources, at))
        except OSError as error:
            answer = {"error": error.strerror or type(error).__name__}
        at(NO_FILE)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def apply(parent: int) -> None:
    """Apply the function that standard input names to the arguments beside it; the results go to standard output."""
    die_with_parent(parent)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # as in main
    function, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that started us
    with answers:
        pickle.dump([function(argument) for argument in arguments], answers)


def _limit_memory() -> None:
    """Make an absurd allocation fail in this process instead of bringing the machine down."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(
        resource.RLIMIT_AS, (MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard), hard)
    )


def _lift_memory_limit() -> None:
    """Let CUDA map more address space than there is memory, as it does; what is left are the reader's own checks."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
