"""Folds and limits: every image judged once, no patient on both sides, the share of positives kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_dataset import make_dataset

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.selection import limit_images, select_fold
from pneumo_fast.errors import DatasetError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Sixty images of twenty patients, three each, and two images of nobody known; twelve more for a test."""
    labels = {"train": [0, 0, 1] * 16, "val": [0, 1] * 7, "test": [0, 1] * 6}
    dataset = make_dataset(tmp_path_factory.mktemp("d") / "d", labels=labels)
    groups = [f"g{number // 3}" if number < 60 else "" for number in range(62)]
    dataset.index.loc[dataset.index["split"] != "test", "group"] = groups
    return dataset


@pytest.mark.parametrize("folds", [2, 5])
def test_each_image_is_for_validation_once(dataset: Dataset, folds: int) -> None:
    judged: list[str] = []
    for fold in range(1, folds + 1):
        index = select_fold(dataset, folds, fold, seed=3).index
        assert (index["image_id"] == dataset.index["image_id"]).all()
        assert ((index["split"] == "test") == (dataset.index["split"] == "test")).all()
        known = index[(index["group"] != "") & (index["split"] != "test")]
        assert (known.groupby("group")["split"].nunique() == 1).all()
        mine = index[index["split"] == "val"]
        assert abs(len(mine) - 62 / folds) <= 3
        assert abs(mine["label"].sum() - 23 / folds) <= 2
        judged += mine["image_id"].tolist()
    assert sorted(judged) == sorted(dataset.index.loc[dataset.index["split"] != "test", "image_id"])


def test_the_seed_chooses_the_folds(dataset: Dataset) -> None:
    one, same, other = (select_fold(dataset, 5, 1, seed).index["split"] for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_more_folds_than_patients(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="23 folds of 22 patients in dataset"):
        select_fold(dataset, 23, 1, 0)


def test_the_first_images_of_each_split_are_kept(dataset: Dataset) -> None:
    limited = limit_images(dataset, 13)
    assert limited.index["split"].value_counts().to_dict() == {"train": 13, "val": 13, "test": 12}
    for split in ("train", "val", "test"):
        rows = dataset.rows(split)["image_id"].head(13)
        np.testing.assert_array_equal(limited.rows(split)["image_id"], rows)


def test_the_dataset_itself_stays_as_it_is(dataset: Dataset) -> None:
    before = dataset.index.copy()
    select_fold(dataset, 2, 1, 0)
    limit_images(dataset, 2)
    assert dataset.index.equals(before)
    assert dataset.path == Path(dataset.path)
