"""Loading: normalized float32 batches and labels from stored images, this project against the reference."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import DatasetFolder

from benchmarks.measure import Contender, Stage, race, ratio
from pneumo_fast.loader import Loader
from pneumo_fast.shards import Dataset

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


class Normalize:
    """The reference's loader and transform: one ``.npy`` file to a normalized (1, H, W) float32 tensor."""

    def __init__(self, dataset: Dataset) -> None:
        self.scale, self.mean, self.std = dataset.scale, dataset.mean, dataset.std

    def __call__(self, path: str) -> torch.Tensor:
        """Read one file."""
        image = torch.from_numpy(np.load(path).astype(np.float32)) / self.scale
        return ((image - self.mean) / self.std).unsqueeze(0)


def reference_loader(folder: Dataset, *, batch_size: int, workers: int) -> DataLoader[tuple[torch.Tensor, int]]:
    """``DatasetFolder`` and ``DataLoader`` over the folder layout."""
    files = DatasetFolder(str(folder.path / "train"), loader=Normalize(folder), extensions=(".npy",))
    return DataLoader(files, batch_size=batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def load_stage(datasets: dict[str, Dataset], folder: Dataset, *, batch_size: int, runs: int) -> Stage:
    """Race the loaders; each run is one epoch over the train split.

    Parameters
    ----------
    datasets : dict
        Shards by stored data type.
    folder : Dataset
        The same images in the folder layout, float16.
    """
    images = len(folder.rows("train"))
    contenders: dict[str, Contender] = {}
    loaders = []
    for name, dataset in datasets.items():
        for device in _devices():
            loader = Loader(dataset, "train", batch_size=batch_size, device=device, shuffle=True)
            loaders.append(loader)
            contenders[f"pneumo-fast, DALI, {name}, {device.type}"] = _ours(loader, images, device)
    for workers in (0, 2):
        reference = reference_loader(folder, batch_size=batch_size, workers=workers)
        contenders[f"reference, DataLoader, {workers} workers"] = _theirs(reference, images)
    results = race(contenders, runs)
    for loader in loaders:
        loader.close()
    best = max((r for r in results if r.name.startswith("reference")), key=lambda r: r.median).name
    ratios = {
        f"{r.name} / reference": ratio(results, r.name, best) for r in results if r.name.startswith("pneumo-fast")
    }
    size = folder.size
    conditions = {"images": images, "size": f"{size} x {size}", "batch": batch_size, "page cache": "warm"}
    return Stage(name="load", conditions=conditions, results=results, ratios=ratios)


def _devices() -> list[torch.device]:
    return [torch.device("cpu"), *([torch.device("cuda", 0)] if torch.cuda.is_available() else [])]


def _ours(loader: Loader, images: int, device: torch.device) -> Contender:
    epochs = iter(range(1_000_000))

    def run() -> float:
        begin = time.perf_counter()
        count = sum(len(labels) for _, labels in loader.epoch(next(epochs)))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if count != images:
            raise RuntimeError(f"{count} images delivered, {images} expected")
        return images / (time.perf_counter() - begin)

    return run


def _theirs(loader: DataLoader[tuple[torch.Tensor, int]], images: int) -> Contender:
    def run() -> float:
        begin = time.perf_counter()
        count = sum(len(labels) for _, labels in loader)
        if count != images:
            raise RuntimeError(f"{count} images delivered, {images} expected")
        return images / (time.perf_counter() - begin)

    return run
