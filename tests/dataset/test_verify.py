"""``verify`` names every kind of damage, and nothing else."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pneumo_fast.dataset.folder import Dataset, write_table
from pneumo_fast.dataset.npy import write_array
from pneumo_fast.dataset.verify import verify
from pneumo_fast.errors import DatasetError


def test_a_sound_dataset_has_no_problems(dataset: Dataset) -> None:
    seen: list[tuple[int, int]] = []
    assert verify(dataset.path, lambda done, total: seen.append((done, total))) == []
    files = dataset.index["shard"].nunique()
    assert seen[-1] == (files, files)


def flip_a_pixel(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def spoil_the_header(path: Path) -> None:
    path.write_bytes(b"x" + path.read_bytes()[1:])


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "problems"),
    [
        (flip_a_pixel, ["its SHA-256 is not the manifest's", "the pixels of 1 images are not those that were written"]),
        (cut_short, ["expected"]),
        (spoil_the_header, ["no valid .npy header"]),
        (Path.unlink, ["cannot be read"]),
        (become_a_pipe, ["cannot be read (not a regular file)"]),
    ],
)
def test_each_damaged_shard_is_named(own_dataset: Path, damage: Callable[[Path], None], problems: list[str]) -> None:
    for name in ("train-00001.npy", "val-00000.npy"):
        damage(own_dataset / name)
    found = verify(own_dataset)
    assert len(found) == 2 * len(problems)
    for name in ("train-00001.npy", "val-00000.npy"):
        mine = [line for line in found if line.startswith(f"{name}: ")]
        assert len(mine) == len(problems)
        assert all(text in line for text, line in zip(problems, mine, strict=True))


def rewrite_manifest(folder: Path, **values: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_value_outside_the_range_is_found(own_dataset: Path) -> None:
    images = np.load(own_dataset / "val-00000.npy")
    images[0, 0, 0] = np.nan
    np.save(own_dataset / "val-00000.npy", images)
    assert any("outside 0 to 1" in line for line in verify(own_dataset))


@pytest.mark.parametrize("name", ["mean", "std"])
def test_statistics_are_worked_out_anew(own_dataset: Path, name: str) -> None:
    stated = json.loads((own_dataset / "manifest.json").read_text())[name]
    rewrite_manifest(own_dataset, **{name: stated + 1e-6})
    (problem,) = verify(own_dataset)
    assert f"the {name} of the train split" in problem


def test_counts_and_groups_are_held_to_the_index(own_dataset: Path) -> None:
    dataset = Dataset.open(own_dataset)
    index = dataset.index.assign(group="one")
    tables = dataset.manifest.tables | {"index.csv": write_table(own_dataset, "index.csv", index)}
    rewrite_manifest(own_dataset, tables=tables, counts={})
    problems = verify(own_dataset)
    assert any("the manifest says otherwise" in line for line in problems)
    assert "index.csv: 1 groups are in more than one split" in problems


def test_without_a_sound_index_nothing_can_be_checked(own_dataset: Path) -> None:
    (own_dataset / "index.csv").write_text("image_id\n")
    with pytest.raises(DatasetError, match=r"index\.csv is not the file"):
        verify(own_dataset)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("bytes", 1, "bytes, the manifest says 1"),
        ("split", "val", "its images are not in split 'val', as the manifest says"),
        ("sha256", "0" * 64, "its SHA-256 is not the manifest's"),
    ],
)
def test_what_the_manifest_says_of_a_shard_is_checked(
    own_dataset: Path, field: str, value: object, problem: str
) -> None:
    shards = json.loads((own_dataset / "manifest.json").read_text())["shards"]
    assert shards[0]["split"] == "train"
    shards[0][field] = value
    rewrite_manifest(own_dataset, shards=shards)
    (found,) = verify(own_dataset)
    assert found.startswith(f"{shards[0]['name']}: ")
    assert found.endswith(problem)


def test_a_shard_takes_the_memory_of_few_images(own_dataset: Path) -> None:
    name, rows = "val-00000.npy", 8192
    size = Dataset.open(own_dataset).size
    write_array(own_dataset / name, np.zeros((rows, size, size), np.float16))
    shards = json.loads((own_dataset / "manifest.json").read_text())["shards"]
    rewrite_manifest(own_dataset, shards=[s | ({"rows": rows} if s["name"] == name else {}) for s in shards])
    tracemalloc.start()
    try:
        problems = verify(own_dataset)
        assert tracemalloc.get_traced_memory()[1] < 2 * rows * size**2 / 2  # bytes: half of the file
    finally:
        tracemalloc.stop()
    assert any(f"{rows} images, the index lists" in problem for problem in problems)
