"""What every engine has to deliver: the batches of plain NumPy, on every device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo_fast.loading.augment import Augmentation
from pneumo_fast.loading.batches import Order, Rank
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.loading.samplers import Part, Sequential, Shuffle
from pneumo_fast.vocabulary import EngineName, OrderName
from tests.support.augmented import GREY_LEVELS, TOLERANCE, augmented
from tests.support.loaders import (
    ENGINES,
    EVERYWHERE,
    PLACES,
    Place,
    check_epoch,
    check_pixels,
    collect,
    load,
    reference,
    within,
)
from tests.support.make_dataset import Dtype, Layout, make_dataset, stored_images
from tests.support.strategies import IN_PLACE


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
@pytest.mark.parametrize(("mean", "std"), [(0.123456789, 0.98765), (0.9999, 1e-3)])
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
    check_pixels(np.concatenate([found for found, _ in batches]), images, place)


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
def test_parts_of_the_rows_only(tmp_path: Path, place: Place) -> None:
    dataset = make_dataset(tmp_path / "d")
    images, labels = reference(dataset, "train", dataset.mean, dataset.std)
    parts = (Part(rows=8, used=8), Part(rows=13, used=4))
    with load(dataset, "train", place, batch_size=5, order="shuffle", parts=parts) as loader:
        check_epoch(loader, 0, images, labels, place)
        check_epoch(loader, 1, images, labels, place)


ORDERS: list[dict[str, Any]] = [
    {"order": "sequential"},
    {"order": "shuffle"},
    {"order": "shuffle", "parts": (Part(rows=8, used=8), Part(rows=13, used=5))},
    {"order": "weighted"},
    {"order": "weighted", "balance": "view"},
    {"order": "windowed", "window": 2},
]


@EVERYWHERE
@settings(IN_PLACE, max_examples=12)
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


@ENGINES
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("size", [17, 32])
def test_every_engine_delivers_the_reference(
    tmp_path: Path, engine: EngineName, device: str, dtype: Dtype, size: int
) -> None:
    dataset = make_dataset(tmp_path / "d", dtype=dtype, size=size)
    stored = stored_images(dataset, "train") / dataset.scale
    augmentation = Augmentation(strength="strong", flip=True, seed=5)
    config = LoadConfig(batch_size=4, order="shuffle", seed=5, engine=engine, augmentation=augmentation)
    with Loader(dataset, "train", config, device=torch.device(device, 0)) as loader:
        for epoch in (0, 1):
            for batch, (images, labels) in enumerate(loader.epoch(epoch)):
                rows = loader.order.rows(epoch, batch)
                expected = augmented(stored[rows], augmentation.draw(epoch, rows, size))
                found = images[:, 0].cpu().numpy() * dataset.std + dataset.mean
                assert images.shape == (len(rows), 1, size, size)
                assert images.dtype == torch.float32
                assert np.abs(found - expected).max() * GREY_LEVELS < TOLERANCE
                np.testing.assert_array_equal(labels.cpu(), dataset.rows("train")["label"][rows])
