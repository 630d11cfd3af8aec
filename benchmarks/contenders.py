"""What all loaders in the comparison have in common: their types, and the images they share."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inputs import Stored

Batch = tuple[torch.Tensor, torch.Tensor]
Epochs = Generator[Iterable[Batch], None, None]
Make = Callable[..., Epochs]
"""Of (stored, device, batch_size) and the setting's keywords."""


def mapped(stored: Stored) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Images (n, size, size) in [0, 1] under a memory map of one file, which is written where missing; and labels."""
    dataset = stored.shards["float16"]
    path = dataset.path.parent / f"{dataset.path.name}-whole.npy"
    if not path.exists():
        shards = [np.load(dataset.path / name) for name in dict.fromkeys(dataset.index["shard"])]
        np.save(path, np.concatenate(shards))
    return np.load(path, mmap_mode="r"), dataset.index["label"].to_numpy(dtype=np.float32)


def normalized(images: NDArray[np.float16], mean: float, std: float) -> torch.Tensor:
    """Images (n, size, size) as a normalized float32 tensor (n, 1, size, size)."""
    return torch.from_numpy(images).unsqueeze(1).to(torch.float32).sub_(mean).mul_(1 / std)


def on_device(batches: Iterable[Any], device: torch.device) -> Epochs:
    """Epochs of a loader that can be gone through again and again, moved to the device."""
    while True:
        yield (
            (images.to(device, non_blocking=True), labels.to(device, torch.float32, non_blocking=True))
            for images, labels in batches
        )
