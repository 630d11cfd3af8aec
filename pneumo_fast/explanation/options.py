"""Options of ``explain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pneumo_fast.errors import ConfigError
from pneumo_fast.evaluation.options import check_common, check_threshold
from pneumo_fast.vocabulary import Split

Method = Literal["gradcam", "gradcam++", "hirescam"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainConfig:
    """Which images to draw, and by which method."""

    run: Path = Path("run")
    """The run folder; its best checkpoint is explained."""
    dataset: Path | None = None
    """The dataset folder; None takes the one the run was trained on."""
    split: Split = "val"
    """The images to explain."""
    method: Method = "gradcam"
    """``gradcam``, ``gradcam++`` or ``hirescam``."""
    layer: str | None = None
    """Name of the module whose output is weighted, as the model has it; None takes the last map of 4 x 4 or more."""
    ids: tuple[str, ...] = ()
    """Images to draw; none takes the most confident of each kind."""
    count: int = 8
    """Images to draw of each kind (true and false positives and negatives), 1 to 100."""
    threshold: float = 0.5
    """Probability in [0, 1] from which an image is called positive."""
    resamples: int = 2000
    """Resamples of the bootstrap, at least 100."""
    seed: int = 0
    """Chooses the resamples and the random weights."""
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
        check_threshold(self.threshold)
        if self.method not in get_args(Method):
            raise ConfigError(f"method {self.method!r} is unknown: use one of {', '.join(get_args(Method))}")
        if not 1 <= self.count <= 100:
            raise ConfigError(f"count {self.count}: 1 to 100 images of a kind expected")
