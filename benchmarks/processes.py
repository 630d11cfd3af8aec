"""Who takes part in the comparison of loaders, and each contender's process (:mod:`benchmarks.serve`)."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

import torch

from benchmarks.measure import Turn
from benchmarks.peers import PEERS

TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_ARENA_MAX": "1"}
"""For all contenders: glibc keeps what was freed, since fresh pages for each batch would cost more than the work."""
ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 300.0  # for any one answer of a contender: a peer's thread may die and leave it waiting


def devices() -> list[torch.device]:
    """The CPU, and a GPU where there is one."""
    return [torch.device("cpu"), *([torch.device("cuda", 0)] if torch.cuda.is_available() else [])]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One row of the table, before its setting is chosen."""

    name: str
    contender: str
    settings: tuple[dict[str, Any], ...] = field(default=({},))
    on_disk: str = ""
    """What its images are stored as."""
    data: str = ""
    """Folder or file of its images beside the stored ones; ``*`` for what begins so."""


def entries(device: torch.device) -> list[Entry]:
    """All who take part on a device."""
    engines = ("fused", "dali", "resident") if device.type == "cpu" else ("dali", "resident")
    ours = [
        Entry(
            name=f"pneumo-fast, {engine}, {dtype}",
            contender="pneumo-fast",
            settings=({"engine": engine, "dtype": dtype},),
            on_disk=dtype,
            data=dtype,
        )
        for dtype in ("float16", "uint8")
        for engine in engines
    ]
    workers = tuple({"workers": workers} for workers in (0, 1, 2))
    threads = tuple({"threads": threads} for threads in (1, 2, 4))
    peers = [
        Entry(name=name, contender=name, settings=peer.settings, on_disk="float16", data=f"peer-{name}")
        for name, peer in PEERS.items()
    ]
    return [
        *ours,
        Entry(name="reference: DatasetFolder", contender="DataLoader", settings=workers, data="folder"),
        Entry(name="memory map", contender="memory map", settings=workers, on_disk="float16", data="float16-whole.npy"),
        Entry(name="float32 in RAM", contender="float32 in RAM", settings=({"workers": 0},), data="float16-whole.npy"),
        Entry(name="DALI readers.numpy", contender="DALI readers.numpy", settings=threads, data="folder"),
        *peers,
    ]  # fmt: skip


class AbsentError(Exception):
    """A contender cannot take part; the text says why."""


class Process:
    """A contender's process."""

    def __init__(self, pickled: Path, entry: Entry, device: torch.device, batch_size: int, setting: Any) -> None:
        arguments = [str(pickled), entry.contender, str(device), str(batch_size), json.dumps(setting)]
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serve", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=os.environ | TUNED,
        )
        self._questions, self._answers = cast("TextIO", self._child.stdin), cast("TextIO", self._child.stdout)
        try:
            self.about = self._answer()
        except AbsentError:
            self.close()
            raise

    def call(self, name: str, **arguments: Any) -> Any:
        """Have one of :class:`benchmarks.serve.Child`'s methods called."""
        self._questions.write(json.dumps([name, arguments]) + "\n")
        self._questions.flush()
        return self._answer()

    def _answer(self) -> Any:
        if not select.select([self._answers], [], [], PATIENCE_S)[0]:
            self._child.kill()
            raise AbsentError(f"it gave no answer within {PATIENCE_S:.0f} s")
        line = self._answers.readline()
        answer = json.loads(line) if line else {"error": "it ended without a word"}
        if isinstance(answer, dict) and "error" in answer:
            raise AbsentError(answer["error"])
        return answer

    def turn(self, **arguments: Any) -> Turn:
        """One measured run."""
        answer = self.call("run", **arguments)
        return Turn(images=answer["images"], seconds=answer["seconds"], cpu_s=answer["cpu_s"])

    def close(self) -> None:
        """End it."""
        try:
            self._questions.close()
            self._child.wait(timeout=20)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._child.kill()
            self._child.wait()
        finally:
            self._answers.close()
