"""Options of ``evaluate``, and those that ``explain`` shares with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pneumo_fast.configuration import Device, Option, check
from pneumo_fast.errors import ConfigError
from pneumo_fast.vocabulary import Split

DatasetFolder = Annotated[Path | None, Option("Dataset folder.", default="the run's own")]
Resamples = Annotated[int, Option("Resamples of the bootstrap.", least=100)]
BatchSize = Annotated[
    int, Option("Images in a batch.", least=1, refusal="batch size {value} is too small: use at least {least}")
]
NO_PROBABILITY = "threshold {value} is not a probability: use a number from 0 to 1"
Thresholds = Annotated[
    tuple[float, ...],
    Option(
        "Probability that makes an image positive; may be repeated.",
        name="threshold", least=0, most=1, refusal=NO_PROBABILITY,
    ),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """What to judge, on what."""

    # fmt: off
    run: Annotated[Path, Option("Run folder.", "Its best checkpoint is evaluated.", positional=True)] = Path("run")
    dataset: DatasetFolder = None
    split: Annotated[Split, Option("Split to evaluate on.")] = "val"
    thresholds: Thresholds = (0.5, 0.25)
    target_sensitivity: Annotated[float, Option(
        "Also choose a threshold for this sensitivity.", above=0, most=1
    )] = 0.9
    target_specificity: Annotated[float, Option(
        "Also choose a threshold for this specificity.", above=0, most=1
    )] = 0.9
    cost_ratio: Annotated[float | None, Option(
        "False positives that one false negative costs.",
        "Chooses the threshold of least cost.",
        above=0, below=math.inf, default="no such threshold",
    )] = None
    prevalence: Annotated[float | None, Option(
        "Also give predictive values at this prevalence.", above=0, below=1, default="none"
    )] = None
    resamples: Resamples = 2000
    seed: Annotated[int, Option(
        "Seed of the bootstrap and of the division into halves.",
        "Halves of the validation split's patients: thresholds are chosen on one and evaluated on the other.",
    )] = 0
    device: Device = "auto"
    batch_size: BatchSize = 64
    # fmt: on

    def __post_init__(self) -> None:
        """Check every option, and which go together; ConfigError names the first that cannot work."""
        check(self)
        if not self.thresholds:
            raise ConfigError("no threshold is given: use at least one, for instance 0.5")
        for threshold in self.thresholds:
            if self.thresholds.count(threshold) > 1:
                raise ConfigError(f"threshold {threshold} is given more than once: give each one once")
