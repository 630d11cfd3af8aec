"""Training: the same step fed by this project's loader and by the reference's, and on one fixed batch."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import Batch, Epochs
from benchmarks.inputs import Stored
from benchmarks.load_stage import settle
from benchmarks.loaders import data_loader, pneumo_fast
from benchmarks.measure import Contender, Result, Stage, Turn, race, ratio
from benchmarks.processes import devices
from pneumo_fast.errors import ConfigError
from pneumo_fast.run.model import build_model, memory_format
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.vocabulary import EngineName

CEILING = "ceiling: one fixed batch"
UNTIMED_STEPS = 2  # at the start of each turn, until the loaders have caught up
SHORT, SHORT_BATCH, SHORT_S, SHORT_STEPS = "step of 1 ms", 32, 0.001, 1000
MATRIX, PRODUCTS = 2048, 10


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
    gpu = device.type == "cuda"
    amp_dtype = torch.float16 if gpu else None
    learner = make_learner(device, amp_dtype=amp_dtype, memory=memory_format(device, stored.folder.size, amp_dtype))
    with ExitStack() as stack:
        sources = contenders(stored, device, batch_size)
        for epochs in sources.values():
            stack.enter_context(closing(epochs))
        results = race({name: _steps(learner, epochs, steps) for name, epochs in sources.items()}, runs)
    ratios = {f"{name} / ceiling": ratio(results, name, CEILING) for name in sources if name != CEILING}
    short_batch = min(SHORT_BATCH, images)
    short = _short_steps(stored, device, short_batch, runs)
    return Stage(
        name="train",
        conditions=stored.about
        | {"model": "resnet18", "batch": batch_size, "steps": steps}
        | {"batch of the short step": short_batch}
        | _precision(learner),
        results=[*results, *short],
        ratios=ratios | {f"{SHORT}, fed / alone": ratio(short, f"{SHORT}, fed", f"{SHORT}, alone")},
        notes=[_use_of_the_device(learner, results[0].median, batch_size, stored.folder.size, runs)],
    )


def _short_steps(stored: Stored, device: torch.device, batch_size: int, runs: int) -> list[Result]:
    """A step that takes a millisecond and no processor, alone and fed: what a much faster device would see."""
    engine: EngineName = "fused" if device.type == "cpu" else "dali"
    with closing(pneumo_fast(stored, device, batch_size, engine=engine)) as epochs:
        batches = itertools.chain.from_iterable(epochs)

        def alone() -> Turn:
            begin = time.perf_counter()
            for _ in range(SHORT_STEPS):
                _wait_until(time.perf_counter() + SHORT_S)
            return Turn(images=SHORT_STEPS * batch_size, seconds=time.perf_counter() - begin)

        def fed() -> Turn:
            count, waited_s, begin = 0, 0.0, time.perf_counter()
            for _ in range(SHORT_STEPS):
                asked = time.perf_counter()
                _, labels = next(batches)
                begun = time.perf_counter()
                waited_s += begun - asked
                count += len(labels)
                _wait_until(begun + SHORT_S)
            return Turn(images=count, seconds=time.perf_counter() - begin, waited_s=waited_s)

        return race({f"{SHORT}, alone": alone, f"{SHORT}, fed": fed}, runs)


def _wait_until(moment: float) -> None:
    """Sleep, but for the last bit, which sleeping would overshoot."""
    time.sleep(max(0.0, moment - time.perf_counter() - 1e-4))
    while time.perf_counter() < moment:
        pass


def _use_of_the_device(learner: Learner, rate: float, batch_size: int, size: int, runs: int) -> str:
    """Achieved floating-point operations per second as a share of the rate of a large matrix product (MFU)."""
    images = torch.randn(batch_size, 1, size, size, device=learner.device)
    with FlopCounterMode(display=False) as counter:
        learner.logits(images).sum().backward()  # type: ignore[no-untyped-call]
    learner.optimizer.zero_grad(set_to_none=True)
    achieved = rate * counter.get_total_flops() / batch_size
    peak = _matrix_product_rate(learner.device, learner.amp_dtype or torch.float32, runs)
    return (
        f"ceiling: {achieved / 1e9:,.0f} GFLOP/s, {achieved / peak:.1%} of the {peak / 1e9:,.0f} GFLOP/s of a matrix "
        f"product of {MATRIX} x {MATRIX} (MFU)"
    )


def _matrix_product_rate(device: torch.device, dtype: torch.dtype, runs: int) -> float:
    a, b = (torch.randn(MATRIX, MATRIX, device=device).to(dtype) for _ in range(2))
    rates = []
    for _ in range(runs + 1):
        settle(device)
        begin = time.perf_counter()
        for _ in range(PRODUCTS):
            torch.mm(a, b)
        settle(device)
        rates.append(PRODUCTS * 2 * MATRIX**3 / (time.perf_counter() - begin))
    return statistics.median(rates[1:])


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


def make_learner(device: torch.device, *, amp_dtype: torch.dtype | None, memory: torch.memory_format) -> Learner:
    """What the trainer makes with its defaults."""
    torch.manual_seed(0)
    model = build_model().to(device).to(memory_format=memory).train()
    return Learner(
        config=TrainConfig(),
        model=model,
        network=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-4, fused=True),
        device=device,
        pos_weight=1.0,
        total_steps=1,
        amp_dtype=amp_dtype,
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
        learner.step(images, labels)
        count += len(labels)
        asked = time.perf_counter()
    return count, waited_s
