"""How a file becomes an image that a model was trained on, and what there was among those images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.format import Manifest
from pneumo_fast.radiograph.selection import Selection
from pneumo_fast.records import Fault, build
from pneumo_fast.vocabulary import (
    MAX_PIXELS,
    WANTED_BODY_PARTS,
    WANTED_MODALITIES,
    WANTED_VIEWS,
    BodyPart,
    Decode,
    Dtype,
    Modality,
    View,
    Window,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """The options of ``convert`` that decide what an image looks like, and which files are taken."""

    dtype: Dtype
    decode: Decode
    window: Window
    max_pixels: int = MAX_PIXELS
    modalities: tuple[Modality, ...] = WANTED_MODALITIES
    views: tuple[View, ...] = WANTED_VIEWS
    body_parts: tuple[BodyPart, ...] = WANTED_BODY_PARTS

    @property
    def selection(self) -> Selection:
        """The files that are taken."""
        return Selection(modalities=self.modalities, views=self.views, body_parts=self.body_parts)


def preprocessing_of(manifest: Manifest) -> Preprocessing | None:
    """How the files of a dataset became images; None where they did not do so in one known way."""
    options = manifest.arguments.get("options")
    known = {**(options if isinstance(options, dict) else {}), **manifest.preprocessing, "dtype": manifest.dtype}
    try:
        return build(known, Preprocessing)
    except Fault:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInput:
    """What a model takes, and what it knows from training."""

    preprocessing: Preprocessing
    views: tuple[str, ...]
    """Of the images of the train split; ``""`` where one stated none."""
    ages: tuple[int, int] | None
    """The youngest and the oldest age among them, in years; None where no age is known."""
    aspects: tuple[float, float]
    """The smallest and the largest height of a source, divided by its width."""

    @classmethod
    def of(cls, dataset: Dataset) -> ModelInput | None:
        """What a model learns from a dataset; None where files did not become images in one known way."""
        rows = dataset.rows("train")
        ages = pd.to_numeric(rows["age"], errors="coerce").dropna()
        aspects: pd.Series[float] = rows["height"] / np.maximum(rows["width"], 1)
        if (preprocessing := preprocessing_of(dataset.manifest)) is None:
            return None
        return cls(
            preprocessing=preprocessing,
            views=tuple(sorted(rows["view"].unique())),
            ages=(int(ages.min()), int(ages.max())) if len(ages) else None,
            aspects=(float(aspects.min()), float(aspects.max())),
        )
