"""Start-up: how long ``train`` and ``evaluate`` take from the start of their process to the first batch, by part.

Each turn is a process of its own, which this module is too (``python -m benchmarks.start_stage train DATASET RUN``).
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from benchmarks.measure import Result, Stage, Turn

ROOT: Final = Path(__file__).resolve().parents[1]
COMMANDS: Final = ("train", "evaluate")
PARTS: Final = ("imports", "opening", "first batch")
BATCH: Final = 64


def measure(dataset: Path, runs: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each part of each command, run by run, after one run that trains and warms up."""
    with tempfile.TemporaryDirectory(prefix="pneumo-fast-bench-") as temporary:
        run = Path(temporary) / "run"
        _train(dataset, run)
        for command in COMMANDS:
            _turn(command, dataset, run)
        turns = [{command: _turn(command, dataset, run) for command in COMMANDS} for _ in range(runs)]
    return {
        command: {part: [turn[command][place] for turn in turns] for place, part in enumerate(PARTS)}
        for command in COMMANDS
    }


def start_stage(dataset: Path, *, runs: int) -> Stage:
    """Each command's parts; a rate is one over the seconds, which the ratios tell."""
    found = measure(dataset, runs)
    results = [
        Result(name=f"{command}, {part}", turns=[Turn(images=1, seconds=one) for one in seconds])
        for command, parts in found.items()
        for part, seconds in parts.items()
    ]
    medians = {f"{r.name}: seconds": statistics.median(turn.seconds for turn in r.turns) for r in results}
    return Stage(name="start", conditions={"from": "the start of a process"}, results=results, ratios=medians)


def _turn(command: str, dataset: Path, run: Path) -> list[float]:
    """Seconds of the parts in a process of its own."""
    begin = time.perf_counter()  # CLOCK_MONOTONIC, which all processes share
    arguments = [sys.executable, "-m", "benchmarks.start_stage", command, str(dataset), str(run)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
    marks: list[float] = json.loads(done.stdout.splitlines()[-1])
    return [late - early for early, late in itertools.pairwise([begin, *marks])]


def _train(dataset: Path, run: Path) -> None:
    from pneumo_fast.training.options import TrainConfig  # noqa: PLC0415  # the child times its imports
    from pneumo_fast.training.train import train  # noqa: PLC0415

    train(TrainConfig(datasets=(dataset,), out=run, epochs=1, limit_images=BATCH, device="cpu"))


class _MeasuredError(Exception):
    """All is known that was to be measured."""


def _start_training(dataset: Path, run: Path) -> list[float]:
    from pneumo_fast.training.options import TrainConfig  # noqa: PLC0415
    from pneumo_fast.training.prepare import opened, prepare  # noqa: PLC0415

    marks = [time.perf_counter()]
    config = TrainConfig(datasets=(dataset,), out=run.with_name("other"), overwrite=True, device="cpu")
    with suppress(_MeasuredError), opened(config) as start, prepare(config, start, None, None, None) as session:
        marks.append(time.perf_counter())
        next(session.batches())
        marks.append(time.perf_counter())
        raise _MeasuredError  # before anything is drawn
    return marks


def _start_evaluation(dataset: Path, run: Path) -> list[float]:
    import torch  # noqa: PLC0415

    from pneumo_fast.evaluation import evaluate  # noqa: F401, PLC0415  # all that the command loads
    from pneumo_fast.evaluation.inference import open_run  # noqa: PLC0415
    from pneumo_fast.loading.loader import Loader  # noqa: PLC0415
    from pneumo_fast.loading.options import LoadConfig  # noqa: PLC0415

    marks = [time.perf_counter()]
    judged = open_run(run, dataset, "cpu")
    marks.append(time.perf_counter())
    with Loader(judged.dataset, "val", LoadConfig(batch_size=BATCH), device=torch.device("cpu")) as loader:
        next(loader.epoch(0))
        return [*marks, time.perf_counter()]


if __name__ == "__main__":
    start = {"train": _start_training, "evaluate": _start_evaluation}[sys.argv[1]]
    print(json.dumps(start(Path(sys.argv[2]), Path(sys.argv[3]))))
