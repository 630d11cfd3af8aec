"""Training: the same step fed by this project's loader and by the reference's, and on one fixed batch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing

import torch
from torch import nn

from benchmarks.inputs import Stored
from benchmarks.load_stage import devices, settle
from benchmarks.loaders import Batch, Epochs, data_loader, pneumo_fast
from benchmarks.measure import Contender, Stage, Turn, race, ratio
from pneumo_fast.errors import ConfigError
from pneumo_fast.model import build_model
from pneumo_fast.options import EngineName
from pneumo_fast.train import Learner, train_step

CEILING = "ceiling: one fixed batch"
UNTIMED_STEPS = 2  # at the start of each turn, until the loaders have caught up


def train_stage(stored: Stored, *, batch_size: int, steps: int, runs: int) -> Stage:
    """Race the same training step on several sources of batches; a turn is ``steps`` steps.

    Raises
    ------
    ConfigError
        If there are fewer images than a batch takes.
    """
    if (images := len(stored.folder.index)) < batch_size:
        raise ConfigError(
            f"{images} training images for batches of {batch_size}: give more --images or smaller batches"
        )
    device = devices()[-1]
    learner = _learner(device)
    with ExitStack() as stack:
        sources = contenders(stored, device, batch_size)
        for epochs in sources.values():
            stack.enter_context(closing(epochs))
        results = race({name: _steps(learner, epochs, steps) for name, epochs in sources.items()}, runs)
    fed = [name for name in sources if name != CEILING]
    return Stage(
        name="train",
        conditions=stored.about | {"model": "resnet18", "batch": batch_size, "steps": steps} | _precision(learner),
        results=results,
        ratios={f"{name} / ceiling": ratio(results, name, CEILING) for name in fed},
    )


def contenders(stored: Stored, device: torch.device, batch_size: int) -> dict[str, Epochs]:
    """Everyone who feeds the step, by name."""
    engines: tuple[EngineName, ...] = ("fused", "dali") if device.type == "cpu" else ("dali", "resident")
    sources = {CEILING: _fixed_batch(stored.folder.size, device, batch_size)} | {
        f"step fed by pneumo-fast, {engine}": pneumo_fast(stored, device, batch_size, engine=engine)
        for engine in engines
    }
    for workers in (0, 2):
        epochs = data_loader(stored, device, batch_size, workers=workers, drop_last=True)
        sources[f"step fed by DataLoader, {workers} workers"] = epochs
    return sources


def _fixed_batch(size: int, device: torch.device, batch_size: int) -> Epochs:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 1, size, size, generator=generator).to(device)
    labels = (torch.rand(batch_size, generator=generator) < 0.25).float().to(device)
    while True:
        yield itertools.repeat((images, labels))


def _learner(device: torch.device) -> Learner:
    torch.manual_seed(0)
    gpu = device.type == "cuda"
    model = build_model().to(device).to(memory_format=torch.channels_last).train()
    return Learner(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-4),
        scaler=torch.amp.GradScaler(device.type, enabled=gpu),
        loss=nn.BCEWithLogitsLoss(),
        device=device,
        amp_dtype=torch.float16 if gpu else None,
    )


def _precision(learner: Learner) -> dict[str, str]:
    return {"device": learner.device.type, "precision": str(learner.amp_dtype or torch.float32).removeprefix("torch.")}


def _steps(learner: Learner, epochs: Epochs, steps: int) -> Contender:
    """A turn begins a new epoch; steps beyond its end go on with the next."""

    def turn() -> Turn:
        batches: Iterator[Batch] = itertools.chain.from_iterable(epochs)
        _take(learner, itertools.islice(batches, UNTIMED_STEPS))
        settle(learner.device)
        begin = time.perf_counter()
        images, waited_s = _take(learner, itertools.islice(batches, steps))
        settle(learner.device)
        return Turn(images=images, seconds=time.perf_counter() - begin, waited_s=waited_s)

    return turn


def _take(learner: Learner, batches: Iterable[Batch]) -> tuple[int, float]:
    """Train on each batch; gives the images, and the seconds until each next batch was there."""
    count, waited_s, asked = 0, 0.0, time.perf_counter()
    for images, labels in batches:
        waited_s += time.perf_counter() - asked
        train_step(learner, images, labels)
        count += len(labels)
        asked = time.perf_counter()
    return count, waited_s
