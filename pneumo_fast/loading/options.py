"""Options of the loader and of ``show``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pneumo_fast.errors import ConfigError
from pneumo_fast.vocabulary import EngineName, OrderName, Split, Strength

if TYPE_CHECKING:
    from pneumo_fast.loading.augment import Augmentation
    from pneumo_fast.loading.samplers import Part


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadConfig:
    """Which batches, and how they get to the device."""

    batch_size: int
    """Images in a batch of all processes together; the last batch may be smaller, or larger by one."""
    order: OrderName = "sequential"
    """Storage order. Or, for training, never a batch of one image: ``shuffle``, every image once, afresh each epoch;
    ``weighted``, drawn with replacement so that every value of ``balance`` is as likely as any other; ``windowed``,
    every image once, shuffled within ``window`` shards."""
    seed: int = 0
    """Chooses the order."""
    parts: tuple[Part, ...] = ()
    """Which share of the images a shuffled epoch uses (see :func:`pneumo_fast.loading.samplers.parts_by_share`)."""
    balance: str = "label"
    """Column of the index that ``weighted`` balances."""
    window: int = 8
    """Shards that ``windowed`` shuffles together, at least 1."""
    augmentation: Augmentation | None = None
    """How images are changed, for training; None leaves them as they are."""
    engine: EngineName = "auto"
    """``auto`` is ``resident`` where ``resident_share`` allows it, else ``dali`` on a GPU and ``fused`` on a CPU."""
    resident_share: float = 0.0
    """Share of the device's memory, in [0, 1], up to which ``auto`` keeps the split there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowConfig:
    """Which images to show, and how changed."""

    dataset: Path = Path("dataset")
    """The dataset folder."""
    out: Path = Path("contact.png")
    """PNG file to write; one that is there is replaced."""
    split: Split = "train"
    """Which images."""
    count: int = 12
    """Images to show, 1 to 100; all of them where the split has fewer."""
    augment: Strength = "light"
    """How far they are changed."""
    flip: bool = False
    """Whether half of them are mirrored as well."""
    seed: int = 0
    """Chooses the images and their changes, which are those of a training run with this seed."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises
        ------
        ConfigError
            If one cannot work.
        """
        for name, values in (("split", get_args(Split)), ("augment", get_args(Strength))):
            if (value := getattr(self, name)) not in values:
                raise ConfigError(f"{name} {value!r} is unknown: use one of {', '.join(values)}")
        if not 1 <= self.count <= 100:
            raise ConfigError(f"count {self.count}: 1 to 100 images expected")
        if self.out.suffix.lower() != ".png":
            raise ConfigError(f"out {self.out}: the name of a PNG file expected, for instance contact.png")
        if not -(2**63) <= self.seed < 2**64:
            raise ConfigError(f"seed {self.seed}: a whole number of 64 bits expected")
