"""Whether loading stays as fast as the dataset grows: the same loader over more and more images."""

from __future__ import annotations

import pickle
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from benchmarks.inputs import Stored, mean_normalized, store_repeated
from benchmarks.measure import Contender, Stage, race
from benchmarks.processes import Entry, Process, devices
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.vocabulary import EngineName

SIZES = (2_000, 4_000, 8_000, 16_000, 26_684)
"""Images; the last is the number of the complete RSNA set."""


def scale_stage(
    dataset: Path, folder: Path, *, sizes: tuple[int, ...], batch_size: int, runs: int, least_s: float
) -> Stage:
    """Race one loader over the first so many of the same images, each in a process of its own.

    The dataset's training images are stored over and over again until there are as many as the largest size asks for.
    """
    stored = store_repeated(dataset, folder / "float16", max(sizes))
    device = devices()[-1]
    engine: EngineName = "fused" if device.type == "cpu" else "dali"
    with ExitStack() as stack:
        processes: dict[str, Process] = {}
        for size in sorted(sizes):
            entry = Entry(name=f"pneumo-fast, {engine}, {size:,} images", contender="pneumo-fast")
            setting = {"engine": engine, "dtype": "float16"}
            process = Process(_first(stored, folder, size), entry, device, batch_size, setting)
            processes[entry.name] = stack.enter_context(closing(process))
        turns: dict[str, Contender] = {
            name: (lambda process=process: process.turn(least_s=least_s))  # type: ignore[misc]
            for name, process in processes.items()
        }
        results = race(turns, runs)
        for result, process in zip(results, processes.values(), strict=True):
            result.details.update(process.about)
    rates = [result.median for result in results]
    about = {"images": "replicated", "batch": batch_size, "page cache": "warm", "malloc": "tuned"}
    return Stage(
        name="scale",
        conditions=about | {"size": f"{stored.size} x {stored.size}", "device": device.type},
        results=results,
        ratios={"slowest / fastest size": min(rates) / max(rates), "largest / smallest size": rates[-1] / rates[0]},
        notes=[f"{result.name}: {result.details['peak_pss'] / 1e6:,.0f} MB of memory" for result in results],
    )


def _first(stored: Dataset, folder: Path, size: int) -> Path:
    """Describe the first images alone, for a process; the path of the description."""
    part = replace(stored, index=stored.index.head(size))
    described = Stored(shards={"float16": part}, folder=part, mean_normalized=mean_normalized(part), about={})
    path = folder / f"stored-{size}.pickle"
    path.write_bytes(pickle.dumps(described))
    return path
