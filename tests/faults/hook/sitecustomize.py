"""Put on PYTHONPATH, makes processes faulty; Python imports a module of this name at start.

``PNEUMO_FAST_POISON`` is JSON, for worker processes: image ids with what reading them does, and a file to log every
read in. ``PNEUMO_FAST_STOP`` is JSON, for all others: a signal that comes at a step in the working directory, counted
from 1, or a while later.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any


def _segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _sleep() -> None:
    time.sleep(3600)


def _spin() -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")  # exponential, in C, without ever giving up the GIL


def _allocate() -> None:
    import numpy as np  # noqa: PLC0415  # in worker processes alone

    hoard = []
    while True:
        hoard.append(np.empty(1 << 28, dtype=np.uint8))


def _fill() -> None:
    import numpy as np  # noqa: PLC0415  # in worker processes alone

    hoard = []
    while True:
        hoard.append(np.ones(1 << 26, dtype=np.uint8))  # pages that are really there, unlike those of empty()


POISONS = {"segfault": _segfault, "sleep": _sleep, "spin": _spin, "allocate": _allocate, "fill": _fill}


def _install(settings: dict[str, Any]) -> None:
    from pneumo_fast.radiograph import read as module  # noqa: PLC0415  # in worker processes alone

    read = module.read_radiograph

    def read_or_worse(path: Path, *arguments: Any, **options: Any) -> module.Radiograph:
        with Path(settings["log"]).open("a") as log:
            log.write(path.stem + "\n")
        if kind := settings["poison"].get(path.stem):
            POISONS[kind]()
        return read(path, *arguments, **options)

    module.read_radiograph = read_or_worse


STEPS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir"}


def _stop_at(step: int, after_s: float, number: int) -> None:
    here, steps = str(Path.cwd()), itertools.count(1)

    def stop(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in STEPS or not isinstance(arguments[0], str | Path):
            return
        if not os.path.join(here, arguments[0]).startswith(here) or next(steps) != step:  # noqa: PTH118  # it counts
            return
        threading.Timer(after_s, os.kill, (os.getpid(), number)).start() if after_s else os.kill(os.getpid(), number)

    sys.addaudithook(stop)


_in_worker = any("pneumo_fast.conversion.child" in argument for argument in sys.orig_argv)
if "PNEUMO_FAST_STOP" in os.environ and not _in_worker:
    _stop_at(*json.loads(os.environ["PNEUMO_FAST_STOP"]).values())
if "PNEUMO_FAST_POISON" in os.environ and _in_worker:
    _install(json.loads(os.environ["PNEUMO_FAST_POISON"]))
