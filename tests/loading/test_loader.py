"""The loader against plain NumPy, on every device, and whatever can happen to it in the middle of an epoch."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import fields
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import ConfigError, DatasetError, DeviceError
from pneumo_fast.loading import reader
from pneumo_fast.loading.augment import Augmentation
from pneumo_fast.loading.engines import resident
from pneumo_fast.loading.engines.base import READ_AHEAD
from pneumo_fast.loading.engines.dali import DALI_DEPTH, DaliEngine
from pneumo_fast.loading.engines.fused import FusedEngine
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.loading.order import Order, Rank
from pneumo_fast.loading.samplers import Part, Sequential, Shuffle
from pneumo_fast.vocabulary import EngineName, OrderName
from tests.support.make_dataset import LABELS, Dtype, Layout, make_dataset, stored_images

T = TypeVar("T")
PATIENCE_S = 30.0


LOAD_OPTIONS = {f.name for f in fields(LoadConfig)}


class Place(NamedTuple):
    """An engine and where it works."""

    engine: EngineName
    device: str


PLACES = [Place("fused", "cpu"), Place("dali", "cpu"), Place("resident", "cpu")]
GPU_PLACES = [Place("dali", "cuda"), Place("resident", "cuda")]
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
EVERYWHERE = pytest.mark.parametrize(
    "place", [*PLACES, *(pytest.param(place, marks=[pytest.mark.gpu, NO_GPU]) for place in GPU_PLACES)], ids=" ".join
)
STREAMING = pytest.mark.parametrize("place", PLACES[:2], ids=" ".join)


def load(dataset: Dataset, split: str, place: Place = PLACES[0], **options: Any) -> Loader:
    """A loader; options of its configuration and others in one go."""
    config = {name: options.pop(name) for name in LOAD_OPTIONS & options.keys()} | {"engine": place.engine}
    return Loader(dataset, split, LoadConfig(**config), device=torch.device(place.device, 0), **options)


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


def check_pixels(found: NDArray[Any], expected: NDArray[Any], place: Place) -> None:
    if place.device == "cpu":
        np.testing.assert_array_max_ulp(found, expected, maxulp=2)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def reference(dataset: Dataset, split: str, mean: float, std: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """All images of a split (n, 1, size, size), normalized in float32, and their labels, in storage order."""
    stored = stored_images(dataset, split)[:, None].astype(np.float32)
    shift, factor = np.float32(mean * dataset.scale), np.float32(1 / (std * dataset.scale))
    return (stored - shift) * factor, dataset.rows(split)["label"].to_numpy(np.float32)


def check_epoch(
    loader: Loader, epoch: int, images: NDArray[Any], labels: NDArray[Any], place: Place = PLACES[0]
) -> None:
    """Hold a whole epoch against a reference in storage order."""
    batches = within(lambda: collect(loader, epoch))
    assert len(batches) == len(loader)
    for batch, (found, marks) in enumerate(batches):
        rows = loader.order.rows(epoch, batch)
        assert found.dtype == marks.dtype == np.float32
        np.testing.assert_array_equal(marks, labels[rows])
        check_pixels(found, images[rows], place)


@EVERYWHERE
@pytest.mark.parametrize("order", ["shuffle", "sequential"])
@pytest.mark.parametrize("layout", ["shards", "folder"])
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_two_epochs_are_those_of_plain_numpy(
    tmp_path: Path, place: Place, dtype: Dtype, layout: Layout, order: OrderName
) -> None:
    dataset = make_dataset(tmp_path / "d", dtype=dtype, layout=layout, size=9)
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    with load(dataset, "train", place, batch_size=4, order=order, seed=3) as loader:
        sampler = Shuffle(len(labels), 3) if order == "shuffle" else Sequential(len(labels))
        assert loader.order == Order(sampler=sampler, batch_size=4, training=order == "shuffle")
        for epoch in (0, 1):
            check_epoch(loader, epoch, images, labels, place)


@EVERYWHERE
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 1.0), (0.123456789, 0.98765), (0.9999, 1e-3), (1 / 3, 1 / 7), (0.5, 0.25)]
)
def test_the_normalization_can_be_another_than_the_dataset_s(
    tmp_path: Path, place: Place, dtype: Dtype, mean: float, std: float
) -> None:
    dataset = make_dataset(tmp_path / "d", dtype=dtype, size=32)
    images, labels = reference(dataset, "val", mean, std)
    with load(dataset, "val", place, batch_size=5, normalization=(mean, std)) as loader:
        check_epoch(loader, 0, images, labels, place)


@EVERYWHERE
def test_every_float16_value_arrives_as_it_is_stored(tmp_path: Path, place: Place) -> None:
    """All 15,361 of them in [0, 1], the subnormal ones too, with mean 0 and standard deviation 1."""
    dataset = make_dataset(tmp_path / "d", labels={"train": [0, 1], "val": [0]}, size=124, shard_rows=1)
    every = np.zeros(124 * 124, np.float16)
    every[:15361] = np.arange(15361, dtype=np.uint16).view(np.float16)
    shard = tmp_path / "d" / "val-00000.npy"
    np.save(shard, every.reshape(1, 124, 124))
    with load(dataset, "val", place, batch_size=1, normalization=(0.0, 1.0)) as loader:
        ((images, _),) = within(lambda: collect(loader, 0))
    np.testing.assert_array_equal(images.ravel(), every.astype(np.float32))


@EVERYWHERE
def test_the_last_batch_is_partial_and_every_image_comes_once(tmp_path: Path, place: Place) -> None:
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "val", dataset.mean, dataset.std)
    with load(dataset, "val", place, batch_size=5) as loader:
        batches = within(lambda: collect(loader, 0))
    assert [len(marks) for _, marks in batches] == [5, 5, 3]
    assert batches[-1][0].shape == (3, 1, 8, 8)
    np.testing.assert_array_equal(np.concatenate([marks for _, marks in batches]), labels)
    np.testing.assert_array_max_ulp(np.concatenate([found for found, _ in batches]), images, maxulp=2)


def test_a_single_image_left_over_joins_the_last_training_batch(tmp_path: Path) -> None:
    with load(make_dataset(tmp_path / "d"), "train", batch_size=4, order="shuffle") as loader:
        assert [len(marks) for _, marks in within(lambda: collect(loader, 0))] == [4, 4, 4, 4, 5]


@EVERYWHERE
def test_a_batch_stays_as_it_was_until_the_next_is_asked_for(tmp_path: Path, place: Place) -> None:
    """The reading thread, meanwhile, fills whatever memory it takes for free."""
    dataset = make_dataset(tmp_path / "d", labels={"train": [0, 1] * 40, "val": [0]})
    with load(dataset, "train", place, batch_size=4, order="shuffle") as loader:
        for images, labels in loader.epoch(0):
            before = images.clone(), labels.clone()
            time.sleep(0.01)
            assert torch.equal(images, before[0])
            assert torch.equal(labels, before[1])


@EVERYWHERE
@pytest.mark.parametrize("batches", [1, 2, 4])
def test_an_epoch_left_in_the_middle_leaves_no_trace_in_the_next(tmp_path: Path, place: Place, batches: int) -> None:
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    with load(dataset, "train", place, batch_size=4, order="shuffle") as loader:
        for epoch in range(3):
            within(lambda: collect(loader, 7, batches))
            check_epoch(loader, epoch, images, labels, place)


@EVERYWHERE
def test_an_epoch_under_way_ends_when_the_next_begins(tmp_path: Path, place: Place) -> None:
    """Though somebody still holds on to it."""
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    with load(dataset, "train", place, batch_size=4, order="shuffle") as loader:
        held = loader.epoch(0)
        next(held)
        check_epoch(loader, 1, images, labels, place)
        assert list(held) == []
        check_epoch(loader, 2, images, labels, place)


@EVERYWHERE
def test_two_loaders_do_not_disturb_each_other(tmp_path: Path, place: Place) -> None:
    dataset = make_dataset(tmp_path / "d")
    with (
        load(dataset, "train", place, batch_size=4, order="shuffle") as one,
        load(dataset, "train", place, batch_size=4, order="shuffle") as other,
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


@STREAMING
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
def test_a_shard_missing_from_the_start(tmp_path: Path, place: Place) -> None:
    dataset = make_dataset(tmp_path / "d")
    (tmp_path / "d" / "val-00000.npy").unlink()
    with (
        load(dataset, "val", place, batch_size=4) as loader,
        pytest.raises(DatasetError, match=r"val-00000\.npy cannot be opened \(No such file or directory\)"),
    ):
        within(lambda: collect(loader, 0))


@STREAMING
def test_a_shard_that_comes_back(tmp_path: Path, place: Place) -> None:
    """An error ends the epoch it happened in, not the loader."""
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "val", dataset.mean, dataset.std)
    shard, away = tmp_path / "d" / "val-00002.npy", tmp_path / "away.npy"
    with load(dataset, "val", place, batch_size=4) as loader:
        shard.rename(away)
        with pytest.raises(DatasetError, match="cannot be opened"):
            within(lambda: collect(loader, 0))
        away.rename(shard)
        check_epoch(loader, 0, images, labels, place)


@STREAMING
def test_reading_that_fails_in_a_way_nobody_thought_of_is_no_hang(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader.ShardReader, "locate", lambda *_: 1 / 0)
    with (
        load(make_dataset(tmp_path / "d"), "val", place, batch_size=4) as loader,
        pytest.raises(ZeroDivisionError),
    ):
        within(lambda: collect(loader, 0))


def resources() -> tuple[int, int]:
    """Threads of this process, native ones included, and open file descriptors."""
    return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))


def shift_rows(loader: Loader) -> None:
    """Make the reader look beyond the ends of the shards."""
    assert isinstance(loader._engine, FusedEngine | DaliEngine)
    reader = loader._engine._feed.reader
    reader._row = reader._row + 99


@pytest.mark.parametrize("use", ["whole", "middle", "held", "unused", "error"])
@STREAMING
def test_a_closed_loader_leaves_no_thread_and_no_file_open(tmp_path: Path, place: Place, use: str) -> None:
    dataset = make_dataset(tmp_path / "d", layout="folder")
    kept = []

    def once() -> None:
        loader = load(dataset, "train", place, batch_size=4, order="shuffle")
        kept.append(loader)
        held = loader.epoch(0)
        if use == "whole":
            list(held)
        elif use in {"middle", "held"}:
            next(held)
            if use == "middle":
                held.close()
        elif use == "error":
            shift_rows(loader)
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


@EVERYWHERE
def test_an_error_in_the_consumer_closes_the_loader_cleanly(tmp_path: Path, place: Place) -> None:
    """The traceback holds the epoch, half-way, while the loader is closed."""
    dataset = make_dataset(tmp_path / "d")

    def consume() -> None:
        with load(dataset, "train", place, batch_size=2, order="shuffle") as loader:
            for _ in loader.epoch(0):
                raise KeyError("the consumer's own")

    with pytest.raises(KeyError, match="the consumer's own"):
        within(consume)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pneumo-fast-read")]


@STREAMING
def test_more_shards_than_files_may_be_open(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "openable_files", lambda _: 3)
    dataset = make_dataset(tmp_path / "d", layout="folder")
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    files = resources()[1]
    with load(dataset, "train", place, batch_size=4, order="shuffle") as loader:
        check_epoch(loader, 0, images, labels, place)
        loader._engine.end()  # it reads the next epoch's first batches already
        assert resources()[1] == files + 3


@STREAMING
def test_the_wait_is_measured(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path / "d")
    locate = reader.ShardReader.locate

    def slowly(self: reader.ShardReader, *arguments: Any) -> reader.Places:
        time.sleep(0.05)
        return locate(self, *arguments)

    with load(dataset, "train", place, batch_size=2, order="shuffle") as loader:
        within(lambda: collect(loader, 0))
        quick = loader.wait_s
        monkeypatch.setattr(reader.ShardReader, "locate", slowly)
        begin = time.perf_counter()
        within(lambda: collect(loader, 1))
        seconds = time.perf_counter() - begin
        assert 0 < quick < 0.2
        assert 0.05 <= loader.wait_s <= seconds  # of ten batches, half of them read ahead, two threads
        assert 0.01 <= loader.longest_wait_s <= loader.wait_s


@STREAMING
def test_reading_goes_on_while_the_consumer_works(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a slow read and a slow step take the longer of the two times, not their sum."""
    dataset = make_dataset(tmp_path / "d", labels={"train": [0, 1], "val": [0, 1] * 20})
    locate, read = reader.ShardReader.locate, threading.Semaphore(0)

    def counted(self: reader.ShardReader, *arguments: Any) -> reader.Places:
        read.release()
        return locate(self, *arguments)

    monkeypatch.setattr(reader.ShardReader, "locate", counted)
    with load(dataset, "val", place, batch_size=2) as loader:
        next(loader.epoch(0))
        for batch in range(1 + READ_AHEAD + (DALI_DEPTH if place.engine == "dali" else 0)):
            assert read.acquire(timeout=PATIENCE_S), f"batch {batch} was not read ahead"


def test_splits_and_batches_that_cannot_work(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", labels={**LABELS, "val": [1]})
    with pytest.raises(DatasetError, match="no 'test' images: its splits are train, val"):
        load(dataset, "test", batch_size=4)
    with pytest.raises(ConfigError, match="batch size 0 is too small"):
        load(dataset, "val", batch_size=0)
    with pytest.raises(ConfigError, match="1 images: at least 2"):
        load(dataset, "val", batch_size=4, order="shuffle")


@EVERYWHERE
def test_parts_of_the_rows_only(tmp_path: Path, place: Place) -> None:
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    parts = (Part(rows=8, used=8), Part(rows=13, used=4))
    with load(dataset, "train", place, batch_size=5, order="shuffle", parts=parts) as loader:
        check_epoch(loader, 0, images, labels, place)
        check_epoch(loader, 1, images, labels, place)


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


# ---- the same batches, whoever makes them and wherever one begins


ORDERS: list[dict[str, Any]] = [
    {"order": "sequential"},
    {"order": "shuffle"},
    {"order": "shuffle", "parts": (Part(rows=8, used=8), Part(rows=13, used=5))},
    {"order": "weighted"},
    {"order": "weighted", "balance": "view"},
    {"order": "windowed", "window": 2},
]


@EVERYWHERE
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    options=st.sampled_from(ORDERS),
    dtype=st.sampled_from(["float16", "uint8"]),
    world=st.integers(1, 4),
    batch_size=st.integers(4, 13),
    epoch=st.integers(0, 3),
    data=st.data(),
)
def test_all_engines_deliver_the_rows_of_the_order(
    tmp_path_factory: pytest.TempPathFactory,
    place: Place,
    options: dict[str, Any],
    dtype: Dtype,
    world: int,
    batch_size: int,
    epoch: int,
    data: st.DataObject,
) -> None:
    """For every order, data type, number of processes and point of resumption: the batches of plain NumPy."""
    dataset = make_dataset(tmp_path_factory.mktemp("d") / "d", dtype=dtype, size=9)
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    options = options | {"batch_size": batch_size, "seed": 5}
    with load(dataset, "train", **options) as whole:
        order = whole.order
    first = data.draw(st.integers(0, len(order)))
    for number in range(world):
        rank = Rank(number=number, world_size=world)
        with load(dataset, "train", place, rank=rank, **options) as loader:
            loader.load_state_dict({**loader.state_dict(), "epoch": epoch, "batch": first})
            batches = within(lambda loader=loader: collect(loader, epoch))  # type: ignore[misc]
        assert len(batches) == len(order) - first
        for batch, (found, marks) in enumerate(batches, start=first):
            rows = rank.share(order.rows(epoch, batch))
            np.testing.assert_array_equal(marks, labels[rows])
            check_pixels(found, images[rows], place)


def test_the_shares_of_all_processes_are_the_batch() -> None:
    rows = np.arange(10)
    for world in range(1, 14):
        shares = [Rank(number=number, world_size=world).share(rows) for number in range(world)]
        assert np.concatenate(shares).tolist() == rows.tolist()
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("number", "world_size", "message"),
    [(0, 0, "world size 0"), (2, 2, "rank 2 of a world of 2: 0 to 1"), (-1, 2, "rank -1")],
)
def test_ranks_that_are_none(number: int, world_size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rank(number=number, world_size=world_size)


@EVERYWHERE
def test_a_state_taken_in_the_middle_goes_on_at_the_next_batch(tmp_path: Path, place: Place) -> None:
    dataset = make_dataset(tmp_path / "d")
    with load(dataset, "train", place, batch_size=4, order="shuffle") as loader:
        whole = within(lambda: collect(loader, 3))
        within(lambda: collect(loader, 3, 2))
        state = json.loads(json.dumps(loader.state_dict()))  # as a checkpoint keeps it
    with load(dataset, "train", place, batch_size=4, order="shuffle") as loader:
        loader.load_state_dict(state)
        rest = within(lambda: collect(loader, 3))
        again = within(lambda: collect(loader, 3))
    for found, expected in ((rest, whole[2:]), (again, whole)):
        assert len(found) == len(expected)
        for (images, labels), (expected_images, expected_labels) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(images, expected_images)
            np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize("change", [{"batch_size": 5}, {"seed": 1}, {"order": "windowed"}, {"window": 9}])
def test_a_state_of_other_batches_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    dataset = make_dataset(tmp_path / "d")
    options: dict[str, Any] = {"batch_size": 4, "order": "shuffle"}
    with load(dataset, "train", **options) as loader:
        state = loader.state_dict()
    message = f"the loader's state has {next(iter(change))} "
    with load(dataset, "train", **(options | change)) as other, pytest.raises(ConfigError, match=message):
        other.load_state_dict(state)


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("augmentation", [None, Augmentation(strength="strong", flip=True)], ids=["plain", "changed"])
def test_the_engine_for_gpus_delivers_the_same_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Dtype, augmentation: Augmentation | None
) -> None:
    """Nothing in it but the device's name is the GPU's own."""
    dataset = make_dataset(tmp_path / "d", dtype=dtype, size=32)
    options: dict[str, Any] = {"batch_size": 4, "order": "shuffle", "augmentation": augmentation}
    with load(dataset, "train", **options) as loader:
        expected = [collect(loader, epoch) for epoch in (0, 1)]
    monkeypatch.setattr(resident, "MemoryEngine", resident.DeviceEngine)
    with load(dataset, "train", Place("resident", "cpu"), **options) as loader:
        for epoch in (0, 1):
            for (images, labels), (expected_images, expected_labels) in zip(
                collect(loader, epoch), expected[epoch], strict=True
            ):
                np.testing.assert_array_equal(labels, expected_labels)
                np.testing.assert_allclose(images, expected_images, rtol=1e-5, atol=1e-5)


# ---- which engine, and what cannot be


@pytest.mark.parametrize(("share", "engine"), [(0.0, "fused"), (0.9, "resident")])
def test_auto_on_a_cpu(tmp_path: Path, share: float, engine: str) -> None:
    config = LoadConfig(batch_size=4, resident_share=share)
    with Loader(make_dataset(tmp_path / "d"), "val", config, device=torch.device("cpu")) as loader:
        assert loader.engine == engine


def test_a_split_that_does_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "device_memory", lambda _: (100, 10**9))
    with pytest.raises(
        DeviceError, match=r"the split takes 0\.0 GB, and 0\.0 GB are free on cpu.*: give another --loader"
    ):
        load(make_dataset(tmp_path / "d"), "val", Place("resident", "cpu"), batch_size=4)


@STREAMING
def test_an_interrupted_wait_spoils_nothing(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a read is slow: what it reads must not end up in a batch of a later epoch."""
    dataset = make_dataset(tmp_path / "d")
    locate, result, fresh = reader.ShardReader.locate, Future.result, [True]
    naps = iter([0.3])

    def slowly(self: reader.ShardReader, *arguments: Any) -> reader.Places:
        time.sleep(next(naps, 0))
        return locate(self, *arguments)

    def interrupted(self: Future[None], *arguments: Any) -> None:
        if fresh.pop():
            monkeypatch.undo()
            raise KeyboardInterrupt
        result(self, *arguments)

    with load(dataset, "train", place, batch_size=2, order="shuffle") as loader:
        monkeypatch.setattr(reader.ShardReader, "locate", slowly)
        monkeypatch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(loader.epoch(0))
        found = []
        for images, labels in loader.epoch(5):
            time.sleep(0.1)  # meanwhile the slow read comes to its end
            found.append((images.numpy().copy(), labels.numpy().copy()))
    with load(dataset, "train", place, batch_size=2, order="shuffle") as loader:
        for batch, expected in zip(found, collect(loader, 5), strict=True):
            np.testing.assert_array_equal(batch[0], expected[0])
            np.testing.assert_array_equal(batch[1], expected[1])


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


def test_more_processes_than_images_in_a_batch(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch size 2 for 4 processes: at least one image each expected"):
        load(make_dataset(tmp_path / "d"), "train", batch_size=2, order="shuffle", rank=Rank(world_size=4))


@pytest.mark.parametrize("parts", [(Part(rows=200, used=200),), (Part(rows=21, used=22),)])
def test_parts_of_other_data(tmp_path: Path, parts: tuple[Part, ...]) -> None:
    with pytest.raises(ConfigError, match="are not those of 21 images"):
        load(make_dataset(tmp_path / "d"), "train", batch_size=2, order="shuffle", parts=parts)


def test_a_loader_that_fails_to_open_leaves_no_file_open(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d")
    last = dataset.path / dataset.rows("train")["shard"].iloc[-1]
    last.write_bytes(last.read_bytes()[:-10])
    before = resources()[1]
    for _ in range(3):
        with pytest.raises(DatasetError, match="was cut short"):
            load(dataset, "train", Place("resident", "cpu"), batch_size=4, order="shuffle")
    assert resources()[1] == before


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_pytorchs_defaults_change_nothing(tmp_path: Path, place: Place) -> None:
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    torch.set_default_dtype(torch.float64)
    try:
        with load(dataset, "train", place, batch_size=4, order="shuffle") as loader:
            check_epoch(loader, 0, images, labels, place)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
@pytest.mark.parametrize("engine", ["dali", "resident", "auto"])
def test_a_gpu_that_is_not_there(tmp_path: Path, engine: EngineName) -> None:
    with pytest.raises(DeviceError, match="device 'cuda:0' is asked for, but 0 GPUs are visible"):
        load(make_dataset(tmp_path / "d"), "val", Place(engine, "cuda"), batch_size=4)


def test_the_fused_engine_is_for_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumo_fast.loading.loader.resolve_device", torch.device)
    with pytest.raises(ConfigError, match="engine fused on cuda:0: it is for CPUs"):
        load(make_dataset(tmp_path / "d"), "val", Place("fused", "cuda"), batch_size=4)


def test_without_dali(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path / "d")
    monkeypatch.delitem(sys.modules, "pneumo_fast.loading.engines.dali")
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(DeviceError, match=r"DALI cannot be imported .* or give --loader fused or resident"):
        load(dataset, "val", Place("dali", "cpu"), batch_size=4)
    with load(dataset, "val", batch_size=4) as loader:
        assert len(collect(loader, 0)) == 4


@pytest.mark.parametrize("options", [{"order": "weighted", "balance": "colour"}, {"order": "windowed", "window": 0}])
def test_orders_that_cannot_be(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"no column 'colour' to balance|window 0: at least 1 shard"):
        load(make_dataset(tmp_path / "d"), "train", batch_size=4, **options)


# ---- nothing grows


def memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@EVERYWHERE
def test_a_hundred_epochs_hold_memory_flat(tmp_path: Path, place: Place) -> None:
    """A batch is 1 MB, so a batch kept in every epoch would show."""
    dataset = make_dataset(tmp_path / "d", size=128)
    with load(dataset, "train", place, batch_size=16, order="shuffle") as loader:
        for epoch in range(20):
            list(loader.epoch(epoch))
        before = memory()
        for epoch in range(100):
            list(loader.epoch(epoch))
        assert memory() - before < 16 << 20


@EVERYWHERE
def test_fifty_loaders_leave_nothing_behind(tmp_path: Path, place: Place) -> None:
    dataset = make_dataset(tmp_path / "d", size=64)

    def once() -> None:
        with load(dataset, "train", place, batch_size=16, order="shuffle") as loader:
            next(loader.epoch(0))

    for _ in range(5):
        once()
    gc.collect()
    files, before = resources(), memory()
    for _ in range(50):
        once()
    gc.collect()
    assert settled(files) == files
    assert memory() - before < 16 << 20
