"""Options of evaluate, explain and report: one frozen dataclass each, as in :mod:`pneumo_fast.vocabulary`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pneumo_fast.errors import ConfigError
from pneumo_fast.vocabulary import Split


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """What to judge, on what."""

    run: Path = Path("run")
    """The run folder; its best checkpoint is judged."""
    dataset: Path | None = None
    """The dataset folder; None takes the one the run was trained on."""
    split: Split = "val"
    """The images to judge on."""
    thresholds: tuple[float, ...] = (0.5, 0.25)
    """Probabilities in [0, 1], each once, from which an image is called positive."""
    target_sensitivity: float = 0.9
    """A threshold is chosen that reaches it; above 0, at most 1."""
    target_specificity: float = 0.9
    """A threshold is chosen that reaches it; above 0, at most 1."""
    cost_ratio: float | None = None
    """How many false alarms a missed positive is worth, above 0, for a threshold of least cost; None chooses none."""
    prevalence: float | None = None
    """Share of positives, between 0 and 1, for which predictive values are given as well."""
    resamples: int = 2000
    """Resamples of the bootstrap, at least 100."""
    seed: int = 0
    """Chooses the resamples, and the halves of the validation split."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    batch_size: int = 64
    """Images in a batch, at least 1."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises
        ------
        ConfigError
            If one cannot work.
        """
        check_common(self.split, self.batch_size, self.resamples)
        if not self.thresholds:
            raise ConfigError("no threshold is given: use at least one, for instance 0.5")
        for threshold in self.thresholds:
            check_threshold(threshold)
            if self.thresholds.count(threshold) > 1:
                raise ConfigError(f"threshold {threshold} is given more than once: give each one once")
        for name in ("target_sensitivity", "target_specificity"):
            if not 0.0 < (value := getattr(self, name)) <= 1.0:
                raise ConfigError(f"{name.replace('_', '-')} {value}: a number above 0, at most 1, expected")
        if self.cost_ratio is not None and not 0.0 < self.cost_ratio < math.inf:
            raise ConfigError(f"cost-ratio {self.cost_ratio}: a number above 0 expected")
        if self.prevalence is not None and not 0.0 < self.prevalence < 1.0:
            raise ConfigError(f"prevalence {self.prevalence}: a number between 0 and 1 expected")


def check_common(split: str, batch_size: int, resamples: int) -> None:
    """Check what ``evaluate`` and ``explain`` have in common."""
    if split not in get_args(Split):
        raise ConfigError(f"split {split!r} is unknown: use one of {', '.join(get_args(Split))}")
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size} is too small: use at least 1")
    if resamples < 100:
        raise ConfigError(f"resamples {resamples}: at least 100 expected")


def check_threshold(threshold: float) -> None:
    """A threshold is a probability."""
    if not 0.0 <= threshold <= 1.0:
        raise ConfigError(f"threshold {threshold} is no probability: use a number from 0 to 1")
