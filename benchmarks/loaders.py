"""Our loader and the plain references in the comparison; loaders that others make are in :mod:`benchmarks.peers`.

A contender is a function that yields epochs without end, each an iterable of (images, labels): float32 (N, 1, size,
size), normalized, and float32 (N,), both on the device. Closing it frees what it holds.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.datasets import DatasetFolder

from benchmarks.contenders import Batch, Epochs, Make, mapped, normalized, on_device
from benchmarks.inputs import Stored
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.vocabulary import Dtype, EngineName


def pneumo_fast(
    stored: Stored, device: torch.device, batch_size: int, *, engine: EngineName, dtype: Dtype = "float16"
) -> Epochs:
    """Ours."""
    config = LoadConfig(batch_size=batch_size, order="shuffle", engine=engine)
    with Loader(stored.shards[dtype], "train", config, device=device) as loader:
        for epoch in itertools.count():
            yield loader.epoch(epoch)


def data_loader(
    stored: Stored, device: torch.device, batch_size: int, *, workers: int, drop_last: bool = False
) -> Epochs:
    """The reference: torchvision's ``DatasetFolder`` in PyTorch's ``DataLoader``, set as its documentation advises."""
    images = DatasetFolder(str(stored.folder.path / "train"), loader=Normalize(stored.folder), extensions=(".npy",))
    return on_device(_loader(images, device, batch_size, workers, drop_last=drop_last), device)


def memory_map(stored: Stored, device: torch.device, batch_size: int, *, workers: int) -> Epochs:
    """One ``.npy`` under a memory map, a batch fetched at once (``__getitems__``)."""
    return on_device(_loader(Mapped(stored), device, batch_size, workers, collate_fn=_as_it_is), device)


def float32_cache(stored: Stored, device: torch.device, batch_size: int, *, workers: int) -> Epochs:
    """Normalized float32 tensors in RAM, one per image, as MONAI's ``CacheDataset`` keeps them."""
    images, labels = Mapped(stored).__getitems__(list(range(len(stored.folder.index))))
    cached = [(image.clone(), label) for image, label in zip(images, labels, strict=True)]
    return on_device(_loader(cached, device, batch_size, workers), device)


def dali_files(stored: Stored, device: torch.device, batch_size: int, *, threads: int) -> Epochs:
    """DALI's own reader of one ``.npy`` per image; it gives no labels, so a second one reads these from files."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    folder = stored.folder
    files, labels = _label_files(stored)

    @pipeline_def(batch_size=batch_size, num_threads=threads, device_id=device.index, seed=7)
    def pipeline() -> Any:
        shuffled: dict[str, Any] = {"random_shuffle": True, "initial_fill": min(1024, len(files)), "seed": 7}
        image = fn.readers.numpy(files=files, name="images", **shuffled)
        label = fn.readers.numpy(files=labels, **shuffled)
        image = fn.reshape(image, shape=[1, folder.size, folder.size], layout="CHW")
        image = image.gpu() if device.type == "cuda" else image
        mean, std = folder.mean * folder.scale, folder.std * folder.scale
        normalized = fn.crop_mirror_normalize(image, dtype=types.FLOAT, mean=[mean], std=[std], output_layout="CHW")
        return normalized, label.gpu() if device.type == "cuda" else label

    epochs = DALIGenericIterator(
        [pipeline()], ["images", "labels"], reader_name="images", last_batch_policy=LastBatchPolicy.PARTIAL,
        auto_reset=True,
    )  # fmt: skip
    while True:
        yield ((batch[0]["images"], batch[0]["labels"].flatten()) for batch in epochs)


def _label_files(stored: Stored) -> tuple[list[str], list[str]]:
    """Paths of the images, and of their labels, which are written where they are missing."""
    folder, index = stored.folder.path, stored.folder.index
    names = index["shard"].tolist()
    marks = folder.parent / f"{folder.name}-labels"
    marks.mkdir(exist_ok=True)
    labels = [marks / f"{number}.npy" for number in range(len(names))]
    for path, label in zip(labels, index["label"], strict=True):
        if not path.exists():
            np.save(path, np.array([label], dtype=np.float32))
    return [str(folder / name) for name in names], [str(path) for path in labels]


class Normalize:
    """The reference's loader of one ``.npy`` file: a normalized (1, H, W) float32 tensor."""

    def __init__(self, dataset: Dataset) -> None:
        self.scale, self.mean, self.std = dataset.scale, dataset.mean, dataset.std

    def __call__(self, path: str) -> torch.Tensor:
        """Read one file."""
        image = torch.from_numpy(np.load(path).astype(np.float32)) / self.scale
        return ((image - self.mean) / self.std).unsqueeze(0)


class Mapped(TorchDataset[Batch]):
    """All images in one memory map."""

    def __init__(self, stored: Stored) -> None:
        self.images, self.labels = mapped(stored)
        self.mean, self.std = stored.folder.mean, stored.folder.std

    def __len__(self) -> int:
        """Images."""
        return len(self.images)

    def __getitems__(self, rows: list[int]) -> Batch:
        """A batch at once."""
        return normalized(self.images[rows], self.mean, self.std), torch.from_numpy(self.labels[rows])


def _loader(data: Any, device: torch.device, batch_size: int, workers: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        data,
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        **options,
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch


OWN: dict[str, Make] = {
    "pneumo-fast": pneumo_fast,
    "DataLoader": data_loader,
    "memory map": memory_map,
    "float32 in RAM": float32_cache,
    "DALI readers.numpy": dali_files,
}
