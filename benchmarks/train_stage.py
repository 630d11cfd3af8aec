"""Training: the step fed by this project's loader and by the reference's, against the step on one fixed batch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn

from benchmarks.load_stage import reference_loader
from benchmarks.measure import Contender, Stage, race, ratio
from pneumo_fast.loader import Loader
from pneumo_fast.model import build_model
from pneumo_fast.shards import Dataset
from pneumo_fast.train import Learner, train_step

CEILING, OURS, REFERENCE = "ceiling: one fixed batch", "step fed by pneumo-fast", "step fed by DataLoader, 2 workers"

Batch = tuple[torch.Tensor, torch.Tensor]


def train_stage(dataset: Dataset, folder: Dataset, *, batch_size: int, steps: int, runs: int) -> Stage:
    """Race the same training step on three sources of batches."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    learner = _learner(device)
    fixed = torch.randn(batch_size, 1, dataset.size, dataset.size, device=device)
    labels = (torch.rand(batch_size, device=device) < 0.25).float()
    waits: list[float] = []
    reference = reference_loader(folder, batch_size=batch_size, workers=2)
    with Loader(dataset, "train", batch_size=batch_size, device=device, shuffle=True) as loader:
        contenders: dict[str, Contender] = {
            CEILING: _timed(learner, lambda: itertools.repeat((fixed, labels)), steps),
            OURS: _timed(learner, lambda: _epochs(loader), steps, after=lambda s: waits.append(loader.wait_s / s)),
            REFERENCE: _timed(learner, lambda: itertools.chain.from_iterable(itertools.repeat(reference)), steps),
        }
        results = race(contenders, runs)
    waits = sorted(waits[1:])
    results = [replace(r, notes={"waiting": waits[len(waits) // 2]}) if r.name == OURS else r for r in results]
    ratios = {f"{name} / ceiling": ratio(results, name, CEILING) for name in (OURS, REFERENCE)}
    conditions = {"model": "resnet18", "size": f"{dataset.size} x {dataset.size}", "batch": batch_size, "steps": steps}
    return Stage(name="train", conditions=conditions | {"device": device.type}, results=results, ratios=ratios)


def _learner(device: torch.device) -> Learner:
    torch.manual_seed(0)
    model = build_model().to(device).train()
    model = model.to(memory_format=torch.channels_last)
    return Learner(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-4),
        scaler=torch.amp.GradScaler(device.type, enabled=device.type == "cuda"),
        loss=nn.BCEWithLogitsLoss(),
        device=device,
        amp_dtype=torch.float16 if device.type == "cuda" else None,
    )


def _epochs(loader: Loader) -> Iterator[Batch]:
    """Batches without end; the loader's clock is that of the last epoch begun, so runs must fit into one."""
    for epoch in itertools.count():
        yield from loader.epoch(epoch)


def _timed(
    learner: Learner,
    source: Callable[[], Iterator[Batch]],
    steps: int,
    after: Callable[[float], None] = lambda _seconds: None,
) -> Contender:
    """Images per second of ``steps`` steps, the first batch of the source included."""

    def run() -> float:
        batches = source()
        count, begin = 0, time.perf_counter()
        for images, labels in itertools.islice(batches, steps):
            on_device = images.to(learner.device), labels.to(learner.device, torch.float32)
            train_step(learner, *on_device)
            count += len(labels)
        if learner.device.type == "cuda":
            torch.cuda.synchronize(learner.device)
        seconds = time.perf_counter() - begin
        after(seconds)
        return count / seconds

    return run
