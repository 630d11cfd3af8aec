"""Loaders on every engine and device, and what an epoch of theirs has to be: that of plain NumPy."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import fields
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.vocabulary import EngineName
from tests.support.devices import NO_GPU
from tests.support.make_dataset import stored_images

T = TypeVar("T")
PATIENCE_S = 30.0
LOAD_OPTIONS = {f.name for f in fields(LoadConfig)}


class Place(NamedTuple):
    """An engine and where it works."""

    engine: EngineName
    device: str


PLACES = [Place("fused", "cpu"), Place("dali", "cpu"), Place("resident", "cpu")]
GPU_PLACES = [Place("dali", "cuda"), Place("resident", "cuda")]
EVERYWHERE = pytest.mark.parametrize(
    "place", [*PLACES, *(pytest.param(place, marks=[pytest.mark.gpu, NO_GPU]) for place in GPU_PLACES)], ids=" ".join
)
ENGINES = pytest.mark.parametrize(
    ("engine", "device"),
    [
        ("fused", "cpu"),
        ("resident", "cpu"),
        ("dali", "cpu"),
        *(pytest.param(engine, "cuda", marks=[pytest.mark.gpu, NO_GPU]) for engine in ("dali", "resident")),
    ],
)
STREAMING = pytest.mark.parametrize("place", PLACES[:2], ids=" ".join)


def load(dataset: Dataset, split: str, place: Place = PLACES[0], **options: Any) -> Loader:
    """A loader; options of its configuration and others in one go."""
    config = {name: options.pop(name) for name in LOAD_OPTIONS & options.keys()} | {"engine": place.engine}
    return Loader(dataset, split, LoadConfig(**config), device=torch.device(place.device, 0), **options)


def within(work: Callable[[], T]) -> T:
    """Do work in another thread and fail, rather than hang, when it takes too long."""
    with ThreadPool(1) as pool:
        return pool.apply_async(work).get(PATIENCE_S)


def collect(loader: Loader, epoch: int, batches: int | None = None) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """An epoch's batches (or its first ones) as copies, by an iterator that is then forgotten."""
    out = []
    for images, labels in loader.epoch(epoch):
        out.append((images.cpu().numpy().copy(), labels.cpu().numpy().copy()))
        if len(out) == batches:
            break
    return out


def check_pixels(found: NDArray[Any], expected: NDArray[Any], place: Place) -> None:
    """A GPU uses fused multiply-add (FMA): what is near the mean is off by what rounds the largest values."""
    if place.device == "cpu":
        np.testing.assert_array_max_ulp(found, expected, maxulp=2)
    else:
        atol = 2e-7 * float(np.abs(expected).max(initial=50.0))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol)


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


def resources() -> tuple[int, int]:
    """Threads of this process, native ones included, and open file descriptors."""
    return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))


def left_behind(before: tuple[int, int]) -> tuple[int, int]:
    """How many more threads and open file descriptors there are than before, once none or two seconds have passed.

    A joined thread lingers for a moment, among those before as well: fewer than before are no fault.
    """
    deadline = time.monotonic() + 2
    while True:
        threads, files = (max(now - then, 0) for now, then in zip(resources(), before, strict=True))
        if (threads, files) == (0, 0) or time.monotonic() > deadline:
            return threads, files
        gc.collect()  # an error holds on to DALI's frames
        time.sleep(0.01)


def memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
