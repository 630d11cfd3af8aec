"""Which images a run uses: of several datasets as one, of a fold or all folds, of each split the first ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.format import Manifest
from pneumo_fast.dataset.leaks import leaks_of_joint
from pneumo_fast.dataset.splits import divide, label_counts, patient_units
from pneumo_fast.errors import DatasetError
from pneumo_fast.files import AnyPath, joint_checksum


def open_datasets(paths: Sequence[AnyPath]) -> Dataset:
    """Open one dataset, or several as one; see :func:`join_datasets`.

    Raises
    ------
    DatasetError
        If none is given, one is missing, damaged or given twice, or they differ in image size or stored data type.
    """
    if not paths:
        raise DatasetError("no dataset is given: name at least one")
    datasets = [Dataset.open(path) for path in paths]
    known: dict[str, Path] = {}
    for dataset in datasets:
        if other := known.get(dataset.identity):
            raise DatasetError(f"dataset {dataset.path} is the same as {other}: name each dataset once")
        known[dataset.identity] = dataset.path
    return join_datasets(datasets)


def join_datasets(datasets: list[Dataset]) -> Dataset:
    """Several datasets as one; one alone as it is.

    Splits are joined, train to train and so on, each dataset's images in the order given. Mean and standard
    deviation are those of all train images together. Patients and images that stand on both sides of the joint split
    are warned of; patients where the datasets were made with one hash key, else it is said that nobody can know.

    Raises
    ------
    DatasetError
        If they differ in image size or stored data type.
    """
    first = datasets[0]
    if len(datasets) == 1:
        return first
    if any(dataset.manifest.source for dataset in datasets):
        raise DatasetError("datasets of layout source cannot be joined: convert them with another --layout")
    for other in datasets[1:]:
        if (other.size, other.dtype) != (first.size, first.dtype):
            raise DatasetError(
                f"dataset {other.path} has {other.dtype} images of {other.size} pixels, {first.path} {first.dtype} of "
                f"{first.size}: convert them alike"
            )
    # Shards by their full path, which holds in a folder above all datasets.
    indices = [each.index.assign(shard=f"{each.path.absolute()}/" + each.index["shard"]) for each in datasets]
    index = pd.concat(indices, ignore_index=True)
    return Dataset(
        path=Path("/"),
        manifest=_joint_manifest(datasets, index),
        index=index,
        boxes=pd.concat(map(_boxes_by_shard, datasets, indices), ignore_index=True),
        identity=joint_checksum(dataset.identity for dataset in datasets),
        key_ids=frozenset().union(*(dataset.key_ids for dataset in datasets)),
    )


def _boxes_by_shard(dataset: Dataset, index: pd.DataFrame) -> pd.DataFrame:
    """Boxes with the shard of their image, since two datasets may call different images alike."""
    return dataset.boxes.merge(index[["image_id", "shard"]].drop_duplicates(), on="image_id")


def _joint_manifest(datasets: list[Dataset], index: pd.DataFrame) -> Manifest:
    """The first manifest, with ids, counts, leaks, shards and statistics of all, and nothing of what was converted."""
    manifests = [dataset.manifest for dataset in datasets]
    known = index["group"] != ""
    split = {
        **_in_common([manifest.split for manifest in manifests]),
        "groups": index.loc[known, "group"].nunique(),
        "ungrouped_images": int((~known).sum()),
        "leaks": leaks_of_joint(datasets, index),
    }
    pixels = [dataset.train_pixels for dataset in datasets]
    share = [count / sum(pixels) for count in pixels]
    mean = math.fsum(s * d.mean for s, d in zip(share, datasets, strict=True))
    square = math.fsum(s * (d.std**2 + d.mean**2) for s, d in zip(share, datasets, strict=True))
    return replace(
        manifests[0],
        ids="kept" if all(manifest.ids == "kept" for manifest in manifests) else "pseudonyms",
        mean=mean,
        std=math.sqrt(square - mean**2),
        preprocessing=_joint_preprocessing(manifests),
        split=split,
        counts=label_counts(index),
        input={},
        duplicates={},
        rejects={},
        shards=tuple(
            replace(shard, name=f"{dataset.path.absolute()}/{shard.name}")
            for dataset in datasets
            for shard in dataset.manifest.shards
        ),
    )


def _in_common(facts: list[dict[str, Any]]) -> dict[str, Any]:
    """What all of them say alike."""
    return {name: value for name, value in facts[0].items() if all(other.get(name) == value for other in facts)}


def _joint_preprocessing(manifests: list[Manifest]) -> dict[str, Any]:
    """That of all datasets; nothing where they differ."""
    first = manifests[0].preprocessing
    return first if all(manifest.preprocessing == first for manifest in manifests) else {}


def select_fold(dataset: Dataset, folds: int, fold: int, seed: int) -> Dataset:
    """Divide training and validation images anew: one of ``folds`` parts is for validation, the others for training.

    Each part keeps the share of positives, and no patient stands in two. Mean and standard deviation stay those of the
    dataset, as do the images of the test split.

    Parameters
    ----------
    folds : int
        At least 2.
    fold : int
        From 1 to ``folds``.

    Raises
    ------
    DatasetError
        If there are fewer patients (or images, where no patients are known) than folds, or the fold gets none.
    """
    used = dataset.index["split"].isin(["train", "val"])
    rows = dataset.index[used]
    units = len(np.unique(patient_units(rows)))
    if units < folds:
        raise DatasetError(f"{folds} folds of {units} patients in dataset {dataset.path}: use fewer --folds")
    names = [str(number) for number in range(1, folds + 1)]
    parts = divide(rows, dict.fromkeys(names, 1 / folds), seed, "folds")
    if not (parts == str(fold)).any():
        raise DatasetError(f"fold {fold} of {folds} gets no image of dataset {dataset.path}: use fewer --folds")
    index = dataset.index.copy()
    index.loc[used, "split"] = np.where(parts == str(fold), "val", "train")
    return replace(dataset, index=index)


def pool_folds(dataset: Dataset) -> Dataset:
    """The images of all folds as one split, ``val``; those of the test split stay there."""
    return replace(dataset, index=dataset.index.assign(split=dataset.index["split"].replace("train", "val")))


def limit_images(dataset: Dataset, count: int, sizes: Sequence[int] = ()) -> Dataset:
    """Keep at most ``count`` images of each split: the first ones, which stand in random order within a dataset.

    Parameters
    ----------
    sizes : sequence of int, optional
        Images of each of the joined datasets, where it is a joint one: of each the first are kept, in proportion to
        what it has in the split.
    """
    index = dataset.index
    source = np.repeat(np.arange(len(sizes)), sizes) if sizes else np.zeros(len(index), dtype=np.int64)
    alike = index.groupby(["split", source], sort=False)["split"]
    share = (alike.cumcount() + 0.5) / alike.transform("size")  # of its dataset's images up to here
    kept = share.groupby(index["split"]).rank(method="first") <= count
    return replace(dataset, index=index[kept].reset_index(drop=True))
