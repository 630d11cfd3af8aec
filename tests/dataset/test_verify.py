"""``verify`` names every kind of damage, and nothing else."""

from __future__ import annotations

import gc
import json
import math
import os
import re
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pneumo_fast.dataset import verify as verify_module
from pneumo_fast.dataset.folder import Dataset, write_table
from pneumo_fast.dataset.npy import write_array
from pneumo_fast.dataset.verify import verify
from pneumo_fast.errors import DatasetError
from tests.support.conversions import run, write_input


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
        (
            flip_a_pixel,
            ["its checksum is not the manifest's", "the pixels of 1 image are not those that were written"],
        ),
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
    assert "index.csv: 1 group is in more than one split" in problems


def test_without_a_sound_index_nothing_can_be_checked(own_dataset: Path) -> None:
    (own_dataset / "index.csv").write_text("image_id\n")
    with pytest.raises(DatasetError, match=r"index\.csv is not the file"):
        verify(own_dataset)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("bytes", 1, "bytes, the manifest says 1"),
        ("split", "val", "its images are not in split 'val', as the manifest says"),
        ("checksum", "0" * 64, "its checksum is not the manifest's"),
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


@contextmanager
def taking_at_most(most_bytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()


def rewrite_shard(folder: Path, name: str, **values: object) -> None:
    shards = json.loads((folder / "manifest.json").read_text())["shards"]
    rewrite_manifest(folder, shards=[shard | (values if shard["name"] == name else {}) for shard in shards])


def test_a_shard_takes_the_memory_of_few_images(own_dataset: Path) -> None:
    name, rows = "val-00000.npy", 8192
    dataset = Dataset.open(own_dataset)
    write_array(own_dataset / name, np.zeros((rows, dataset.size, dataset.size), np.float16))
    rewrite_shard(own_dataset, name, rows=rows)
    index = dataset.index
    row = index[index["shard"] == name].head(1)
    index = pd.concat([index[index["shard"] != name], row.loc[row.index.repeat(rows)].assign(row=range(rows))])
    rewrite_manifest(
        own_dataset, tables=dataset.manifest.tables | {"index.csv": write_table(own_dataset, "index.csv", index)}
    )
    with taking_at_most(2 * rows * dataset.size**2 * 3 // 4):  # bytes: three quarters of the file
        problems = verify(own_dataset)
    assert f"{name}: the pixels of {rows:,} images are not those that were written" in problems


def lay_out(path: Path, shape: tuple[int, ...]) -> None:
    """A sparse file: any size, and no room taken on the disk."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 2 * math.prod(shape))


def claim_many_images(folder: Path) -> None:
    rows = 1 << 22
    size = Dataset.open(folder).size
    lay_out(folder / "val-00000.npy", (rows, size, size))
    rewrite_shard(folder, "val-00000.npy", rows=rows)


def claim_a_large_image(folder: Path) -> None:
    for shard in Dataset.open(folder).manifest.shards:
        lay_out(folder / shard.name, (shard.rows, 1 << 14, 1 << 14))
    rewrite_manifest(folder, image_shape=[1 << 14, 1 << 14])


def lay_out_a_table(folder: Path) -> None:
    with (folder / "index.csv").open("r+b") as file:
        file.truncate((1 << 32) + 1)


def lead_to_a_device(folder: Path) -> None:
    (folder / "val-00000.npy").unlink()
    (folder / "val-00000.npy").symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("forge", "problem"),
    [
        (claim_many_images, r"val-00000\.npy: 4,194,304 images, the index lists \d+"),
        (claim_a_large_image, r"image_shape \(16384, 16384\): expected two equal whole numbers up to 4096"),
        (lay_out_a_table, r"index\.csv cannot be read \(4,294,967,297 bytes, at most 4,294,967,296 expected\)"),
        (lead_to_a_device, r"val-00000\.npy: cannot be read \(not a regular file\)"),
    ],
)
def test_what_a_forged_dataset_claims_fills_no_memory(
    own_dataset: Path, forge: Callable[[Path], None], problem: str
) -> None:
    forge(own_dataset)
    with taking_at_most(1 << 24):
        try:
            (found,) = verify(own_dataset)
        except DatasetError as error:
            found = str(error)
    assert re.search(problem, found)


def test_rows_of_few_files_are_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the layout folder there are as many files as images."""
    config = write_input(tmp_path)
    run(config, layout="folder")
    monkeypatch.setattr(verify_module, "AT_ONCE", 2)
    found = []

    def count(*_: int) -> None:
        found.append(sum(type(one) is pd.DataFrame and len(one) == 1 for one in gc.get_objects()))

    assert verify(config.out, count) == []
    assert len(found) == 12
    assert max(found) <= 2
