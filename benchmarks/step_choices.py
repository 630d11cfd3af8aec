"""Which choices make the training step of a CPU fastest: data type, memory format, products for convolutions, threads.

    python benchmarks/step_choices.py --out FILE.json

The same ResNet-18 step on one fixed batch under every combination, in turns. ``train`` takes what won: see
``CHANNELS_LAST_FROM`` in ``pneumo_fast/run/model.py`` and ``docs/experiments.md``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

import torch

from pneumo_fast.resources import usable_cores

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Contender, Stage, Turn, as_json, race, report
from benchmarks.train_stage import make_learner
from pneumo_fast.run.model import with_small_map_products

FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "bfloat16 products": torch.bfloat16}


def main() -> None:
    """Measure each size, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 224], help="pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2, help="in a turn")
    parser.add_argument("--threads", type=int, nargs="+", help="1 and all cores by default")
    parser.add_argument("--runs", type=int, default=5, help="turns that count")
    parser.add_argument("--out", type=Path, help="file for the raw values (JSON)")
    arguments = parser.parse_args()
    threads = arguments.threads or sorted({1, usable_cores()})
    counts = arguments.batch_size, arguments.steps, arguments.runs
    stages = [_measure(size, *counts, threads) for size in arguments.sizes]
    print(report(stages))
    if arguments.out:
        arguments.out.write_text(as_json(stages) + "\n")


def _measure(size: int, batch_size: int, steps: int, runs: int, threads: list[int]) -> Stage:
    contenders = {
        f"{dtype}, {memory}, {number} thread{'s' * (number > 1)}": _contender(
            size, batch_size, steps, dtype, FORMATS[memory], number
        )
        for dtype, memory, number in itertools.product(DTYPES, FORMATS, threads)
    }
    results = race(contenders, runs)
    best = max(results, key=lambda result: result.median)
    return Stage(
        name="step",
        conditions={"model": "resnet18", "size": f"{size} x {size}", "batch": batch_size, "steps": steps},
        results=results,
        ratios={f"{result.name} / best": result.median / best.median for result in results},
    )


def _contender(
    size: int, batch_size: int, steps: int, dtype: str, memory: torch.memory_format, threads: int
) -> Contender:
    learner = make_learner(torch.device("cpu"), amp_dtype=DTYPES[dtype], memory=memory)
    if dtype.endswith("products"):
        with_small_map_products(learner.model)
    images = torch.randn(batch_size, 1, size, size, generator=torch.Generator().manual_seed(0))
    labels = (torch.arange(batch_size) % 4 == 0).float()

    def turn() -> Turn:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        begin = time.perf_counter()
        for _ in range(steps):
            learner.step(images, labels)
        seconds = time.perf_counter() - begin
        torch.set_num_threads(before)
        return Turn(images=steps * batch_size, seconds=seconds)

    return turn


if __name__ == "__main__":
    main()
