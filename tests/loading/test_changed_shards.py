"""Shards that are damaged, replaced or gone while a loader reads them."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from pneumo_fast.errors import DatasetError
from pneumo_fast.loading import reader
from pneumo_fast.loading.engines.fused import compiled_kernels
from pneumo_fast.loading.loader import Loader
from tests.support.loaders import EVERYWHERE, STREAMING, Place, check_epoch, collect, load, reference, resources, within
from tests.support.make_dataset import make_dataset


def truncate(shard: Path) -> None:
    os.truncate(shard, shard.stat().st_size - 1)


def empty(shard: Path) -> None:
    os.truncate(shard, 0)


def spoil_header(shard: Path) -> None:
    """Leave a bracket open in it, which NumPy's reader meets with an error of the tokenizer."""
    shard.write_bytes(shard.read_bytes().replace(b"(4, 8, 8)", b"(4, 8, 8 "))


def put_another_there(shard: Path) -> None:
    np.save(shard, np.zeros((4, 8, 8), np.float32))


def put_fewer_there(shard: Path) -> None:
    np.save(shard, np.zeros((3, 8, 8), np.float16))


@STREAMING
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "was cut short|changed while it was read"),  # the latter where no kernel is loaded yet
        (empty, "no valid .npy header"),
        (Path.unlink, "cannot be opened"),
        (spoil_header, "no valid .npy header"),
        (put_another_there, r"holds float32 \(4, 8, 8\), the manifest says float16 \(4, 8, 8\)"),
        (put_fewer_there, r"holds float16 \(3, 8, 8\), the manifest says float16 \(4, 8, 8\)"),
    ],
)
def test_a_shard_that_changes_under_a_running_loader(
    tmp_path: Path, place: Place, damage: Callable[[Path], None], message: str
) -> None:
    """The batches before it arrive; then comes the error; and nobody waits for ever."""
    dataset = make_dataset(tmp_path / "d", labels={"train": [0, 1], "val": [0, 1] * 24})
    shard = tmp_path / "d" / "val-00011.npy"
    arrived = []

    def consume(loader: Loader) -> None:
        for batch, _ in enumerate(loader.epoch(0)):
            if batch == 0:
                damage(shard)
            arrived.append(batch)

    with load(dataset, "val", place, batch_size=4) as loader:
        with pytest.raises(DatasetError, match=message) as error:
            within(lambda: consume(loader))
        assert str(shard) in str(error.value)
        assert arrived == list(range(11))
        with pytest.raises(DatasetError, match=message):  # and again, not a wrong epoch
            within(lambda: collect(loader, 1))


@STREAMING
def test_a_shard_cut_short_while_it_is_open(tmp_path: Path, place: Place) -> None:
    """A memory map would kill the process here."""
    dataset = make_dataset(tmp_path / "d", labels={"train": [0, 1], "val": [0, 1] * 24}, shard_rows=48)
    shard = tmp_path / "d" / "val-00000.npy"
    with load(dataset, "val", place, batch_size=2) as loader:
        epoch = loader.epoch(0)
        next(epoch)
        os.truncate(shard, 200)
        with pytest.raises(DatasetError, match=r"val-00000\.npy (was cut short|changed while it was read): run"):
            within(lambda: list(epoch))


@STREAMING
def test_a_shard_that_comes_back(tmp_path: Path, place: Place) -> None:
    """An error ends the epoch it happened in, not the loader."""
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "val", dataset.mean, dataset.std)
    shard, away = tmp_path / "d" / "val-00002.npy", tmp_path / "away.npy"
    with load(dataset, "val", place, batch_size=4) as loader:
        shard.rename(away)
        with pytest.raises(DatasetError, match=r"val-00002\.npy cannot be opened \(No such file or directory\)"):
            within(lambda: collect(loader, 0))
        away.rename(shard)
        check_epoch(loader, 0, images, labels, place)


@STREAMING
def test_more_shards_than_files_may_be_open(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "openable_files", lambda _: 3)
    dataset = make_dataset(tmp_path / "d", layout="folder")
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    gc.collect()  # or files of an earlier test would be closed in between
    files = resources()[1]
    with load(dataset, "train", place, batch_size=4, order="shuffle") as loader:
        check_epoch(loader, 0, images, labels, place)
        loader._engine.end()  # it reads the next epoch's first batches already
        assert resources()[1] == files + 3


def flip_bytes(shard: Path) -> None:
    """Overwrite pixels in place, as a careless copy does."""
    with shard.open("r+b") as file:
        file.seek(200)
        file.write(b"\x01\x02")


@STREAMING
@pytest.mark.parametrize("damage", [flip_bytes, Path.touch])
def test_a_shard_written_to_while_it_is_open(tmp_path: Path, place: Place, damage: Callable[[Path], None]) -> None:
    dataset = make_dataset(tmp_path / "d", labels={"train": [0, 1], "val": [0, 1] * 24}, shard_rows=48)
    with load(dataset, "val", place, batch_size=2) as loader:
        epoch = loader.epoch(0)
        next(epoch)
        damage(tmp_path / "d" / "val-00000.npy")
        with pytest.raises(DatasetError, match=r"val-00000\.npy changed while it was read: run convert again"):
            within(lambda: list(epoch))


@STREAMING
def test_a_shard_replaced_by_another_is_noticed(tmp_path: Path, place: Place) -> None:
    dataset = make_dataset(tmp_path / "d")
    name = dataset.rows("train")["shard"].iloc[0]
    with load(dataset, "train", place, batch_size=2, order="shuffle") as loader:
        collect(loader, 0)
        np.save(tmp_path / "other.npy", np.zeros_like(np.load(dataset.path / name)))
        (tmp_path / "other.npy").rename(dataset.path / name)
        with pytest.raises(DatasetError, match=rf"{name} changed while it was read"):
            within(lambda: [collect(loader, epoch) for epoch in (1, 2)])


def put_bits(shard: Path, pixel: int, bits: int) -> None:
    """Write a float16 into the third image of a shard, for good: its time of change is of no help."""
    images = np.load(shard)
    images.view(np.uint16)[2].flat[pixel] = bits
    np.save(shard, images)


@EVERYWHERE
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("bits", "pixel", "shown"),
    [(0x7C00, 0, "inf"), (0x7E00, -1, "nan"), (0xBC00, 40, "-1.0"), (0x8000, -1, "-0.0"), (0x3C01, 17, "1.0009765625")],
)
def test_a_damaged_value_is_an_error_in_every_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place, compiled: bool, bits: int, pixel: int, shown: str
) -> None:
    """Widened by its bits alone it would be another number, 65,536 for infinity, that a model learns from."""
    dataset = make_dataset(tmp_path / "d", size=9)
    shard = tmp_path / "d" / "train-00001.npy"
    put_bits(shard, pixel, bits)
    compiled_kernels(16).result()
    if not compiled:
        for module in ("fused", "stored"):
            monkeypatch.setattr(f"pneumo_fast.loading.engines.{module}.compiled_kernels", lambda _bits: Future())

    def consume() -> None:
        with load(dataset, "train", place, batch_size=4) as loader:
            collect(loader, 0)

    message = f"shard {shard} holds {shown} in image 2 (values from 0 to 1 expected): run verify, then convert again"
    with pytest.raises(DatasetError, match=re.escape(message)):
        within(consume)


@EVERYWHERE
@pytest.mark.parametrize("bits", [0x3C00, 0x0001, 0])
def test_black_white_and_the_smallest_value_are_read(tmp_path: Path, place: Place, bits: int) -> None:
    dataset = make_dataset(tmp_path / "d", size=9)
    put_bits(tmp_path / "d" / "train-00001.npy", -1, bits)
    compiled_kernels(16).result()
    with load(dataset, "train", place, batch_size=4) as loader:
        check_epoch(loader, 0, *reference(dataset, "train", dataset.mean, dataset.std), place)
