"""Interruptions, drawn at random: memory runs out, or a signal comes, at some moment of a command."""

from __future__ import annotations

import itertools
import json
import os
import pkgutil
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

from tests.faults.attacks import CONVERT, EVALUATE, EXPLAIN, REPORT, RESUME, Command
from tests.faults.fault_tools import on_path
from tests.faults.world import Ended, World

WRITERS: Final = (EVALUATE, EXPLAIN, REPORT, RESUME, (*CONVERT, "--resume"))
STEPS: Final = 90
"""About how often each of them opens, renames or removes a file of the world."""
GREEDY: Final = (
    "os.fsync", "os.open", "os.mkdir", "os.replace", "pathlib.Path.open", "pathlib.Path.replace", "json.dumps",
    "json.loads", "hashlib.sha256", "torch.load", "torch.save", "torch.nn.Module.__call__", "torch.Tensor.backward",
    "torch.optim.Optimizer.zero_grad", "pandas.read_csv", "pandas.DataFrame.to_csv", "numpy.quantile",
    "numpy.lib.format.read_magic", "msgspec.convert",
)  # fmt: skip
"""Functions that may find no memory: those that the package looks up by these names when it calls them."""


@contextmanager
def no_memory_at(place: str, call: int) -> Iterator[None]:
    """Let one call of a function, counted from 1, raise MemoryError."""
    owner_name, name = place.rsplit(".", 1)
    owner = pkgutil.resolve_name(owner_name)
    real, calls = getattr(owner, name), itertools.count(1)

    def real_or_worse(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise MemoryError
        return real(*arguments, **options)

    with mock.patch.object(owner, name, real_or_worse):
        yield


def run_out_of_memory(world: World, rng: random.Random) -> tuple[Command, Ended]:
    command = rng.choice(WRITERS)
    return command, world.run(*command, disturbed=no_memory_at(rng.choice(GREEDY), int(2 ** rng.uniform(0, 6))))


def be_stopped(world: World, rng: random.Random) -> tuple[Command, Ended]:
    """SIGTERM or SIGKILL at one of the command's own steps in the file system, or a moment later."""
    command = rng.choice(WRITERS)
    stop = {
        "step": rng.randint(1, STEPS),
        "after_s": rng.choice((0.0, rng.uniform(0, 0.5))),
        "signal": rng.choice((signal.SIGTERM, signal.SIGKILL)),
    }
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pneumo_fast", *command],
        cwd=world.folder,
        env=os.environ | {"PYTHONPATH": on_path(), "PNEUMO_FAST_STOP": json.dumps(stop)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,  # a loaded machine takes half a minute to import all that is needed
    )
    raised = process.stderr if "Traceback" in process.stderr else ""
    return command, Ended(process.returncode, process.stdout, process.stderr, raised)


INTERRUPTIONS: Final[tuple[Callable[[World, random.Random], tuple[Command, Ended]], ...]] = (
    run_out_of_memory, be_stopped,
)  # fmt: skip
