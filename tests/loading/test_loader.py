"""A loader's epochs: where one begins and ends, its state, what it refuses, and that nothing of it stays behind."""

from __future__ import annotations

import gc
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pneumo_fast.dataset.selection import limit_images
from pneumo_fast.errors import ConfigError, DatasetError, DeviceError
from pneumo_fast.loading.augment import Augmentation
from pneumo_fast.loading.batches import Rank
from pneumo_fast.loading.engines.dali import DaliEngine
from pneumo_fast.loading.engines.fused import FusedEngine
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.loading.reader import ShardReader
from pneumo_fast.loading.samplers import Part
from pneumo_fast.vocabulary import EngineName
from tests.support.loaders import (
    ENGINES,
    EVERYWHERE,
    STREAMING,
    Place,
    check_epoch,
    collect,
    left_behind,
    load,
    memory,
    reference,
    resources,
    within,
)
from tests.support.make_dataset import LABELS, make_dataset


def test_a_single_image_left_over_joins_the_last_training_batch(tmp_path: Path) -> None:
    with load(make_dataset(tmp_path / "d"), "train", batch_size=4, order="shuffle") as loader:
        assert [len(marks) for _, marks in within(lambda: collect(loader, 0))] == [4, 4, 4, 4, 5]


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


def shift_rows(loader: Loader) -> None:
    """Make the reader look beyond the ends of the shards."""
    assert isinstance(loader._engine, FusedEngine | DaliEngine)
    reader = loader._engine._feed.reader
    assert isinstance(reader, ShardReader)
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
    assert left_behind(before) == (0, 0)


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


def test_splits_and_batches_that_cannot_work(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", labels={**LABELS, "val": [1]})
    with pytest.raises(DatasetError, match="no 'test' images: its splits are train, val"):
        load(dataset, "test", batch_size=4)
    with pytest.raises(ConfigError, match="batch size 0 is too small"):
        load(dataset, "val", batch_size=0)
    with pytest.raises(ConfigError, match="1 images: at least 2"):
        load(dataset, "val", batch_size=4, order="shuffle")


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


def test_a_state_of_other_images_is_refused_unless_it_does_not_say(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d")
    with load(limit_images(dataset, 10), "train", batch_size=4, order="shuffle") as loader:
        state = loader.state_dict()
    with load(dataset, "train", batch_size=4, order="shuffle") as loader:
        with pytest.raises(ConfigError, match="the loader's state has images "):
            loader.load_state_dict(state)
        del state["images"]  # as of an earlier release
        loader.load_state_dict(state)


@pytest.mark.parametrize("batch", [-1, 6])
def test_a_state_of_a_batch_that_no_epoch_has_is_refused(tmp_path: Path, batch: int) -> None:
    with load(make_dataset(tmp_path / "d"), "train", batch_size=4, order="shuffle") as loader:
        state = loader.state_dict()
        loader.load_state_dict(state | {"batch": 5})
        with pytest.raises(ConfigError, match=f"has batch {batch}, an epoch of this loader has 5"):
            loader.load_state_dict(state | {"batch": batch})


def test_a_loader_outlives_its_pipeline_which_dali_takes_down_as_the_process_ends(tmp_path: Path) -> None:
    loader = load(make_dataset(tmp_path / "d"), "train", Place("dali", "cpu"), batch_size=4, order="shuffle")
    next(loader.epoch(0))
    assert isinstance(loader._engine, DaliEngine)
    loader._engine._pipeline._shutdown()
    loader.close()


@pytest.mark.parametrize(("share", "engine"), [(0.0, "fused"), (0.9, "resident")])
def test_auto_on_a_cpu(tmp_path: Path, share: float, engine: str) -> None:
    config = LoadConfig(batch_size=4, resident_share=share)
    with Loader(make_dataset(tmp_path / "d"), "val", config, device=torch.device("cpu")) as loader:
        assert loader.engine == engine


def test_more_processes_than_images_in_a_batch(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch size 2 for 4 processes: at least one image each expected"):
        load(make_dataset(tmp_path / "d"), "train", batch_size=2, order="shuffle", rank=Rank(world_size=4))


@pytest.mark.parametrize("parts", [(Part(rows=200, used=200),), (Part(rows=21, used=22),)])
def test_parts_of_other_data(tmp_path: Path, parts: tuple[Part, ...]) -> None:
    with pytest.raises(ConfigError, match="are not those of 21 images"):
        load(make_dataset(tmp_path / "d"), "train", batch_size=2, order="shuffle", parts=parts)


@pytest.mark.parametrize("order", ["sequential", "weighted", "windowed"])
def test_shares_are_for_the_shuffled_order_alone(tmp_path: Path, order: str) -> None:
    with pytest.raises(ConfigError, match=f"order {order} with shares of several datasets: only shuffle can take"):
        load(make_dataset(tmp_path / "d"), "train", batch_size=2, order=order, parts=(Part(rows=21, used=9),))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
@pytest.mark.parametrize("engine", ["dali", "resident", "auto"])
def test_a_gpu_that_is_not_there(tmp_path: Path, engine: EngineName) -> None:
    with pytest.raises(DeviceError, match="device 'cuda:0' is asked for, but 0 GPUs are visible"):
        load(make_dataset(tmp_path / "d"), "val", Place(engine, "cuda"), batch_size=4)


@pytest.mark.parametrize("options", [{"order": "weighted", "balance": "colour"}, {"order": "windowed", "window": 0}])
def test_orders_that_cannot_be(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"no column 'colour' to balance|window 0: at least 1 shard"):
        load(make_dataset(tmp_path / "d"), "train", batch_size=4, **options)


@EVERYWHERE
def test_forty_epochs_hold_memory_flat(tmp_path: Path, place: Place) -> None:
    """A batch is 1 MB, so a batch kept in every epoch would show."""
    dataset = make_dataset(tmp_path / "d", size=128)
    with load(dataset, "train", place, batch_size=16, order="shuffle") as loader:
        for epoch in range(20):
            list(loader.epoch(epoch))
        before = memory()
        for epoch in range(40):
            list(loader.epoch(epoch))
        assert memory() - before < 16 << 20


@EVERYWHERE
def test_twenty_loaders_leave_nothing_behind(tmp_path: Path, place: Place) -> None:
    """A batch is 1 MB, so a loader that keeps its batches would show."""
    dataset = make_dataset(tmp_path / "d", size=128)

    def once() -> None:
        with load(dataset, "train", place, batch_size=16, order="shuffle") as loader:
            next(loader.epoch(0))

    for _ in range(5):
        once()
    gc.collect()
    before, held = resources(), memory()
    for _ in range(20):
        once()
    gc.collect()
    assert left_behind(before) == (0, 0)
    assert memory() - held < 16 << 20


@ENGINES
def test_ranks_and_a_resume_change_images_alike(tmp_path: Path, engine: EngineName, device: str) -> None:
    dataset = make_dataset(tmp_path / "d", size=17)
    config = LoadConfig(
        batch_size=8, order="shuffle", engine=engine, augmentation=Augmentation(strength="light", seed=1)
    )
    place = torch.device(device, 0)
    with Loader(dataset, "train", config, device=place) as loader:
        whole = [images.cpu().clone() for images, _ in loader.epoch(2)]
        next(loader.epoch(2))
        state = loader.state_dict()
    for number in (0, 1):
        rank = Rank(number=number, world_size=2)
        with Loader(dataset, "train", config, device=place, rank=rank) as loader:
            loader.load_state_dict(state)
            for batch, (images, _) in enumerate(loader.epoch(2), start=1):
                expected = rank.share(np.arange(len(whole[batch])))
                torch.testing.assert_close(images.cpu(), whole[batch][expected], rtol=0, atol=1e-5)


def test_a_state_of_another_augmentation_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d")
    plain = LoadConfig(batch_size=8, order="shuffle")
    changed = replace(plain, augmentation=Augmentation(strength="light"))
    with Loader(dataset, "train", plain, device=torch.device("cpu")) as loader:
        state = json.loads(json.dumps(loader.state_dict()))
    with Loader(dataset, "train", changed, device=torch.device("cpu")) as loader:
        with pytest.raises(ConfigError, match="augmentation"):
            loader.load_state_dict(state)
        loader.load_state_dict(json.loads(json.dumps(loader.state_dict())))
