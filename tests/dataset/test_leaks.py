"""What other data share with training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pneumo_fast.dataset import leaks
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.leaks import (
    count_duplicates,
    describe_leaks,
    overlap_with_training,
    overlap_within,
    refuse_overlap,
)
from pneumo_fast.errors import ConvertError
from tests.support.untrained_run import make_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.open(make_dataset(tmp_path / "d"))


def with_rows(dataset: Dataset, key: str, groups: list[str], hashes: list[str]) -> Dataset:
    splits = ["train", "val", "test"][: len(groups)]
    index = pd.DataFrame({"split": splits, "group": groups, "pixel_hash": hashes}, dtype=str)
    return replace(dataset, index=index, key_ids=frozenset({key}))


@pytest.mark.parametrize(
    ("key", "groups", "hashes", "patients", "images", "words"),
    [
        ("k", ["a", "b"], ["1", "9"], 2, 1, "Of 2 patients, 2 are also in training or validation; 1 image of"),
        (
            "k",
            ["c", "x"],
            ["3", "9"],
            0,
            0,
            "0 are also in training or validation; 0 images of these have",
        ),  # c and 3 are only in test
        ("other", ["a", "b"], ["1", "2"], None, 2, "Patient overlap with training cannot be checked; 2 images"),
        ("k", ["", ""], ["7", "8"], None, 0, "cannot be checked"),
    ],
)
def test_patients_are_compared_where_pseudonyms_can_be(
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    groups: list[str],
    hashes: list[str],
    patients: int | None,
    images: int,
    words: str,
) -> None:
    source = with_rows(dataset, "k", ["a", "b", "c"], ["1", "2", "3"])

    class Opened:
        @staticmethod
        def open(_path: Path, **_options: Any) -> Dataset:
            return source

    monkeypatch.setattr(leaks, "Dataset", Opened)
    judged = with_rows(dataset, key, groups, hashes)
    found = overlap_with_training([Path("x")], judged, judged.index)
    assert (found.patients, found.images) == (patients, images)
    assert words in found.note


@pytest.mark.parametrize(
    ("split", "groups", "hashes", "found"),
    [
        ("test", ["a", "b", "b"], ["1", "2", "3"], (1, 0)),
        ("test", ["a", "b", "c"], ["1", "2", "1"], (0, 1)),
        ("test", ["a", "", ""], ["", "", ""], None),
        ("test", ["a", "b", "c"], ["1", "2", "3"], None),
        ("val", ["a", "a", "b"], ["1", "2", "3"], (1, 0)),
        ("val", ["a", "b", "b"], ["1", "3", "3"], None),  # shared with the test split alone
    ],
)
def test_splits_of_one_dataset_are_compared(
    dataset: Dataset, split: str, groups: list[str], hashes: list[str], found: tuple[int, int] | None
) -> None:
    rows = with_rows(dataset, "k", groups, hashes)
    index = rows.index.assign(split=["train", "val", "test"])
    overlap = overlap_within(replace(rows, index=index), split)
    assert (overlap and (overlap.patients, overlap.images)) == found


def test_training_data_that_are_not_there(dataset: Dataset, tmp_path: Path) -> None:
    found = overlap_with_training([tmp_path / "gone"], dataset, dataset.rows("val"))
    assert (found.patients, found.images) == (None, None)
    assert "are not there" in found.note


@pytest.mark.parametrize(
    ("image_ids", "groups", "splits", "fault"),
    [
        ("abc", ["p", "q", "p"], ["train", "val", "val"], "1 values of group"),
        ("abca", ["", "", "", ""], ["train", "val", "train", "val"], "1 values of image_id"),
        ("abcd", ["p", "p", "q", "q"], ["train", "test", "val", "test"], "2 values of group"),
    ],
)
def test_overlap_is_refused(image_ids: str, groups: list[str], splits: list[str], fault: str) -> None:
    with pytest.raises(ConvertError, match=f"{fault} are in more than one split"):
        refuse_overlap(pd.DataFrame({"image_id": list(image_ids), "group": groups, "split": splits}))


def test_images_without_group_overlap_with_none() -> None:
    refuse_overlap(pd.DataFrame({"image_id": ["a", "b"], "group": ["", ""], "split": ["train", "val"]}))


@pytest.mark.parametrize(
    ("splits", "hashes", "counts"),
    [
        (["train", "train", "val"], ["a", "a", "b"], (2, 0)),
        (["train", "val", "val"], ["a", "a", "b"], (2, 2)),
        (["train", "val", "train", "train"], ["a", "a", "b", "b"], (4, 2)),
        (["train", "val"], ["", ""], (0, 0)),
    ],
)
def test_duplicates_are_counted(splits: list[str], hashes: list[str], counts: tuple[int, int]) -> None:
    assert count_duplicates(pd.Series(splits, dtype=str), pd.Series(hashes, dtype=str)) == counts


@pytest.mark.parametrize(
    ("group_source", "ungrouped", "words"),
    [
        ("none", 0, "unknown: without --groups or --group-column, "),
        ("column", 3, "3 others cannot be checked"),
        ("mapping", 0, "none: no patient"),
    ],
)
def test_what_is_known_of_leaks(group_source: str, ungrouped: int, words: str) -> None:
    assert words in describe_leaks(group_source, ungrouped)
