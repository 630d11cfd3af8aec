"""Starts conversions the way people do, and looks at what they leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pneumo_fast.phantoms.make import PhantomSet, make_phantoms
from pneumo_fast.phantoms.options import PhantomConfig

MARK: Final = "PNEUMO_FAST_FAULT_SITE"  # environment variable by which a site's processes are found
HOOK: Final = Path(__file__).parent / "hook"
WORKER: Final = "pneumo_fast.conversion.child"  # in the command line of every worker process
GONE_S: Final = 1.0  # how long after a kill a worker may still be there


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A folder with phantoms, and the conversions that are run on them."""

    folder: Path
    phantoms: PhantomSet
    arguments: tuple[str, ...] = ("--size", "64", "--shard-size", "4", "--workers", "2")
    environment: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    """What the command line is given to, if it is not run as it is."""

    def start(self, out: str, *more: str) -> subprocess.Popen[str]:
        """Begin to convert into a folder of the site, in a process group of its own."""
        inputs = [str(self.phantoms.images), str(self.phantoms.labels), str(self.folder / out)]
        own = {MARK: str(self.folder), "XDG_CONFIG_HOME": str(self.folder / "config"), "COLUMNS": "200"}
        return subprocess.Popen(
            [
                *self.wrapper,
                sys.executable,
                "-m",
                "pneumo_fast",
                "convert",
                *inputs,
                "--keep-ids",
                *self.arguments,
                *more,
            ],
            env=os.environ | own | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def convert(self, out: str, *more: str, expect: int = 0) -> str:
        """Convert to the end; give standard output and error."""
        process = self.start(out, *more)
        text = "".join(process.communicate(timeout=300))
        assert process.returncode == expect, text
        return text

    def processes(self, having: str = "") -> list[int]:
        """Living processes of this site whose command line holds a text."""
        mark = f"{MARK}={self.folder}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0") and having in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
            except (OSError, UnicodeDecodeError):  # it has just ended
                continue
        return found

    def workers(self) -> list[int]:
        """Living worker processes."""
        return self.processes(WORKER)

    def assert_clean(self, out: str) -> None:
        """No worker is left a second after its parent's end; nothing half-written stands among what was written."""
        deadline = time.monotonic() + GONE_S
        while self.workers() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not self.workers()
        assert not [path.name for path in (self.folder / out).rglob("*.partial")]

    def contents(self, out: str) -> dict[str, str]:
        """Every file and folder below a folder, hidden ones too, with the checksum of its bytes."""
        root = self.folder / out
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
            for path in root.rglob("*")
        }


def on_path() -> str:
    """PYTHONPATH with what makes processes faulty."""
    return os.pathsep.join(filter(None, (str(HOOK), *sys.path, os.environ.get("PYTHONPATH"))))


def poisonous(poison: dict[str, str], log: Path) -> dict[str, str]:
    """Environment in which reading the images named does what is named to the worker, and reads are logged."""
    return {"PYTHONPATH": on_path(), "PNEUMO_FAST_POISON": json.dumps({"poison": poison, "log": str(log)})}


def make_site(folder: Path, count: int) -> Site:
    """A site with ``count`` phantoms of 128 pixels."""
    return Site(folder=folder, phantoms=make_phantoms(PhantomConfig(out=folder / "phantoms", count=count, size_px=128)))


def kill(process: int) -> None:
    """``kill -9``, also of what has just ended."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_for(path: Path, pattern: str, timeout_s: float = 30.0) -> None:
    """Wait until a file below ``path`` matches a pattern."""
    deadline = time.monotonic() + timeout_s
    while not any(path.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in {path}"
        time.sleep(0.005)
