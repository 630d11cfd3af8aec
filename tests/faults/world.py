"""A handful of phantoms, converted, trained on, evaluated, explained and reported, and commands run upon them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from pneumo_fast.cli import app
from pneumo_fast.phantoms.make import make_phantoms
from pneumo_fast.phantoms.options import PhantomConfig

MODEL: Final = "shufflenet_v2_x0_5"
"""The smallest of torchvision."""
LIMIT_S: Final = 60
ROOM: Final = 3 << 30
"""Bytes of address space that a command may take beyond what the process has."""
RESULTS: Final = ("best.pt", "last.pt", "history.jsonl", "eval/*/*", "explain/*", "report.html", "model_card.md")
FOREIGN: Final = (
    "run/notes.txt",
    "run/eval/dataset-val/mine.txt",
    "run/explain/mine.png",
    "dataset/mine.npy",
    "mine.txt",
    "theirs/config.json",
    "theirs/manifest.json",
    "theirs/best.pt",
    "theirs/train-00000.npy",
)
"""Files that somebody else has put there."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str
    raised: str
    """A traceback of what was no message for people, else empty."""


class HungError(BaseException):
    """A command took too long."""


@dataclass(frozen=True, slots=True)
class World:
    """A folder with ``images``, ``labels.csv``, ``dataset`` and ``run``."""

    folder: Path

    def copy(self, folder: Path) -> World:
        """The same in another folder, to be spoiled."""
        shutil.copytree(self.folder, folder)
        return World(folder)

    def run(self, *arguments: str, disturbed: AbstractContextManager[None] | None = None) -> Ended:
        """Run a command of pneumo-fast in this world's folder, while something disturbs it."""
        out, err, raised, code = io.StringIO(), io.StringIO(), "", 0
        argv, sys.argv = sys.argv, ["pneumo-fast", *arguments]
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with (
            contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _bounded(),
            disturbed or contextlib.nullcontext(),
        ):  # fmt: skip
            try:
                app.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            except (Exception, HungError):  # noqa: BLE001  # what must not happen
                raised = traceback.format_exc()
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return Ended(code, out.getvalue(), err.getvalue(), raised)

    def contents(self, *patterns: str) -> dict[str, str]:
        """Checksums of regular files, by their place."""
        paths = {path for pattern in patterns for path in self.folder.glob(pattern) if _is_plain(path)}
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size < ROOM


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Neither hang nor take all memory."""

    def stop(_number: int, _frame: object) -> NoReturn:
        raise HungError

    before, soft = signal.signal(signal.SIGALRM, stop), resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, soft[1]))
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, soft)
        signal.signal(signal.SIGALRM, before)


TRAIN: Final = ("train", "dataset", "--out", "run", "--model", MODEL, "--batch-size", "8", "--device", "cpu")


def make_world(folder: Path) -> World:
    """Make it by the commands that people use."""
    phantoms = make_phantoms(PhantomConfig(out=folder / "phantoms", count=60, size_px=64))
    phantoms.images.rename(folder / "images")
    phantoms.labels.rename(folder / "labels.csv")
    shutil.rmtree(folder / "phantoms")
    world = World(folder)
    for arguments in (
        ("convert", "images", "labels.csv", "dataset", "--size", "32", "--shard-size", "16", "--workers", "1"),
        (*TRAIN, "--epochs", "1"),
        ("evaluate", "run", "--resamples", "100", "--device", "cpu"),
        ("explain", "run", "--count", "1", "--resamples", "100", "--device", "cpu"),
        ("report", "run"),
    ):
        ended = world.run(*arguments)
        assert ended.code == 0, ended
        assert not ended.raised, ended.raised
    (folder / "theirs").mkdir()
    for name in FOREIGN:
        (folder / name).write_text("somebody's")
    return world
