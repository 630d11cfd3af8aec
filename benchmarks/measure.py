"""Repeated, interleaved measurements, with what is needed to judge and repeat them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "nvidia-dali-cuda120", "numpy", "pydicom", "pillow", "python-gdcm", "pylibjpeg")

Contender = Callable[[], float]
"""Does its work once and gives images per second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Images per second of one contender, run by run."""

    name: str
    rates: list[float]
    """One per run, the warm-up left out."""
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median rate."""
        return statistics.median(self.rates)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What was measured of one stage."""

    name: str
    conditions: dict[str, Any]
    """Sizes and counts, and where the images come from."""
    results: list[Result]
    ratios: dict[str, float]
    """Quotients of medians of this very run."""


def race(contenders: Mapping[str, Contender], runs: int) -> list[Result]:
    """Run all contenders in turns, so that a slow moment of the machine hits all alike; the first turn warms up."""
    for contender in contenders.values():
        contender()
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, contender in contenders.items():
            rates[name].append(contender())
    return [Result(name=name, rates=values) for name, values in rates.items()]


def ratio(results: list[Result], upper: str, lower: str) -> float:
    """Median of one contender over that of another."""
    medians = {result.name: result.median for result in results}
    return medians[upper] / medians[lower]


def surroundings() -> dict[str, Any]:
    """Hardware, versions and date."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def report(stages: list[Stage]) -> str:
    """A table for people, 80 columns wide at most."""
    lines = []
    for stage in stages:
        lines.append(f"\n{stage.name}: " + ", ".join(f"{key} {value}" for key, value in stage.conditions.items()))
        lines.append(f"  {'':38}{'images/s':>10}{'lowest':>10}{'highest':>10}")
        for result in stage.results:
            figures = "".join(f"{value:>10,.0f}" for value in (result.median, min(result.rates), max(result.rates)))
            notes = "  " + ", ".join(f"{key} {value:.3g}" for key, value in result.notes.items())
            lines.append(f"  {result.name:38}{figures}{notes}".rstrip())
        lines += [f"  {name:58}{value:>10.2f}" for name, value in stage.ratios.items()]
    return "\n".join(lines)


def as_json(stages: list[Stage]) -> str:
    """Everything on one line, for programs."""
    return json.dumps({"surroundings": surroundings(), "stages": [asdict(stage) for stage in stages]})
