"""Options of ``phantom``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pneumo_fast.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomConfig:
    """How many synthetic radiographs to make, and where."""

    out: Path
    """Folder for the images and their tables."""
    count: int = 1500
    """Images, 1 to 1,000,000."""
    size_px: int = 256
    """Height and width of the images, 32 to 4096 pixels."""
    positive_fraction: float = 0.225
    """Share of the images with opacities, in [0, 1]; RSNA's is 0.225."""
    images_per_patient: int = 4
    """A patient has 1 to this many images, 1 to 999."""
    seed: int = 0
    """Chooses everything; the same seed gives the same bytes."""

    def __post_init__(self) -> None:
        """Check every field."""
        _require_range("count", self.count, 1, 1_000_000)
        _require_range("size_px", self.size_px, 32, 4096)
        _require_range("positive_fraction", self.positive_fraction, 0, 1)
        _require_range("images_per_patient", self.images_per_patient, 1, 999)
        _require_range("seed", self.seed, 0, 2**63 - 1)


def _require_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}, but has to be from {low} to {high}")
