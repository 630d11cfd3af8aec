"""An image is found by its original id as well, hashed with the dataset's key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.identifiers import stored_ids
from pneumo_fast.dataset.pseudonyms import key_id, load_key, pseudonym
from pneumo_fast.dataset.selection import join_datasets
from pneumo_fast.errors import ConfigError


@pytest.fixture
def hidden(dataset: Dataset, tmp_path: Path) -> Dataset:
    """A dataset whose first image has the id ``original``, under a key in ``hash.key``."""
    key = load_key(tmp_path / "hash.key", make=True)
    index = dataset.index.copy()
    index.loc[0, "image_id"] = pseudonym(key, "image", "original")
    manifest = replace(dataset.manifest, ids="pseudonyms")
    return replace(dataset, manifest=manifest, index=index, key_ids=frozenset({key_id(key)}))


def test_originals_and_pseudonyms_name_the_same_image(hidden: Dataset, tmp_path: Path) -> None:
    first, second = hidden.index["image_id"].iloc[:2]
    given = ["original", first, second]
    assert stored_ids(hidden, given, tmp_path / "hash.key") == [first, first, second]


def test_pseudonyms_need_no_key(hidden: Dataset, tmp_path: Path) -> None:
    first = hidden.index["image_id"].iloc[0]
    assert stored_ids(hidden, [first], tmp_path / "gone.key") == [first]


def test_kept_ids_are_not_hashed(dataset: Dataset, tmp_path: Path) -> None:
    kept = replace(dataset, manifest=replace(dataset.manifest, ids="kept"))
    assert stored_ids(kept, ["nobody"], tmp_path / "gone.key") == ["nobody"]


def test_a_wrong_key_is_refused(hidden: Dataset, tmp_path: Path) -> None:
    load_key(tmp_path / "other.key", make=True)
    with pytest.raises(ConfigError, match=r"other\.key is not the one that dataset"):
        stored_ids(hidden, ["original"], tmp_path / "other.key")


@pytest.mark.parametrize("hidden_first", [True, False])
def test_an_original_is_found_in_a_joint_dataset_of_two_keys(
    hidden: Dataset, dataset: Dataset, tmp_path: Path, *, hidden_first: bool
) -> None:
    joined = join_datasets([hidden, dataset] if hidden_first else [dataset, hidden])
    assert stored_ids(joined, ["original"], tmp_path / "hash.key") == [hidden.index["image_id"].iloc[0]]


def test_a_key_of_no_part_is_refused(hidden: Dataset, dataset: Dataset, tmp_path: Path) -> None:
    load_key(tmp_path / "other.key", make=True)
    with pytest.raises(ConfigError, match=r"other\.key is not the one that any of the joined datasets was made with"):
        stored_ids(join_datasets([hidden, dataset]), ["original"], tmp_path / "other.key")
