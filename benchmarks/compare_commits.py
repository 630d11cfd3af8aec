"""Rates of an earlier commit and of the working tree, taken in turns: what a change costs, or gains.

    .venv/bin/python benchmarks/compare_commits.py BASE [--runs 7] [--only train] [--out FILE.json]

Both convert, load and train the same synthetic radiographs and print their help, each through its own code, one after
the other in every run. The table shows medians, and the ratio of the working tree to BASE.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Stage, Turn, as_json, race, ratio, report

ROOT: Final = Path(__file__).resolve().parents[1]
IMAGES: Final = 1500
PHANTOMS: Final = ("../phantoms/stage_2_train_images", "../phantoms/stage_2_train_labels.csv")
SIZE_PX: Final = 64
STAGES: Final = ("convert", "load", "train", "help")
EPOCHS: Final = 200  # of the loader
WARM_UP_S: Final = 3.0  # the epochs of so many seconds are off the clock: kernels are loaded meanwhile
TRAINED: Final = 256  # images
LOAD: Final = """
import sys, time, torch
from pathlib import Path
try:
    from pneumo_fast import Dataset, LoadConfig, Loader
except ImportError:  # before the package had rooms
    from pneumo_fast.loader import LoadConfig, Loader
    from pneumo_fast.shards import Dataset
dataset = Dataset.open(Path(sys.argv[1]))
with Loader(dataset, "train", LoadConfig(batch_size=64, order="shuffle"), device=torch.device("cpu")) as loader:
    begin, first = time.perf_counter(), 0
    while time.perf_counter() < begin + float(sys.argv[3]):
        for images, labels in loader.epoch(first):
            pass
        first += 1
    begin = time.perf_counter()
    for epoch in range(first, first + int(sys.argv[2])):
        for images, labels in loader.epoch(epoch):
            pass
    print(len(dataset.rows("train")), time.perf_counter() - begin)
"""


class Tree:
    """A checkout whose code is measured, and the folder it writes to."""

    def __init__(self, code: Path, work: Path) -> None:
        self.code, self.work = code, work
        work.mkdir()

    def call(self, *arguments: str) -> str:
        """Run Python with this checkout's package; what it prints."""
        environment = os.environ | {"PYTHONPATH": str(self.code)}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.work, env=environment, check=True, capture_output=True, text=True
        ).stdout

    def command(self, *arguments: str) -> float:
        """Seconds that a command of pneumo-fast takes."""
        begin = time.perf_counter()
        self.call("-m", "pneumo_fast", *arguments)
        return time.perf_counter() - begin

    def convert(self) -> Turn:
        """A whole conversion."""
        given = (*PHANTOMS, "dataset", "--size", str(SIZE_PX), "--hash-key", "../key", "--overwrite")
        return Turn(images=IMAGES, seconds=self.command("convert", *given))

    def load(self) -> Turn:
        """Epochs of the fused engine."""
        images, seconds = self.call("-c", LOAD, "dataset", str(EPOCHS), str(WARM_UP_S)).split()
        return Turn(images=EPOCHS * int(images), seconds=float(seconds))

    def train(self) -> Turn:
        """The second epoch of training."""
        self.command("train", "dataset", "--epochs", "2", "--limit-images", str(TRAINED), "--overwrite")
        last = json.loads((self.work / "run" / "history.jsonl").read_text().splitlines()[-1])
        return Turn(images=TRAINED, seconds=last["train_seconds"])

    def help(self) -> Turn:
        """Showing the help, once."""
        return Turn(images=1, seconds=self.command("--help"))


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """The files of a commit, in a folder that goes at the end."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", str(folder), commit], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True, capture_output=True)


def compare(commit: str, base: Tree, new: Tree, stages: Sequence[str], runs: int) -> Stage:
    """Measure both in turns; loading and training read what a conversion wrote."""
    if "convert" not in stages:
        for tree in (base, new):
            tree.convert()
    contenders = {
        f"{name}, {side}": getattr(tree, name)
        for name in stages
        for side, tree in (("base", base), ("working tree", new))
    }
    results = race(contenders, runs)
    names = dict.fromkeys(name.split(",")[0] for name in contenders)
    ratios = {f"{name}: new / base": ratio(results, f"{name}, working tree", f"{name}, base") for name in names}
    conditions = {"base": commit, "images": IMAGES, "size": SIZE_PX, "trained on": TRAINED, "help": "times a second"}
    return Stage(name="commits", conditions=conditions, results=results, ratios=ratios)


def main() -> None:
    """Measure, and say how they compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="an earlier commit")
    parser.add_argument("--runs", type=int, default=7, help="that count")
    parser.add_argument("--only", choices=STAGES, nargs="+", default=STAGES, help="what to measure")
    parser.add_argument("--out", type=Path, help="file for the raw values (JSON)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pneumo-fast-commits-") as temporary:
        work = Path(temporary)
        (work / "key").write_text("5e" * 32 + "\n")
        (work / "key").chmod(0o600)
        with checkout(arguments.base, work / "checkout") as code:
            base, new = Tree(code, work / "base"), Tree(ROOT, work / "new")
            new.command("phantom", "../phantoms", "--count", str(IMAGES))
            stage = compare(arguments.base, base, new, arguments.only, arguments.runs)
    print(report([stage]))
    if arguments.out:
        arguments.out.write_text(as_json([stage]) + "\n")


if __name__ == "__main__":
    main()
