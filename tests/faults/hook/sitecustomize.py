"""Put on PYTHONPATH, makes chosen files poisonous in worker processes; Python imports a module of this name at start.

``PNEUMO_FAST_POISON`` is JSON: image ids with what reading them does, and a file to log every read in.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
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


if "PNEUMO_FAST_POISON" in os.environ and any("pneumo_fast.conversion.child" in argument for argument in sys.orig_argv):
    _install(json.loads(os.environ["PNEUMO_FAST_POISON"]))
