"""Several datasets as one: the images, the statistics and the shares are those of the parts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pneumo_fast.dataset.folder import Dataset, write_table
from pneumo_fast.dataset.format import MANIFEST, SourceFiles
from pneumo_fast.dataset.selection import join_datasets, limit_images, open_datasets, select_fold
from pneumo_fast.errors import DatasetError
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from tests.support.make_dataset import make_dataset, stored_images

OTHER = {"train": [1, 0, 1], "val": [0, 1]}


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [
        make_dataset(tmp_path / "one").path,
        make_dataset(tmp_path / "two", labels=OTHER, layout="folder").path,
    ]


def test_one_dataset_is_itself(folders: list[Path]) -> None:
    for path in (folders[0], str(folders[0])):
        assert open_datasets([path]).path == folders[0]


def test_the_loader_delivers_the_images_of_all(folders: list[Path]) -> None:
    joint = open_datasets(folders)
    expected = np.concatenate([stored_images(open_datasets([folder]), "train") for folder in folders])
    with Loader(
        joint, "train", LoadConfig(batch_size=7), device=torch.device("cpu"), normalization=(0.0, 1.0)
    ) as loader:
        images = np.concatenate([batch.numpy()[:, 0].copy() for batch, _ in loader.epoch(0)])
    np.testing.assert_array_equal(images, expected.astype(np.float32))


def test_statistics_are_those_of_all_training_images(phantom_pair: list[Path]) -> None:
    joint = open_datasets(phantom_pair)
    pixels = np.concatenate([stored_images(open_datasets([folder]), "train") for folder in phantom_pair])
    assert joint.mean == pytest.approx(pixels.astype(np.float64).mean(), abs=1e-12)
    assert joint.std == pytest.approx(pixels.astype(np.float64).std(), abs=1e-12)


@pytest.fixture
def phantom_pair(own_dataset: Path) -> list[Path]:
    """The same sound dataset twice: real statistics, and every patient shared."""
    copy = own_dataset.with_name("copy")
    shutil.copytree(own_dataset, copy)
    manifest = copy / MANIFEST
    manifest.write_text(manifest.read_text() + "\n")  # so that it is another file
    return [own_dataset, copy]


def test_a_dataset_that_is_named_twice_is_refused(own_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(own_dataset)
    for twice in (own_dataset, tmp_path / "link"):
        with pytest.raises(DatasetError, match=f"{twice} is the same as {own_dataset}: name each dataset once"):
            open_datasets([own_dataset, twice])


def test_unlike_datasets_are_refused(tmp_path: Path) -> None:
    folders = [make_dataset(tmp_path / "one").path, make_dataset(tmp_path / "two", size=16).path]
    with pytest.raises(DatasetError, match=r"of 16 pixels.*convert them alike"):
        open_datasets(folders)


def test_no_dataset_at_all() -> None:
    with pytest.raises(DatasetError, match="no dataset is given: name at least one"):
        open_datasets([])


def test_datasets_without_pixels_cannot_be_joined(own_dataset: Path) -> None:
    stored = Dataset.open(own_dataset)
    files = SourceFiles(folder="/images", hash_key="", max_rejects=0, timeout_s=10.0, statistics_of=1)
    indexed = replace(stored, manifest=replace(stored.manifest, layout="source", source=files))
    for pair in ([stored, indexed], [indexed, stored]):
        with pytest.raises(DatasetError, match="layout source cannot be joined: convert them with another --layout"):
            join_datasets(pair)


def swapped(dataset: Path) -> Path:
    """A copy whose train and val are each other's."""
    copy = Path(shutil.copytree(dataset, dataset.with_name("swapped")))
    index = Dataset.open(copy).index
    digest = write_table(copy, "index.csv", index.assign(split=index["split"].map({"train": "val", "val": "train"})))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["tables"]["index.csv"] = digest
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_patients_of_one_split_are_no_leak(phantom_pair: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    assert open_datasets(phantom_pair).manifest.split["leaks"] == "none: no patient is in two splits"
    assert caplog.messages == []


def test_patients_on_both_sides_are_counted(own_dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    groups = Dataset.open(own_dataset).index["group"].nunique()
    joint = open_datasets([own_dataset, swapped(own_dataset)])
    assert f"{groups} patients in more than one split" in caplog.text
    assert joint.manifest.split["leaks"] == f"{groups} patients in more than one split of the joint datasets"
    assert joint.manifest.split["groups"] == groups


def test_images_on_both_sides_are_counted(own_dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = Dataset.open(own_dataset).index["split"].isin(["train", "val"]).sum()
    open_datasets([own_dataset, swapped(own_dataset)])
    assert f"{2 * images} images in more than one split of the joint datasets (equal pixels)" in caplog.text


def test_with_two_hash_keys_nobody_can_know(own_dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = swapped(own_dataset)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["split"]["hash_key_id"] = "0" * 16
    (other / "manifest.json").write_text(json.dumps(manifest))
    joined = open_datasets([own_dataset, other])
    assert f"{own_dataset} and {other} were made with different hash keys" in caplog.text
    assert joined.key_ids == {"0" * 16, Dataset.open(own_dataset).manifest.split["hash_key_id"]}


def test_ids_are_kept_only_where_they_are_in_every_part(own_dataset: Path) -> None:
    kept = Dataset.open(own_dataset)
    hidden = replace(kept, manifest=replace(kept.manifest, ids="pseudonyms"))
    assert [join_datasets([kept, other]).manifest.ids for other in (kept, hidden)] == ["kept", "pseudonyms"]


def test_the_deviation_of_joined_datasets_counts_what_lies_between_them(own_dataset: Path) -> None:
    one = Dataset.open(own_dataset)
    dark, bright = (replace(one, manifest=replace(one.manifest, mean=mean, std=0.1)) for mean in (0.2, 0.8))
    joined = join_datasets([dark, bright])
    assert joined.mean == pytest.approx(0.5)
    assert joined.std == pytest.approx((0.1**2 + 0.3**2) ** 0.5)


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


def test_of_several_datasets_the_first_images_of_each_are_kept_in_proportion(tmp_path: Path) -> None:
    parts = [
        make_dataset(tmp_path / name, labels={"train": [0, 1] * half, "val": [0, 1] * 3})
        for name, half in (("a", 20), ("b", 10))
    ]
    joint = join_datasets(parts)
    limited = limit_images(joint, 9, [len(part.index) for part in parts])
    for split, counts in (("train", (6, 3)), ("val", (5, 4))):
        rows = limited.rows(split)
        for part, count in zip(parts, counts, strict=True):
            mine = rows[rows["shard"].str.startswith(f"{part.path}/")]
            np.testing.assert_array_equal(mine["image_id"], part.rows(split)["image_id"].head(count))
    assert len(limit_images(joint, 1000, [len(part.index) for part in parts]).index) == len(joint.index)


def test_the_dataset_itself_stays_as_it_is(dataset: Dataset) -> None:
    before = dataset.index.copy()
    select_fold(dataset, 2, 1, 0)
    limit_images(dataset, 2)
    assert dataset.index.equals(before)
