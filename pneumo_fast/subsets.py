"""Other splits of a dataset than those it was converted with: folds, and fewer images for a quick try."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pneumo_fast.errors import DatasetError
from pneumo_fast.shards import Dataset
from pneumo_fast.splits import divide


def select_fold(dataset: Dataset, folds: int, fold: int, seed: int) -> Dataset:
    """Divide training and validation images anew: one of ``folds`` parts is for validation, the others for training.

    Each part keeps the share of positives, and no patient stands in two. Mean and standard deviation stay those of the
    dataset, as do the images of the test split.

    Parameters
    ----------
    fold : int
        From 1 to ``folds``.

    Raises
    ------
    DatasetError
        If there are fewer patients (or images, where no patients are known) than folds.
    """
    used = dataset.index["split"].isin(["train", "val"])
    rows = dataset.index[used]
    units = np.unique(np.where(rows["group"] == "", "i" + rows["image_id"], "g" + rows["group"]))
    if len(units) < folds:
        raise DatasetError(f"{folds} folds of {len(units)} patients in dataset {dataset.path}: use fewer --folds")
    names = [str(number) for number in range(1, folds + 1)]
    parts = divide(rows, dict.fromkeys(names, 1 / folds), seed, "folds")
    index = dataset.index.copy()
    index.loc[used, "split"] = np.where(parts == str(fold), "val", "train")
    return replace(dataset, index=index)


def limit_images(dataset: Dataset, count: int) -> Dataset:
    """Keep the first ``count`` images of each split, which stand in random order."""
    kept = dataset.index.groupby("split", sort=False).cumcount() < count
    return replace(dataset, index=dataset.index[kept].reset_index(drop=True))
