"""Options of ``phantom``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pneumo_fast.configuration import Option, check
from pneumo_fast.vocabulary import LARGEST_SIZE

OUT_OF_RANGE = "{field} is {value}, but has to be from {least} to {most}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomConfig:
    """How many synthetic radiographs to make, and where."""

    # fmt: off
    out: Annotated[Path, Option("Folder to write.", "For the images and their tables.", positional=True)]
    count: Annotated[int, Option("Images to make.", least=1, most=1_000_000, refusal=OUT_OF_RANGE)] = 1500
    size_px: Annotated[int, Option(
        "Height and width of the images, in pixels.", name="size", least=32, most=LARGEST_SIZE, refusal=OUT_OF_RANGE
    )] = 256
    positive_fraction: Annotated[float, Option(
        "Share of the images with opacities; RSNA's is 0.225.",
        least=0, most=1, refusal=OUT_OF_RANGE, on_command_line=False,
    )] = 0.225
    images_per_patient: Annotated[int, Option(
        "A patient has 1 to this many images.", least=1, most=999, refusal=OUT_OF_RANGE, on_command_line=False
    )] = 4
    seed: Annotated[int, Option(
        "Chooses everything.", "The same seed gives the same bytes.", least=0, most=2**63 - 1, refusal=OUT_OF_RANGE
    )] = 0
    # fmt: on

    def __post_init__(self) -> None:
        """Check every option."""
        check(self)
