"""Options of the loader and of ``show``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pneumo_fast.configuration import Option, check
from pneumo_fast.errors import ConfigError
from pneumo_fast.vocabulary import EngineName, OrderName, Split, Strength

if TYPE_CHECKING:
    from pneumo_fast.loading.augment import Augmentation
    from pneumo_fast.loading.samplers import Part


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOptions:
    """Which batches, and how they get to the device: what can be said and checked without NumPy."""

    # fmt: off
    batch_size: Annotated[int, Option(
        "Images in a batch of all processes together; the last batch may be smaller, or larger by one."
    )]
    order: Annotated[OrderName, Option(
        "Storage order, ``sequential``, or one for training, which never has a batch of one image.",
        "``shuffle``, every image once, afresh each epoch; ``weighted``, drawn with replacement so that every value of "
        "``balance`` is as likely as any other; ``windowed``, every image once, shuffled within ``window`` shards.",
    )] = "sequential"
    seed: Annotated[int, Option("Chooses the order.")] = 0
    balance: Annotated[str, Option("Column of the index that ``weighted`` balances.")] = "label"
    window: Annotated[int, Option(
        "Shards that ``windowed`` shuffles together.", least=1, range="at least 1 shard"
    )] = 8
    targets: Annotated[bool, Option(
        "Whether boxes and classes can be asked for beside the batches: see :meth:`pneumo_fast.Loader.targets`."
    )] = False
    classes: Annotated[tuple[str, ...], Option("Names of the classes in the order of their numbers there.")] = ()
    engine: Annotated[EngineName, Option(
        "What delivers the batches.",
        "``auto`` is ``source`` for a dataset of that layout, else ``resident`` where ``resident_share`` allows it, "
        "else ``dali`` on a GPU, where it is installed, and ``fused`` otherwise.",
    )] = "auto"
    resident_share: Annotated[float, Option(
        "Share of the device's memory up to which ``auto`` keeps the split there.",
        least=0, most=1, range="a share from 0 to 1",
    )] = 0.0
    # fmt: on

    def __post_init__(self) -> None:
        """Check every option; ConfigError names the first that cannot work."""
        check(self, LoadOptions)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadConfig(LoadOptions):
    """Which batches, and how they get to the device."""

    parts: tuple[Part, ...] = ()
    """Which share of the images a shuffled epoch uses (see :func:`pneumo_fast.loading.samplers.parts_by_share`)."""
    augmentation: Augmentation | None = None
    """How images are changed, for training; None leaves them as they are."""


def seed_option(meaning: str) -> Option:
    """A seed as PyTorch takes it."""
    return Option(meaning, least=-(2**63), most=2**64 - 1, range="a whole number of 64 bits")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowConfig:
    """Which images to show, and how changed."""

    dataset: Annotated[Path, Option("Dataset folder.", positional=True)] = Path("dataset")
    out: Annotated[Path, Option("PNG file to write, or replace.", aliases=("-o",))] = Path("contact.png")
    split: Annotated[Split, Option("Which images.")] = "train"
    count: Annotated[
        int, Option("Images to show.", "All of them where the split has fewer.", least=1, most=100, unit="images")
    ] = 12
    augment: Annotated[Strength, Option("Strength of augmentation.")] = "light"
    flip: Annotated[bool, Option("Mirror half of them as well.")] = False
    seed: Annotated[int, seed_option("Chooses images and changes, as in training.")] = 0

    def __post_init__(self) -> None:
        """Check every option, and which go together; ConfigError names the first that cannot work."""
        check(self)
        if self.out.suffix.lower() != ".png":
            raise ConfigError(f"out {self.out}: the name of a PNG file expected, for instance contact.png")
