"""Repeated, interleaved measurements, with what is needed to judge and repeat them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from PIL import features

from pneumo_fast.extras import installed_dali, version_of
from pneumo_fast.resources import usable_cores

PACKAGES = (
    "pneumo-fast", "torch", "torchvision", *installed_dali().modules, "numpy", "pydicom", "pillow", "python-gdcm",
    "pylibjpeg", "pylibjpeg-libjpeg",
)  # fmt: skip
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
WIDTH = 80  # columns of a terminal


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One measured run of one contender."""

    images: int
    seconds: float
    """Wall-clock time."""
    waited_s: float | None = None
    """Seconds of it in which the consumer waited for its next batch, where there is a consumer."""
    cpu_s: float | None = None
    """Processor time of all processes of the contender, where it was taken."""

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds


Contender = Callable[[], Turn]
"""Does its work once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One contender, run by run."""

    name: str
    turns: list[Turn]
    """One per run, the warm-up left out."""
    details: dict[str, Any] = field(default_factory=dict)
    """Whatever else is known of the contender: its version, its setting, its memory."""

    @property
    def rates(self) -> list[float]:
        """Images per second of each run."""
        return [turn.rate for turn in self.turns]

    @property
    def median(self) -> float:
        """Median rate."""
        return statistics.median(self.rates)

    @property
    def waiting(self) -> float | None:
        """Median share of the time spent waiting, in [0, 1]; None where nothing waits."""
        shares = [turn.waited_s / turn.seconds for turn in self.turns if turn.waited_s is not None]
        return statistics.median(shares) if shares else None

    def as_dict(self) -> dict[str, Any]:
        """The raw values and what the table shows of them."""
        summary = {"median": self.median, "lowest": min(self.rates), "highest": max(self.rates)}
        return asdict(self) | {"rates": self.rates, "images_per_s": summary, "waiting": self.waiting}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What was measured of one stage."""

    name: str
    conditions: dict[str, Any]
    """Sizes and counts, and where the images come from."""
    results: list[Result]
    ratios: dict[str, float]
    """Quotients of medians of this very run, and seconds where the name says so."""
    notes: list[str] = field(default_factory=list)
    """Lines below the table."""

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        results = [result.as_dict() for result in self.results]
        return {
            "name": self.name,
            "conditions": self.conditions,
            "results": results,
            "ratios": self.ratios,
            "notes": self.notes,
        }


def race(contenders: Mapping[str, Contender], runs: int, *, warm_up: bool = True) -> list[Result]:
    """Run all contenders in turns, so that a slow moment of the machine hits all alike.

    Every other round goes backwards: a machine that slows down after a busy stretch would else favour whoever comes
    first. A turn that does not count comes before them all, unless each turn warms up by itself.
    """
    for contender in contenders.values() if warm_up else ():
        contender()
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(runs):
        for name in reversed(names) if number % 2 else names:
            turns[name].append(contenders[name]())
    return [Result(name=name, turns=values) for name, values in turns.items()]


def without_start_up(whole: Result, alone: Result) -> Result | None:
    """The rate once running: run by run, what a run over one image took is taken off what the whole took.

    None where a run did not take at least twice as long as its start-up: the difference would be noise.
    """
    pairs = list(zip(whole.turns, alone.turns, strict=True))
    if any(turn.seconds < 2 * one.seconds for turn, one in pairs):
        return None
    turns = [Turn(images=turn.images - one.images, seconds=turn.seconds - one.seconds) for turn, one in pairs]
    return Result(name=f"{whole.name}, steady", turns=turns)


def ratio(results: Iterable[Result], upper: str, lower: str) -> float:
    """Median rate of one contender over that of another."""
    medians = {result.name: result.median for result in results}
    return medians[upper] / medians[lower]


def surroundings() -> dict[str, Any]:
    """Hardware, versions, threads and date."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": {"torch": torch.get_num_threads()} | {n: os.environ[n] for n in THREADS if n in os.environ},
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := version_of(name))},
        "libjpeg_turbo": features.version("libjpeg_turbo"),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def report(stages: list[Stage]) -> str:
    """A table for people, at most 80 columns wide."""
    return "\n".join(line for stage in stages for line in _stage_lines(stage))


def _stage_lines(stage: Stage) -> list[str]:
    conditions = ", ".join(f"{key} {value}" for key, value in stage.conditions.items())
    lines = ["", *textwrap.wrap(f"{stage.name}: {conditions}", WIDTH, subsequent_indent="  ")]
    waiting = any(result.waiting is not None for result in stage.results)
    lines.append(f"  {'images/s':40}{'median':>9}{'lowest':>9}{'highest':>9}{'waiting' if waiting else '':>9}".rstrip())
    for result in stage.results:
        rates = "".join(f"{rate:>9,.{rate < 100:d}f}" for rate in (result.median, min(result.rates), max(result.rates)))
        share = "" if result.waiting is None else f"{result.waiting:>9.1%}"
        lines.append(f"  {result.name:40}{rates}{share}")
    lines += [f"  {name:58}{value:>9.2f}" for name, value in stage.ratios.items()]
    return lines + [line for note in stage.notes for line in textwrap.wrap(note, WIDTH, initial_indent="  ")]


def as_json(stages: list[Stage]) -> str:
    """Everything on one line, for programs."""
    return json.dumps({"surroundings": surroundings(), "stages": [stage.as_dict() for stage in stages]})
