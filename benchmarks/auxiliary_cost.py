"""What auxiliary supervision costs: the rate of training with it, beside that without.

    python benchmarks/auxiliary_cost.py DATASET --out FILE.json

The same steps of ResNet-18, fed by the loader with augmentation, in turns; the dataset needs boxes and classes.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Contender, Result, Stage, Turn, as_json, race, report
from benchmarks.processes import devices
from pneumo_fast.loading.batches import Rank
from pneumo_fast.training import setup
from pneumo_fast.training.options import recipe
from pneumo_fast.vocabulary import AuxiliaryTask

ARMS: dict[str, tuple[AuxiliaryTask, ...]] = {
    "no teacher": (), "boxes": ("boxes",), "classes": ("classes",), "boxes and classes": ("boxes", "classes"),
}  # fmt: skip


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="in a turn")
    parser.add_argument("--runs", type=int, default=7, help="turns that count")
    parser.add_argument("--out", type=Path, help="file for the raw values (JSON)")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        contenders = {
            name: _contender(stack, arguments.dataset, teach, arguments.batch_size, arguments.steps)
            for name, teach in ARMS.items()
        }
        results = race(contenders, arguments.runs)
    conditions: dict[str, Any] = {
        "model": "resnet18", "size": setup.open_data(recipe("reference", datasets=(arguments.dataset,))).dataset.size,
        "batch": arguments.batch_size, "steps": arguments.steps, "augmentation": "strong", "device": str(devices()[-1]),
    }  # fmt: skip
    plain, *others = results
    ratios = {f"{other.name} / no teacher": other.median / plain.median for other in others}
    ratios |= {f"{other.name} / no teacher, by processor time": _work(plain) / _work(other) for other in others}
    stages = [Stage(name="teachers", conditions=conditions, results=results, ratios=ratios)]
    print(report(stages))
    if arguments.out:
        arguments.out.write_text(as_json(stages) + "\n")


def _work(result: Result) -> float:
    """Median processor time of a turn, in seconds, on which other work on the machine tells less."""
    return statistics.median(turn.cpu_s or 0.0 for turn in result.turns)


def _contender(
    stack: ExitStack, dataset: Path, teach: tuple[AuxiliaryTask, ...], batch_size: int, steps: int
) -> Contender:
    """Training steps as ``train`` takes them."""
    config, device = recipe("recommended", datasets=(dataset,), teach=teach), devices()[-1]
    data = setup.open_data(config)
    loader = stack.enter_context(setup.training_loader(config, data, device, Rank(), batch_size))
    learner = setup.make_learner(
        config, device, Rank(), size=data.dataset.size, batches=len(loader), pos_weight=1.0, amp_dtype=None,
        classes=len(data.classes),
    )  # fmt: skip

    def batches() -> Generator[tuple[Any, ...], None, None]:
        for epoch in itertools.count():
            for batch, (images, labels) in enumerate(loader.epoch(epoch)):
                yield images, labels, len(labels), loader.targets(epoch, batch)

    endless = batches()
    stack.callback(endless.close)

    def turn() -> Turn:
        images = 0
        begin, worked = time.perf_counter(), time.process_time()
        for batch in itertools.islice(endless, steps):
            learner.step(*batch)
            images += batch[2]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        cpu_s = time.process_time() - worked
        return Turn(images=images, seconds=time.perf_counter() - begin, cpu_s=cpu_s)

    return turn


if __name__ == "__main__":
    main()
