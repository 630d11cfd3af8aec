"""Loading: normalized float32 batches and labels from stored images, this project against the reference.

A contender is one function that yields epochs, each an iterable of batches on the device; a line in
:func:`contenders` enters it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import DatasetFolder

from benchmarks.inputs import Stored
from benchmarks.measure import Contender, Result, Stage, Turn, race, ratio
from pneumo_fast.loader import LoadConfig, Loader
from pneumo_fast.options import Dtype
from pneumo_fast.shards import Dataset

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images (N, 1, size, size) float32, normalized, and labels (N,) float32, both on the device."""
Epochs = Generator[Iterable[Batch], None, None]
"""Epochs without end, each over all training images in a new order; closing it frees what it holds."""

OURS, REFERENCE = "pneumo-fast, DALI", "reference, DataLoader"


def contenders(stored: Stored, device: torch.device, batch_size: int) -> dict[str, Epochs]:
    """Everyone who takes part on a device, by name."""
    dtypes: tuple[Dtype, ...] = ("float16", "uint8")
    ours = {f"{OURS}, {dtype}": pneumo_fast(stored.shards[dtype], device, batch_size) for dtype in dtypes}
    return ours | {f"{REFERENCE}, {n} workers": data_loader(stored.folder, device, batch_size, n) for n in (0, 2)}


def pneumo_fast(dataset: Dataset, device: torch.device, batch_size: int) -> Epochs:
    """Shards through DALI, as ``train`` reads them."""
    with Loader(
        dataset, "train", LoadConfig(batch_size=batch_size, order="shuffle", engine="dali"), device=device
    ) as loader:
        for epoch in itertools.count():
            yield loader.epoch(epoch)


def data_loader(
    folder: Dataset, device: torch.device, batch_size: int, workers: int, *, drop_last: bool = False
) -> Epochs:
    """The reference: torchvision's ``DatasetFolder`` in PyTorch's ``DataLoader``, set as its documentation advises."""
    loader = DataLoader(
        DatasetFolder(str(folder.path / "train"), loader=Normalize(folder), extensions=(".npy",)),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        drop_last=drop_last,
    )
    while True:
        yield (
            (images.to(device, non_blocking=True), labels.to(device, torch.float32, non_blocking=True))
            for images, labels in loader
        )


class Normalize:
    """The reference's loader of one ``.npy`` file: a normalized (1, H, W) float32 tensor."""

    def __init__(self, dataset: Dataset) -> None:
        self.scale, self.mean, self.std = dataset.scale, dataset.mean, dataset.std

    def __call__(self, path: str) -> torch.Tensor:
        """Read one file."""
        image = torch.from_numpy(np.load(path).astype(np.float32)) / self.scale
        return ((image - self.mean) / self.std).unsqueeze(0)


def load_stage(stored: Stored, *, batch_size: int, runs: int, least_s: float) -> Stage:
    """Race the loaders; each turn is as many epochs over all training images as take ``least_s`` seconds."""
    expected = len(stored.folder.index)
    with ExitStack() as stack:
        turns: dict[str, Contender] = {}
        for device in devices():
            for name, epochs in contenders(stored, device, batch_size).items():
                stack.enter_context(closing(epochs))
                turns[f"{name}, {device.type}"] = _whole_epochs(epochs, device, expected, least_s)
        results = race(turns, runs)
    conditions = stored.about | {"batch": batch_size, "page cache": "warm"}
    return Stage(name="load", conditions=conditions, results=results, ratios=_ratios(results))


def devices() -> list[torch.device]:
    """The CPU, and a GPU where there is one."""
    return [torch.device("cpu"), *([torch.device("cuda", 0)] if torch.cuda.is_available() else [])]


def settle(device: torch.device) -> None:
    """Wait until the device has done all it was given: only then the clock may be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _whole_epochs(epochs: Epochs, device: torch.device, expected: int, least_s: float) -> Contender:
    def turn() -> Turn:
        images, seconds, begin = 0, 0.0, time.perf_counter()
        while not images or seconds < least_s:
            count = sum(len(labels) for _, labels in next(epochs))
            settle(device)
            seconds = time.perf_counter() - begin
            if count != expected:
                raise RuntimeError(f"an epoch had {count} images, {expected} expected")
            images += count
        return Turn(images=images, seconds=seconds)

    return turn


def _ratios(results: list[Result]) -> dict[str, float]:
    """Each contender over the better of the references on its device."""
    ratios: dict[str, float] = {}
    for device in devices():
        here = [result for result in results if result.name.endswith(f", {device.type}")]
        best = max((r for r in here if r.name.startswith(REFERENCE)), key=lambda result: result.median).name
        others = (result.name for result in here if not result.name.startswith(REFERENCE))
        ratios |= {f"{name} / best reference": ratio(here, name, best) for name in others}
    return ratios
