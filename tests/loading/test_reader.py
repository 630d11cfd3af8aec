"""Positioned reads give what ``np.load`` gives, from any thread, and turn damage into an error."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.npy import write_array
from pneumo_fast.errors import DatasetError
from pneumo_fast.loading import reader as reader_module
from pneumo_fast.loading.reader import ShardReader, openable_files
from pneumo_fast.phantoms.make import PhantomSet
from tests.support.strategies import IN_PLACE

TRAIN_IMAGES = 28
OPEN = Path("/proc/self/fd")


@pytest.fixture(scope="module")
def in_folders(phantoms: PhantomSet, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("folders") / "dataset"
    config = ConvertConfig(
        keep_ids=True,
        images=phantoms.images,
        labels=phantoms.labels,
        out=out,
        size=32,
        val_fraction=0.3,
        layout="folder",
        workers=1,
    )
    convert(config)
    return Dataset.open(out)


@contextmanager
def reading(dataset: Dataset, split: str = "train") -> Iterator[ShardReader]:
    """A reader; when it is closed, none of the dataset's files is open."""
    reader = ShardReader(dataset, dataset.rows(split))
    try:
        yield reader
    finally:
        reader.close()
    assert not [path for path in map(os.path.realpath, OPEN.iterdir()) if Path(path).is_relative_to(dataset.path)]


def by_numpy(dataset: Dataset, rows: list[int]) -> NDArray[np.float16 | np.uint8]:
    places = dataset.rows("train").iloc[rows]
    files = (np.load(dataset.path / name).reshape(-1, 32, 32) for name in places["shard"])
    return np.stack([file[row] for file, row in zip(files, places["row"], strict=True)])


def read(reader: ShardReader, rows: list[int]) -> NDArray[np.float16 | np.uint8]:
    out = np.empty((len(rows), *reader.shape), dtype=reader.dtype)
    reader.read_into(np.array(rows, dtype=np.int64), out)
    return out


ROWS = st.lists(st.integers(0, TRAIN_IMAGES - 1), min_size=1, max_size=60)


@IN_PLACE
@given(ROWS)
def test_any_rows_in_any_order(dataset: Dataset, rows: list[int]) -> None:
    with reading(dataset) as reader:
        assert len(reader) == TRAIN_IMAGES
        np.testing.assert_array_equal(read(reader, rows), by_numpy(dataset, rows), strict=True)


def test_a_whole_split_at_once(dataset: Dataset) -> None:
    with reading(dataset) as reader:
        rows = list(range(len(reader)))
        np.testing.assert_array_equal(read(reader, rows), by_numpy(dataset, rows))


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "kept", "left"),
    [(1024, 4096, 256, 256, 1024), (1024, 4096, 257, 1024, 4096), (1024, 1024, 9000, 256, 1024)],
)
def test_more_files_are_kept_open_where_the_system_allows_it(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, kept: int, left: int
) -> None:
    limits = {resource.RLIMIT_NOFILE: (soft, hard)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    assert openable_files(wanted) == kept
    assert limits == {resource.RLIMIT_NOFILE: (left, hard)}


def test_whole_shards_are_announced_once_while_they_are_read_from(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[str] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *_: announced.append(str((OPEN / str(file)).readlink())))
    rows = dataset.rows("train")
    reader = ShardReader(dataset, rows, whole_shards=2)
    names = rows["shard"].unique().tolist()
    firsts = [int(np.flatnonzero(rows["shard"] == name)[0]) for name in names]
    for number in (0, 1, 0, 1, 2, 1, 0):
        read(reader, [firsts[number]])
    reader.close()
    assert [Path(path).name for path in announced] == [names[number] for number in (0, 1, 2, 0)]


@pytest.mark.parametrize("open_files", [1, 256])
def test_folder_layout(in_folders: Dataset, monkeypatch: pytest.MonkeyPatch, open_files: int) -> None:
    monkeypatch.setattr(reader_module, "openable_files", lambda _: open_files)
    rows = [3, 1, 1, 27, 0]
    with reading(in_folders) as reader:
        for _ in range(2):
            np.testing.assert_array_equal(read(reader, rows), by_numpy(in_folders, rows))


@pytest.mark.parametrize("open_files", [2, 256])
def test_threads_share_a_reader(in_folders: Dataset, monkeypatch: pytest.MonkeyPatch, open_files: int) -> None:
    """All of them open the same files at the same moment; no descriptor is lost."""
    monkeypatch.setattr(reader_module, "openable_files", lambda _: open_files)
    rows = list(range(TRAIN_IMAGES))
    expected = by_numpy(in_folders, rows)
    together = Barrier(8)

    def read_each(reader: ShardReader) -> NDArray[np.float16 | np.uint8]:
        found = []
        for row in rows:
            together.wait()
            found.append(read(reader, [row]))
        return np.concatenate(found)

    with ThreadPoolExecutor(8) as threads, reading(in_folders) as reader:
        for found in threads.map(read_each, [reader] * 8):
            np.testing.assert_array_equal(found, expected)


def test_a_shard_cut_short_while_open(own_dataset: Path) -> None:
    dataset = Dataset.open(own_dataset)
    with reading(dataset) as reader:
        read(reader, [0])
        os.truncate(own_dataset / "train-00000.npy", 500)
        with pytest.raises(DatasetError, match=r"train-00000\.npy was cut short: run convert again"):
            read(reader, [5])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (None, r"train-00000.npy cannot be opened \(No such file"),
        (np.zeros((9, 32, 32), dtype=np.float16), r"holds float16 \(9, 32, 32\), .* says float16 \(10, 32, 32\)"),
        (np.zeros((10, 32, 32), dtype=np.uint8), r"holds uint8 \(10, 32, 32\)"),
        (np.zeros((10, 32, 16), dtype=np.float16), r"holds float16 \(10, 32, 16\)"),
    ],
)  # fmt: skip
def test_another_file_in_the_place_of_a_shard(
    own_dataset: Path, array: NDArray[np.float16] | NDArray[np.uint8] | None, words: str
) -> None:
    dataset = Dataset.open(own_dataset)
    path = own_dataset / "train-00000.npy"
    path.unlink()
    if array is not None:
        write_array(path, array)
    with reading(dataset) as reader, pytest.raises(DatasetError, match=words):
        read(reader, [0])


def test_text_in_the_place_of_an_image(in_folders: Dataset, tmp_path: Path) -> None:
    rows = in_folders.rows("train").assign(shard=str(tmp_path / "x.npy"))
    (tmp_path / "x.npy").write_text("no image")
    reader = ShardReader(in_folders, rows)
    with pytest.raises(DatasetError, match=r"no valid \.npy header"):
        read(reader, [0])
