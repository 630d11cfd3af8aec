"""Several datasets as one, for training on more than one source."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pneumo_fast.errors import DatasetError
from pneumo_fast.shards import SPLITS, Dataset, Manifest

logger = logging.getLogger(__name__)


def open_datasets(paths: Sequence[Path]) -> Dataset:
    """Open one dataset, or several as one.

    Splits are joined, train to train and so on, each dataset's images in the order given. Mean and standard
    deviation are those of all train images together. Patients who stand on both sides of the joint split are
    reported, where the datasets were made with one hash key; else it is said that nobody can know.

    Raises
    ------
    DatasetError
        If one is missing or damaged, or they differ in image size or stored data type.
    """
    datasets = [Dataset.open(path) for path in paths]
    first = datasets[0]
    if len(datasets) == 1:
        return first
    for other in datasets[1:]:
        if (other.size, other.dtype) != (first.size, first.dtype):
            raise DatasetError(
                f"dataset {other.path} has {other.dtype} images of {other.size} pixels, {first.path} {first.dtype} of "
                f"{first.size}: convert them alike"
            )
    index = pd.concat([_absolute(dataset) for dataset in datasets], ignore_index=True)
    _report_shared(datasets, index)
    return Dataset(
        path=Path("/"),
        manifest=_joint_manifest(datasets, index),
        index=index,
        boxes=pd.concat([dataset.boxes for dataset in datasets], ignore_index=True),
        identity=hashlib.sha256(" ".join(dataset.identity for dataset in datasets).encode()).hexdigest(),
    )


def train_sizes(paths: Sequence[Path]) -> list[int]:
    """Training images of each dataset, in the order given."""
    return [len(Dataset.open(path).rows("train")) for path in paths]


def _absolute(dataset: Dataset) -> pd.DataFrame:
    """The index with shards by their full path, which holds in a folder above all datasets."""
    folder = str(dataset.path.absolute())
    return dataset.index.assign(shard=folder + "/" + dataset.index["shard"])


def _joint_manifest(datasets: list[Dataset], index: pd.DataFrame) -> Manifest:
    """The first manifest, with counts, shards and statistics of all."""
    pixels = [_train_pixels(dataset) for dataset in datasets]
    share = [count / sum(pixels) for count in pixels]
    mean = math.fsum(s * d.mean for s, d in zip(share, datasets, strict=True))
    square = math.fsum(s * (d.std**2 + d.mean**2) for s, d in zip(share, datasets, strict=True))
    return replace(
        datasets[0].manifest,
        mean=mean,
        std=math.sqrt(square - mean**2),
        counts={
            split: {str(label): int(((index["split"] == split) & (index["label"] == label)).sum()) for label in (0, 1)}
            for split in SPLITS
            if (index["split"] == split).any()
        },
        shards=tuple(
            replace(shard, name=f"{dataset.path.absolute()}/{shard.name}")
            for dataset in datasets
            for shard in dataset.manifest.shards
        ),
    )


def _train_pixels(dataset: Dataset) -> int:
    rows = dataset.rows("train")
    return len(rows) * dataset.size**2 - int(rows["padding_pixels"].sum())


def _report_shared(datasets: list[Dataset], index: pd.DataFrame) -> None:
    """Say which patients stand in different splits of different datasets."""
    if len({dataset.manifest.split.get("hash_key_id") for dataset in datasets}) > 1:
        logger.warning("the datasets were made with different hash keys: patients they share cannot be known")
        return
    splits = index[index["group"] != ""].groupby("group")["split"].nunique()
    if shared := int((splits > 1).sum()):
        logger.warning("%d patients stand in more than one split of the joint datasets: figures will flatter", shared)
