"""What other data share with training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pneumo_fast.dataset import leaks
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.leaks import find_overlap
from tests.support.untrained_run import make_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.open(make_dataset(tmp_path / "d"))


def with_rows(dataset: Dataset, key: str, groups: list[str], hashes: list[str]) -> Dataset:
    splits = ["train", "val", "test"][: len(groups)]
    index = pd.DataFrame({"split": splits, "group": groups, "pixel_hash": hashes}, dtype=str)
    manifest = replace(dataset.manifest, split={"hash_key_id": key})
    return replace(dataset, index=index, manifest=manifest)


@pytest.mark.parametrize(
    ("key", "groups", "hashes", "patients", "images", "words"),
    [
        ("k", ["a", "b"], ["1", "9"], 2, 1, "Of 2 patients, training has seen 2; 1 image of these has the pixels"),
        ("k", ["c", "x"], ["3", "9"], 0, 0, "training has seen 0; 0 images of these have"),  # c and 3 are only in test
        ("other", ["a", "b"], ["1", "2"], None, 2, "Which patients were in training cannot be known; 2 images"),
        ("k", ["", ""], ["7", "8"], None, 0, "cannot be known"),
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
    found = find_overlap([Path("x")], judged, judged.index)
    assert (found.patients, found.images) == (patients, images)
    assert words in found.note


def test_training_data_that_are_not_there(dataset: Dataset, tmp_path: Path) -> None:
    found = find_overlap([tmp_path / "gone"], dataset, dataset.rows("val"))
    assert (found.patients, found.images) == (None, None)
    assert "are not there" in found.note
