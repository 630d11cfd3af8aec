"""Whether the working tree does what an earlier commit did, to the byte and the last bit.

    .venv/bin/python scripts/fingerprints.py [BASE] [--quick]

runs the command line of the commit BASE and that of the working tree side by side, each with one thread, on the same
images, and compares datasets, weights, histories, predictions, figures, heat maps and refusals. It exits with 0 if all
is equal, with 1 if something differs, and with 2 if a side crashed or nothing was compared.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fingerprint_files import NothingComparedError, Print, Prints, Value, compare, read_print, table
from fingerprint_steps import Step, steps, write_damaged, write_inputs

BASE: Final = "76b90f5"
"""The commit whose behaviour is the measure. Commits before version 3 of the dataset format have other checksums, and
those before evaluation chose its memory format on a CPU other last digits."""
ROOT: Final = Path(__file__).resolve().parents[1]
DATA: Final = ROOT.parent / "shared" / "data"
NOT_COMPARED: Final = {"previous.pt"}
"""A stopped run has it of another moment."""
NAMED_BY_FILE: Final = {"manifest.json", "best.pt"}
"""They hold versions or times: where a document quotes their checksums, their names are compared."""
UNREADABLE: Final = (OSError, ValueError, RuntimeError, pickle.UnpicklingError)
"""What reading a file raises that is not what its name says."""
THREADS: Final = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")
UNSET: Final = {"FORCE_COLOR", "PYTHONSAFEPATH", "PYTHONWARNINGS", "RANK", "WORLD_SIZE", "LOCAL_RANK"}
TIMEOUT_S: Final = 300.0
TERMINATED: Final = 128 + signal.SIGTERM


class SideError(Exception):
    """A side did what it may not do, whatever the other does."""


@dataclass(kw_only=True)
class Side:
    """One of the two that are compared."""

    name: str
    tree: Path
    """The checkout whose package is run."""
    work: Path
    """The folder it is run in."""
    real: Path | None
    """Folder of the real radiographs."""
    stop: threading.Event
    """Set by the side that gives up first."""
    known: dict[str, str] = field(default_factory=dict)
    """What is replaced in texts."""
    started: float = field(default_factory=time.monotonic)

    def run(self, todo: list[Step]) -> dict[str, Prints]:
        """Run all steps; gives what their files say."""
        self.work.mkdir()
        (self.work / "hash.key").write_text("5e" * 32 + "\n")
        (self.work / "hash.key").chmod(0o600)
        self.known[str(self.work)] = "WORK"
        try:
            self._check_package()
            return {step.name: self._fingerprint(step) for step in todo if not self.stop.is_set()}
        except BaseException:
            self.stop.set()
            raise

    def _fingerprint(self, step: Step) -> Prints:
        said = self._do(step)
        print(f"[{time.monotonic() - self.started:4.0f} s] {self.name}: {step.name}", file=sys.stderr)
        return said or self._read(step)

    def _do(self, step: Step) -> Prints | None:
        """Run a step; gives what it says where that does not lie in files."""
        if step.way == "written":
            write_inputs(self.work, self.real)
        elif step.way == "damaged":
            write_damaged(self.work)
        elif step.way == "refused":
            return {"the refusal": self._refusal(step)}
        elif step.way == "stopped":
            self._stop_and_resume(step)
        else:
            self._succeed(step, *step.arguments)
        return None

    def _read(self, step: Step) -> Prints:
        paths = [path for name in step.results for path in _files(self.work / name)]
        for path in paths:
            if path.name in NAMED_BY_FILE:
                checksum = hashlib.sha256(path.read_bytes()).hexdigest()
                self.known[checksum] = f"sha256-of:{path.relative_to(self.work)}"
        return {str(path.relative_to(self.work)): read_print(path, self.known) for path in paths}

    def _refusal(self, step: Step) -> Print:
        done = self._call(step, *step.arguments)
        lines = done.stderr.replace(str(self.work), "WORK").splitlines()
        message = next((line for line in lines if line.startswith("error")), lines[0] if lines else "")
        crashed = any(line.startswith("Traceback") for line in lines)
        if self.name == "base" and (crashed or not done.returncode):
            raise SideError(f"{step.name}: the base does not refuse it (exit code {done.returncode}) {done.stderr}")
        found = {"exit code": str(done.returncode), "traceback": str(crashed)}
        return {**{key: Value(text) for key, text in found.items()}, "message": Value(message, words=True)}

    def _stop_and_resume(self, step: Step) -> None:
        """End training by SIGTERM once it has saved its state, and let it go on."""
        saved = self.work / step.results[0] / "last.pt"
        with subprocess.Popen(
            self._command(step, *step.arguments), cwd=self.work, env=self._environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            until = time.monotonic() + TIMEOUT_S
            while process.poll() is None and not saved.exists() and time.monotonic() < until:
                time.sleep(0.02)
            process.terminate()
            said = process.communicate(timeout=TIMEOUT_S)[1]
        if process.returncode != TERMINATED:
            raise SideError(f"{self.name}, {step.name}: exit code {process.returncode}, {TERMINATED} expected: {said}")
        self._succeed(step, *step.arguments, "--resume")

    def _succeed(self, step: Step, *arguments: str) -> None:
        done = self._call(step, *arguments)
        if done.returncode:
            raise SideError(f"{self.name}, {step.name}: exit code {done.returncode}\n{done.stderr[-3000:]}")

    def _call(self, step: Step, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._python(*self._command(step, *arguments)[1:])

    def _command(self, step: Step, *arguments: str) -> list[str]:
        together = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
        return [sys.executable, "-m", *(together if step.way == "two processes" else ()), "pneumo_fast", *arguments]

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [sys.executable, *arguments], cwd=self.work, env=self._environment(),
                capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise SideError(f"{self.name}: not done after {TIMEOUT_S:.0f} s: {' '.join(arguments)}") from error

    def _environment(self) -> dict[str, str]:
        fixed = {
            "PYTHONPATH": str(self.tree), "PYTHONHASHSEED": "0", "XDG_CONFIG_HOME": str(self.work / "config"),
            "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb",
        }  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if name not in UNSET}
        return {**kept, **fixed, **{f"{library}_NUM_THREADS": "1" for library in THREADS}}

    def _check_package(self) -> None:
        """The package that ``python -m pneumo_fast`` finds has to be this tree's own."""
        found = Path(self._python("-c", "import pneumo_fast; print(pneumo_fast.__file__)").stdout.strip())
        if not found.is_relative_to(self.tree):
            raise SideError(f"{self.name}: the package found is {found}, one below {self.tree} expected")


def _files(path: Path) -> list[Path]:
    """A file, or all files in a folder of any depth."""
    if path.is_dir():
        return sorted(one for one in path.rglob("*") if one.is_file() and one.name not in NOT_COMPARED)
    return [path] if path.exists() else []


def _git(*arguments: str) -> None:
    git = shutil.which("git") or "git"
    done = subprocess.run([git, "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SideError(f"git {' '.join(arguments)}: {done.stderr.strip()}")


@contextmanager
def base_tree(commit: str, path: Path) -> Iterator[Path]:
    """A worktree of the commit, for as long as it is needed."""
    _git("worktree", "add", "--detach", str(path), commit)
    try:
        yield path
    finally:
        _git("worktree", "remove", "--force", str(path))


@contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """A new folder, removed at the end unless it was named."""
    if keep:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="fingerprints-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def run_both(todo: list[Step], work: Path, base: Path, real: Path | None) -> tuple[dict[str, Prints], ...]:
    """What each side's files say, by step."""
    stop = threading.Event()
    sides = [
        Side(name=name, tree=tree, work=work / name, real=real, stop=stop)
        for name, tree in (("base", base), ("new", ROOT))
    ]
    with ThreadPoolExecutor(len(sides)) as pool:
        return tuple(pool.map(lambda side: side.run(todo), sides))


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description="Compare the behaviour of the working tree with that of a commit.")
    parser.add_argument("base", nargs="?", default=BASE, help="the commit to compare with (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a third of the steps")
    parser.add_argument("--strict-words", action="store_true", help="differences in words count as well")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real radiographs")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder to work in, which stays")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Run and compare; gives the exit code."""
    options = options_of(arguments)
    real = options.data.resolve() if options.data.is_dir() else None
    if real is None:
        say("the real radiographs are not there: synthetic ones alone are compared")
    todo = steps(real, quick=options.quick)
    try:
        with work_folder(options.keep) as work, base_tree(options.base, work / "base-tree") as tree:
            base, new = run_both(todo, work, tree, real)
        rows = [compare(step.name, base[step.name], new[step.name]) for step in todo]
        for line in table(rows):
            say(line)
    except (SideError, NothingComparedError, *UNREADABLE) as error:
        print(f"no comparison: {error}", file=sys.stderr)
        return 2
    return int(any(row.different or (options.strict_words and row.words) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
