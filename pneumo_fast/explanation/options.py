"""Options of ``explain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pneumo_fast.configuration import Device, Option, check
from pneumo_fast.evaluation.options import NO_PROBABILITY, BatchSize, DatasetFolder, Resamples
from pneumo_fast.loading.options import seed_option
from pneumo_fast.vocabulary import Split

Method = Literal["gradcam", "gradcam++", "hirescam"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainConfig:
    """Which images to draw, and by which method."""

    # fmt: off
    run: Annotated[Path, Option("Run folder.", "Its best checkpoint is explained.", positional=True)] = Path("run")
    dataset: DatasetFolder = None
    split: Annotated[Split, Option("Which images.")] = "val"
    method: Annotated[Method, Option("Method of the map.")] = "gradcam"
    layer: Annotated[str | None, Option(
        "Layer whose output is mapped.",
        "Name of a module, as the model has it; by default the last one with a map of 4 x 4 or more.",
        default="the last with 4 x 4 cells or more",
    )] = None
    ids: Annotated[tuple[str, ...], Option(
        "Image to draw; may be repeated.",
        "An id of the label table or of the dataset.",
        name="id",
        default="the most confident of each kind"
    )] = ()
    hash_key: Annotated[Path | None, Option(
        "Key file, where --id gives ids of the label table.", default="in your configuration folder"
    )] = None
    count: Annotated[int, Option(
        "Images to draw of each kind.",
        "Kinds are true and false positives and negatives.",
        least=1, most=100, unit="images of a kind",
    )] = 8
    threshold: Annotated[float, Option(
        "Probability that makes an image positive.", least=0, most=1, refusal=NO_PROBABILITY
    )] = 0.5
    resamples: Resamples = 2000
    seed: Annotated[int, seed_option("Chooses resamples and random weights.")] = 0
    device: Device = "auto"
    batch_size: BatchSize = 64
    # fmt: on

    def __post_init__(self) -> None:
        """Check every option."""
        check(self)
