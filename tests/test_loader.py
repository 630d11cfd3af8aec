"""The loader against plain NumPy, on every device, and whatever can happen to it in the middle of an epoch."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from make_dataset import DEVICES, LABELS, Dtype, Layout, make_dataset, stored_images
from numpy.typing import NDArray

from pneumo_fast import reader
from pneumo_fast.errors import ConfigError, DatasetError
from pneumo_fast.loader import DALI_DEPTH, READ_AHEAD, Loader
from pneumo_fast.order import Order, Part
from pneumo_fast.shards import Dataset

T = TypeVar("T")
CPU = torch.device("cpu")
PATIENCE_S = 30.0


def within(work: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """Do work in another thread and fail, rather than hang, when it takes too long."""
    with ThreadPool(1) as pool:
        return pool.apply_async(work).get(seconds)


def collect(loader: Loader, epoch: int, batches: int | None = None) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """An epoch's batches (or its first ones) as copies, by an iterator that is then forgotten."""
    out = []
    for images, labels in loader.epoch(epoch):
        out.append((images.cpu().numpy().copy(), labels.cpu().numpy().copy()))
        if len(out) == batches:
            break
    return out


def check_pixels(found: NDArray[Any], expected: NDArray[Any], device: str) -> None:
    if device == "cpu":
        np.testing.assert_array_max_ulp(found, expected, maxulp=2)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def reference(dataset: Dataset, split: str, mean: float, std: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """All images of a split (n, 1, size, size), normalized in float32, and their labels, in storage order."""
    stored = stored_images(dataset, split)[:, None].astype(np.float32)
    shift, factor = np.float32(mean * dataset.scale), np.float32(1 / (std * dataset.scale))
    return (stored - shift) * factor, dataset.rows(split)["label"].to_numpy(np.float32)


def check_epoch(loader: Loader, epoch: int, images: NDArray[Any], labels: NDArray[Any], device: str) -> None:
    """Hold a whole epoch against a reference in storage order."""
    batches = within(lambda: collect(loader, epoch))
    assert len(batches) == len(loader)
    for batch, (found, marks) in enumerate(batches):
        rows = loader.order.rows(epoch, batch)
        assert found.dtype == marks.dtype == np.float32
        np.testing.assert_array_equal(marks, labels[rows])
        check_pixels(found, images[rows], device)


@DEVICES
@pytest.mark.parametrize("shuffle", [True, False], ids=["shuffled", "stored order"])
@pytest.mark.parametrize("layout", ["shards", "folder"])
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_two_epochs_are_those_of_plain_numpy(
    tmp_path: Path, device: str, dtype: Dtype, layout: Layout, shuffle: bool
) -> None:
    dataset = make_dataset(tmp_path / "d", dtype=dtype, layout=layout, size=9)
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    order = Order(n=len(labels), batch_size=4, shuffle=shuffle, seed=3)
    with Loader(
        dataset, "train", batch_size=4, device=torch.device(device, 0), shuffle=shuffle, seed=3
    ) as loader:  # fmt: skip
        assert loader.order == order
        for epoch in (0, 1):
            check_epoch(loader, epoch, images, labels, device)


@DEVICES
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 1.0), (0.123456789, 0.98765), (0.9999, 1e-3), (1 / 3, 1 / 7), (0.5, 0.25)]
)
def test_the_normalization_can_be_another_than_the_dataset_s(
    tmp_path: Path, device: str, dtype: Dtype, mean: float, std: float
) -> None:
    dataset = make_dataset(tmp_path / "d", dtype=dtype, size=32)
    images, labels = reference(dataset, "val", mean, std)
    with Loader(dataset, "val", batch_size=5, device=torch.device(device, 0), normalization=(mean, std)) as loader:
        check_epoch(loader, 0, images, labels, device)


@DEVICES
def test_every_float16_value_arrives_as_it_is_stored(tmp_path: Path, device: str) -> None:
    """All 15,361 of them in [0, 1], the subnormal ones too, with mean 0 and standard deviation 1."""
    dataset = make_dataset(tmp_path / "d", labels={"train": [0, 1], "val": [0]}, size=124, shard_rows=1)
    every = np.zeros(124 * 124, np.float16)
    every[:15361] = np.arange(15361, dtype=np.uint16).view(np.float16)
    shard = tmp_path / "d" / "val-00000.npy"
    np.save(shard, every.reshape(1, 124, 124))
    with Loader(dataset, "val", batch_size=1, device=torch.device(device, 0), normalization=(0.0, 1.0)) as loader:
        ((images, _),) = within(lambda: collect(loader, 0))
    np.testing.assert_array_equal(images.ravel(), every.astype(np.float32))


def test_the_last_batch_is_partial_and_every_image_comes_once(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "val", dataset.mean, dataset.std)
    with Loader(dataset, "val", batch_size=5, device=CPU) as loader:
        batches = within(lambda: collect(loader, 0))
    assert [len(marks) for _, marks in batches] == [5, 5, 3]
    assert batches[-1][0].shape == (3, 1, 8, 8)
    np.testing.assert_array_equal(np.concatenate([marks for _, marks in batches]), labels)
    np.testing.assert_array_max_ulp(np.concatenate([found for found, _ in batches]), images, maxulp=2)


def test_a_single_image_left_over_joins_the_last_training_batch(tmp_path: Path) -> None:
    with Loader(make_dataset(tmp_path / "d"), "train", batch_size=4, device=CPU, shuffle=True) as loader:
        assert [len(marks) for _, marks in within(lambda: collect(loader, 0))] == [4, 4, 4, 4, 5]


@DEVICES
def test_a_batch_stays_as_it_was_until_the_next_is_asked_for(tmp_path: Path, device: str) -> None:
    """The reading thread, meanwhile, fills whatever memory it takes for free."""
    dataset = make_dataset(tmp_path / "d", labels={"train": [0, 1] * 40, "val": [0]})
    with Loader(dataset, "train", batch_size=4, device=torch.device(device, 0), shuffle=True) as loader:
        for images, labels in loader.epoch(0):
            before = images.clone(), labels.clone()
            time.sleep(0.01)
            assert torch.equal(images, before[0])
            assert torch.equal(labels, before[1])


@DEVICES
@pytest.mark.parametrize("batches", [1, 2, 4])
def test_an_epoch_left_in_the_middle_leaves_no_trace_in_the_next(tmp_path: Path, device: str, batches: int) -> None:
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    with Loader(dataset, "train", batch_size=4, device=torch.device(device, 0), shuffle=True) as loader:
        for epoch in range(3):
            within(lambda: collect(loader, 7, batches))
            check_epoch(loader, epoch, images, labels, device)


def test_an_epoch_under_way_ends_when_the_next_begins(tmp_path: Path) -> None:
    """Though somebody still holds on to it."""
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    with Loader(dataset, "train", batch_size=4, device=CPU, shuffle=True) as loader:
        held = loader.epoch(0)
        next(held)
        check_epoch(loader, 1, images, labels, "cpu")
        assert list(held) == []
        check_epoch(loader, 2, images, labels, "cpu")


def test_two_loaders_do_not_disturb_each_other(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d")
    with (
        Loader(dataset, "train", batch_size=4, device=CPU, shuffle=True) as one,
        Loader(dataset, "train", batch_size=4, device=CPU, shuffle=True) as other,
    ):
        for (images, labels), (images_too, labels_too) in zip(one.epoch(5), other.epoch(5), strict=True):
            assert torch.equal(images, images_too)
            assert torch.equal(labels, labels_too)


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


@DEVICES
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "was cut short"),
        (empty, "no valid .npy header"),
        (Path.unlink, "cannot be opened"),
        (spoil_header, "no valid .npy header"),
        (put_another_there, r"holds float32 \(4, 8, 8\), the manifest says float16 \(4, 8, 8\)"),
        (put_fewer_there, r"holds float16 \(3, 8, 8\), the manifest says float16 \(4, 8, 8\)"),
    ],
)
def test_a_shard_that_changes_under_a_running_loader(
    tmp_path: Path, device: str, damage: Callable[[Path], None], message: str
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

    with Loader(dataset, "val", batch_size=4, device=torch.device(device, 0)) as loader:
        with pytest.raises(DatasetError, match=message) as error:
            within(lambda: consume(loader))
        assert str(shard) in str(error.value)
        assert arrived == list(range(11))
        with pytest.raises(DatasetError, match=message):  # and again, not a wrong epoch
            within(lambda: collect(loader, 1))


def test_a_shard_cut_short_while_it_is_open(tmp_path: Path) -> None:
    """A memory map would kill the process here."""
    dataset = make_dataset(tmp_path / "d", labels={"train": [0, 1], "val": [0, 1] * 24}, shard_rows=48)
    shard = tmp_path / "d" / "val-00000.npy"
    with Loader(dataset, "val", batch_size=2, device=CPU) as loader:
        epoch = loader.epoch(0)
        next(epoch)
        os.truncate(shard, 200)
        with pytest.raises(DatasetError, match=r"val-00000\.npy was cut short: run convert again"):
            within(lambda: list(epoch))


def test_a_shard_missing_from_the_start(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d")
    (tmp_path / "d" / "val-00000.npy").unlink()
    with (
        Loader(dataset, "val", batch_size=4, device=CPU) as loader,
        pytest.raises(DatasetError, match=r"val-00000\.npy cannot be opened \(No such file or directory\)"),
    ):
        within(lambda: collect(loader, 0))


def test_a_shard_that_comes_back(tmp_path: Path) -> None:
    """An error ends the epoch it happened in, not the loader."""
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "val", dataset.mean, dataset.std)
    shard, away = tmp_path / "d" / "val-00002.npy", tmp_path / "away.npy"
    with Loader(dataset, "val", batch_size=4, device=CPU) as loader:
        shard.rename(away)
        with pytest.raises(DatasetError, match="cannot be opened"):
            within(lambda: collect(loader, 0))
        away.rename(shard)
        check_epoch(loader, 0, images, labels, "cpu")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_reading_that_fails_in_a_way_nobody_thought_of_is_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader.ShardReader, "read_into", lambda *_: 1 / 0)
    with (
        Loader(make_dataset(tmp_path / "d"), "val", batch_size=4, device=CPU) as loader,
        pytest.raises(DatasetError, match="reading ended before"),
    ):
        within(lambda: collect(loader, 0))


def resources() -> tuple[int, int]:
    """Threads of this process, native ones included, and open file descriptors."""
    return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("use", ["whole", "middle", "held", "unused", "error"])
def test_a_closed_loader_leaves_no_thread_and_no_file_open(tmp_path: Path, use: str) -> None:
    dataset = make_dataset(tmp_path / "d", layout="folder")
    kept = []

    def once() -> None:
        loader = Loader(dataset, "train", batch_size=4, device=CPU, shuffle=True)
        kept.append(loader)
        held = loader.epoch(0)
        if use == "whole":
            list(held)
        elif use in {"middle", "held"}:
            next(held)
            if use == "middle":
                held.close()
        elif use == "error":
            loader._reader._row = loader._reader._row + 99
            with pytest.raises(DatasetError, match="cut short"):
                list(held)
        loader.close()
        loader.close()  # twice does no harm

    once()  # whatever DALI keeps for the process is there from now on
    gc.collect()
    before = resources()
    for _ in range(3):
        once()
    assert settled(before) == before


def settled(expected: tuple[int, int]) -> tuple[int, int]:
    """The resources, once they are as expected or two seconds have passed; a joined thread may linger for a moment."""
    deadline = time.monotonic() + 2
    while (now := resources()) != expected and time.monotonic() < deadline:
        gc.collect()  # an error holds on to DALI's frames
        time.sleep(0.01)
    return now


def test_an_error_in_the_consumer_closes_the_loader_cleanly(tmp_path: Path) -> None:
    """The traceback holds the epoch, half-way, while the loader is closed."""
    dataset = make_dataset(tmp_path / "d")

    def consume() -> None:
        with Loader(dataset, "train", batch_size=2, device=CPU, shuffle=True) as loader:
            for _ in loader.epoch(0):
                raise KeyError("the consumer's own")

    with pytest.raises(KeyError, match="the consumer's own"):
        within(consume)
    assert not [thread for thread in threading.enumerate() if thread.name == "pneumo-fast-read"]


def test_more_shards_than_files_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader.ShardReader, "OPEN_FILES", 3)
    dataset = make_dataset(tmp_path / "d", layout="folder")
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    files = resources()[1]
    with Loader(dataset, "train", batch_size=4, device=CPU, shuffle=True) as loader:
        check_epoch(loader, 0, images, labels, "cpu")
        assert resources()[1] == files + 3


def test_the_wait_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path / "d")
    read_into = reader.ShardReader.read_into

    def slowly(self: reader.ShardReader, *arguments: Any) -> None:
        time.sleep(0.05)
        read_into(self, *arguments)

    with Loader(dataset, "train", batch_size=4, device=CPU, shuffle=True) as loader:
        within(lambda: collect(loader, 0))
        quick = loader.wait_s
        monkeypatch.setattr(reader.ShardReader, "read_into", slowly)
        begin = time.perf_counter()
        within(lambda: collect(loader, 1))
        seconds = time.perf_counter() - begin
        assert 0 < quick < 0.2
        assert 5 * 0.05 <= loader.wait_s <= seconds


def test_reading_goes_on_while_the_consumer_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a slow read and a slow step take the longer of the two times, not their sum."""
    dataset = make_dataset(tmp_path / "d", labels={"train": [0, 1], "val": [0, 1] * 20})
    read_into, read = reader.ShardReader.read_into, threading.Semaphore(0)

    def counted(self: reader.ShardReader, *arguments: Any) -> None:
        read_into(self, *arguments)
        read.release()

    monkeypatch.setattr(reader.ShardReader, "read_into", counted)
    with Loader(dataset, "val", batch_size=2, device=CPU) as loader:
        next(loader.epoch(0))
        for batch in range(1 + DALI_DEPTH + READ_AHEAD):
            assert read.acquire(timeout=PATIENCE_S), f"batch {batch} was not read ahead"


def test_splits_and_batches_that_cannot_work(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", labels={**LABELS, "val": [1]})
    with pytest.raises(DatasetError, match="no 'test' images: its splits are train, val"):
        Loader(dataset, "test", batch_size=4, device=CPU)
    with pytest.raises(ConfigError, match="batch size 0 is too small"):
        Loader(dataset, "val", batch_size=0, device=CPU)
    with pytest.raises(ConfigError, match="1 images: at least 2"):
        Loader(dataset, "val", batch_size=4, device=CPU, shuffle=True)


def test_parts_of_the_rows_only(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    parts = (Part(rows=8, used=8), Part(rows=13, used=4))
    with Loader(dataset, "train", batch_size=5, device=CPU, shuffle=True, parts=parts) as loader:
        check_epoch(loader, 0, images, labels, "cpu")
        check_epoch(loader, 1, images, labels, "cpu")
