"""Loading: normalized float32 batches and labels from stored images, this project against everyone else.

Each contender's turn is a process of its own (:mod:`benchmarks.serve`), all under the same settings of the memory
allocator: twenty of them alive at once would need more than 24 GB. The setting of each is the fastest of a short sweep.
"""

from __future__ import annotations

import pickle
import shutil
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.inputs import Stored
from benchmarks.limits import bus_limits, kernel_limit, memory_limits
from benchmarks.measure import Contender, Result, Stage, Turn, race, ratio
from benchmarks.peers import PEERS
from benchmarks.processes import AbsentError, Entry, Process, devices, entries

OURS = "pneumo-fast, fused, float16"
STREAMED, RESIDENT = "pneumo-fast, dali, float16, cuda", "pneumo-fast, resident, float16, cuda"
SWEEP_S = 0.5
SHUFFLED_EPOCHS = 5
CHI_SQUARE_5 = 3.84  # exceeded by chance in 5 % of cases, one degree of freedom
STEPS_S = (0.002, 0.02)  # a step shorter than a batch takes to load, and a longer one


@dataclass(frozen=True, kw_only=True, slots=True)
class Racer:
    """A contender with its best setting."""

    pickled: Path
    entry: Entry
    device: torch.device
    batch_size: int
    setting: dict[str, Any]
    about: dict[str, Any]
    """What is known of it, and of its latest process."""

    def turn(self, **arguments: Any) -> Turn:
        """One measured run, in a process that lives as long."""
        with self.process() as process:
            return process.turn(**arguments)

    @contextmanager
    def process(self) -> Iterator[Process]:
        """Its process."""
        process = Process(self.pickled, self.entry, self.device, self.batch_size, self.setting)
        try:
            self.about.update(process.about)
            yield process
        finally:
            process.close()


def load_stage(
    stored: Stored,
    numbered: Stored,
    *,
    batch_size: int,
    runs: int,
    least_s: float,
    only: tuple[str, ...] = (),
    on: str | None = None,
) -> Stage:
    """Race the loaders; each turn is as many epochs over all training images as take ``least_s`` seconds.

    With ``only``, those whose name contains one of these texts; with ``on``, for this device alone.
    """
    results: list[Result] = []
    notes: list[str] = []
    pixels = stored.folder.size**2
    limits = memory_limits(pixels, runs) | bus_limits()
    limits["our kernel from memory, images/s"] = kernel_limit(pixels, batch_size, runs)
    for device in devices():
        if on not in {None, device.type}:
            continue
        wanted = [entry for entry in entries(device) if not only or any(text in entry.name for text in only)]
        racers = _racers(stored, wanted, device, batch_size, notes)
        tail = "" if device.type == "cpu" else f", {device.type}"
        turns: dict[str, Contender] = {
            racer.entry.name + tail: (lambda racer=racer: racer.turn(least_s=least_s))  # type: ignore[misc]
            for racer in racers
        }
        raced = race(turns, runs, warm_up=False)  # a turn begins with an epoch off the clock
        for result, racer in zip(raced, racers, strict=True):
            entry = racer.entry
            result.details.update(racer.about, on_disk=entry.on_disk, bytes=_bytes_on_disk(stored, entry))
            result.details["cpu_us"] = 1e6 * statistics.median((t.cpu_s or 0.0) / t.images for t in result.turns)
            result.details.update(_cold(stored, entry, device, batch_size, racer.setting))
            result.details.update(_shuffle_quality(numbered, entry, device, batch_size, racer.setting))
            if entry.name == OURS:
                notes += _fixed_steps(racer, runs)
        results += raced
    notes = [*(f"{name}: {value:,.1f}" for name, value in limits.items()), *notes]
    return Stage(
        name="load",
        conditions=stored.about | {"batch": batch_size, "page cache": "warm", "malloc": "tuned"},
        results=results,
        ratios=_ratios(results, limits) | gpu_ratios(results, limits, 2 * pixels),
        notes=[*_columns(results), *notes],
    )


def settle(device: torch.device) -> None:
    """Wait for the GPU to have done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _racers(
    stored: Stored, wanted: list[Entry], device: torch.device, batch_size: int, notes: list[str]
) -> list[Racer]:
    """Every contender that can take part, with its best setting; the others are noted with the reason."""
    found = []
    for entry in wanted:
        try:
            found.append(_best_setting(stored, entry, device, batch_size))
        except AbsentError as error:
            notes.append(f"{entry.name} does not take part: {error}")
    return found


def _best_setting(stored: Stored, entry: Entry, device: torch.device, batch_size: int) -> Racer:
    """The contender with the fastest of its settings."""
    pickled = prepare(stored, entry)
    tried: list[tuple[float, Racer]] = []
    reason = ""
    for setting in entry.settings:
        about: dict[str, Any] = {"setting": setting}
        racer = Racer(pickled=pickled, entry=entry, device=device, batch_size=batch_size, setting=setting, about=about)
        try:
            tried.append((racer.turn(least_s=SWEEP_S).rate, racer))
        except AbsentError as error:
            reason = str(error)
    if not tried:
        raise AbsentError(reason)
    best = max(tried, key=lambda pair: pair[0])[1]
    best.about["tried"] = [(rate, racer.setting) for rate, racer in tried]
    if entry.contender in PEERS:
        best.about["version"] = PEERS[entry.contender].version
    return best


def prepare(stored: Stored, entry: Entry) -> Path:
    """Write what the contender needs: the pickled description, and a peer's own format."""
    folder = stored.folder.path.parent
    pickled = folder / "stored.pickle"
    if not pickled.exists():
        pickled.write_bytes(pickle.dumps(stored))
    if (peer := PEERS.get(entry.contender)) is not None:
        if reason := peer.absent():
            raise AbsentError(reason)
        target = folder / f"peer-{entry.contender}"
        if not target.exists():
            target.mkdir()
            try:
                with redirect_stdout(sys.stderr):  # what a peer has to say is none of the table's
                    peer.prepare(stored, target)
            except Exception as error:  # a peer may fail in any way; the others go on
                shutil.rmtree(target)
                raise AbsentError(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}") from error
    return pickled


def _bytes_on_disk(stored: Stored, entry: Entry) -> int:
    path = stored.folder.path.parent / entry.data
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _cold(
    stored: Stored, entry: Entry, device: torch.device, batch_size: int, setting: dict[str, Any]
) -> dict[str, float]:
    """Images per second of a first epoch, opening included, after all files were evicted from the page cache."""
    cold = {"cold": str(stored.folder.path.parent)}
    process = Process(prepare(stored, entry), entry, device, batch_size, setting | cold)
    process.close()
    return {"cold": process.about["cold_rate"]}


def _shuffle_quality(
    numbered: Stored, entry: Entry, device: torch.device, batch_size: int, setting: dict[str, Any]
) -> dict[str, float]:
    """Rank correlation of storage and delivery order; share of batches whose balance a chi-square test rejects.

    Medians and means over epochs; a true shuffle gives about 0, and 5 % at the level of the test.
    """
    process = Process(prepare(numbered, entry), entry, device, max(2, batch_size // 4), setting)
    epochs: list[list[list[int]]] = process.call("rows", epochs=SHUFFLED_EPOCHS)
    process.close()
    labels = numbered.folder.index["label"].to_numpy()
    positive = labels.mean()
    orders = [np.concatenate(batches) for batches in epochs]
    rejected = [
        (labels[rows].sum() - len(rows) * positive) ** 2 / (len(rows) * positive * (1 - positive)) > CHI_SQUARE_5
        for batches in epochs
        for rows in batches
    ]
    correlations = [abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) for order in orders]
    return {
        "every row once": float(all(sorted(order.tolist()) == list(range(len(labels))) for order in orders)),
        "rank correlation": float(np.median(correlations)),
        "unbalanced batches": float(np.mean(rejected)),
    }


def _fixed_steps(racer: Racer, runs: int) -> list[str]:
    """How long a step of a fixed length takes, beside the slower of step and loading; medians of alternating runs.

    The step's length is what the clock says of it: a sleep lasts some 0.1 ms longer than asked for.
    """
    lines = []
    with racer.process() as process:
        for step_s in STEPS_S:
            pairs = [
                (process.call("run", least_s=0.5), process.call("run", least_s=0.5, step_s=step_s)) for _ in range(runs)
            ]
            loading = statistics.median(alone["seconds"] / alone["batches"] for alone, _ in pairs)
            step = statistics.median(fed["stepped_s"] / fed["batches"] for _, fed in pairs)
            took = statistics.median(fed["seconds"] / fed["batches"] for _, fed in pairs)
            lines.append(
                f"fused, float16, with a step of {1000 * step:.2f} ms: {1000 * took:.2f} ms a batch, "
                f"{took / max(step, loading):.3f} of the slower of step and loading ({1000 * loading:.2f} ms)"
            )
    return lines


def _columns(results: list[Result]) -> list[str]:
    """The other columns, one line a contender."""
    head = f"{'':30}{'cold':>7}{'CPU us':>7}{'MB':>6}{'1st s':>6}{'disk':>6}{'|r|':>7}{'unbal.':>8}"
    lines = [head]
    for result in results:
        d = result.details
        shuffled = f"{d['rank correlation']:>7.3f}{d['unbalanced batches']:>8.1%}"
        lines.append(
            f"{result.name[:29]:30}{d['cold']:>7,.0f}{d['cpu_us']:>7.0f}{d['peak_pss'] / 1e6:>6.0f}"
            f"{d['first_batch_s']:>6.1f}{d['bytes'] / 1e6:>6.0f}{shuffled}"
        )
    return lines


def _ratios(results: list[Result], limits: dict[str, float]) -> dict[str, float]:
    """What is asked of the loader."""
    by_name = {result.name: result for result in results}
    if OURS not in by_name:
        return {}
    others = [
        name
        for name, result in by_name.items()
        if result.details["on_disk"] == "float16" and not name.startswith("pneumo-fast") and "cuda" not in name
    ]
    ratios = {}
    if others:
        fastest = max(others, key=lambda name: by_name[name].median)
        ratios[f"fused / {fastest}, the fastest other with float16"] = ratio(results, OURS, fastest)
    for name in ("float32 in RAM", "reference: DatasetFolder"):
        if name in by_name:
            ratios[f"fused / {name}"] = ratio(results, OURS, name)
    for name in ("images/s at the speed of a copy", "our kernel from memory, images/s"):
        ratios[f"fused / {name}"] = by_name[OURS].median / limits[name]
    return ratios


def gpu_ratios(results: list[Result], limits: dict[str, float], image_bytes: int) -> dict[str, float]:
    """What is asked of the loader on a GPU: stored bytes streamed over those of a plain copy there, and resident."""
    by_name = {result.name: result for result in results}
    if not {STREAMED, RESIDENT} <= by_name.keys():
        return {}
    streamed = by_name[STREAMED].median * image_bytes / 1e9
    return {
        "dali, cuda / pinned host to device": streamed / limits["pinned host to device, GB/s"],
        "resident, cuda / dali, cuda": ratio(results, RESIDENT, STREAMED),
    }
