"""In what an image lies outside of those that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pneumo_fast.run.model_input import ModelInput
from pneumo_fast.vocabulary import WarningKind

BRIGHTNESS: Final = 1.0
"""Standard deviations of the training pixels by which an image's mean may differ from theirs."""
CONTRAST: Final = 0.25
"""Share of it that an image's own standard deviation must reach."""
UNKNOWN: Final = "unknown"


def find_warnings(
    row: Mapping[str, Any], pixels: int, trained: ModelInput, mean: float, std: float
) -> dict[WarningKind, str]:
    """Kinds of warnings about an image, each with the value found.

    Parameters
    ----------
    row : mapping
        Its row of a conversion's record, with the sums of its values and of their squares.
    pixels : int
        Number of pixels of the stored image.
    trained : ModelInput
        What was seen in training.
    mean, std : float
        Of the training pixels, in [0, 1].
    """
    return dict(_warnings(row, pixels, trained, mean, std))


def _warnings(
    row: Mapping[str, Any], pixels: int, trained: ModelInput, mean: float, std: float
) -> Iterator[tuple[WarningKind, str]]:
    if row["modality"] not in {"", "OT", *trained.preprocessing.modalities}:
        yield "modality", row["modality"]
    if row["view"] not in trained.views:
        yield "view", row["view"] or UNKNOWN
    if row["body_part"] not in {"", *trained.preprocessing.body_parts}:
        yield "body_part", row["body_part"]
    if row["age"] and trained.ages and not trained.ages[0] <= int(row["age"]) <= trained.ages[1]:
        yield "age", row["age"]
    aspect = row["height"] / max(row["width"], 1)
    if not trained.aspects[0] <= aspect <= trained.aspects[1]:
        yield "aspect", f"{aspect:.3f}"
    (total, square), inside = row["sums"], max(pixels - row["padding_pixels"], 1)
    level, spread = total / inside, math.sqrt(max(square / inside - (total / inside) ** 2, 0.0))
    if abs(level - mean) > BRIGHTNESS * std or spread < CONTRAST * std:
        yield "intensity", f"{level:.3f}+-{spread:.3f}"
    if row["burned_in"] == "YES":
        yield "burned_in", "YES"
