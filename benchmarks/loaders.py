"""Everyone who takes part in the comparison of loaders, each in a process of its own.

    python -m benchmarks.loaders STORED.pickle NAME DEVICE BATCH_SIZE SETTING     (for benchmarks/load_stage.py)

A contender is a function that yields epochs without end, each an iterable of (images, labels): float32 (N, 1, size,
size), normalized, and float32 (N,), both on the device. Closing it frees what it holds. Peers that others make are in
:mod:`benchmarks.peers`.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.datasets import DatasetFolder

from benchmarks.inputs import Stored
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.vocabulary import Dtype, EngineName

Batch = tuple[torch.Tensor, torch.Tensor]
Epochs = Generator[Iterable[Batch], None, None]
Make = Callable[..., Epochs]
"""Of (stored, device, batch_size) and the setting's keywords."""

EVERY_BATCHES = 8  # in an epoch off the clock, between two looks at the memory


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


def on_device(batches: Iterable[Any], device: torch.device) -> Epochs:
    """Epochs of a loader that can be gone through again and again, moved to the device."""
    while True:
        yield (
            (images.to(device, non_blocking=True), labels.to(device, torch.float32, non_blocking=True))
            for images, labels in batches
        )


class Child:
    """The contender in this process, and what is asked of it."""

    def __init__(
        self, stored: Stored, make: Make, device: torch.device, batch_size: int, cold: str = "", **setting: Any
    ) -> None:
        """Begin; with ``cold``, after the files below that folder have been evicted from the page cache."""
        self.stored, self.device = stored, device
        self.expected = len(stored.folder.index)
        if cold:
            evict(Path(cold))
        begin = time.perf_counter()
        self.epochs = make(stored, device, batch_size, **setting)
        if cold:
            self.cold_rate = self.run(warm=False)["images"] / (time.perf_counter() - begin)
        else:
            self.first_batch_s = self._look(begin)

    def _look(self, begin: float) -> float:
        """Go through one epoch; check that the batches are what was asked for; seconds to the first of them."""
        first, count, total = 0.0, 0, 0.0
        self.peak_pss = 0
        for number, (images, labels) in enumerate(next(self.epochs)):
            first = first or time.perf_counter() - begin
            size = self.stored.folder.size
            kinds = images.dtype == labels.dtype == torch.float32 and images.device.type == self.device.type
            if not kinds or images.shape != (len(labels), 1, size, size) or labels.shape != (len(labels),):
                raise RuntimeError(f"{images.dtype} {tuple(images.shape)}, {labels.dtype} {tuple(labels.shape)}")
            count, total = count + len(labels), total + float(images.sum(dtype=torch.float64))
            if number % EVERY_BATCHES == 0:
                self.peak_pss = max(self.peak_pss, sum(map(_pss, family())))
        if count != self.expected:
            raise RuntimeError(f"an epoch had {count} images, {self.expected} expected")
        mean = total / (count * self.stored.folder.size**2)
        if abs(mean - self.stored.mean_normalized) > 1e-3:
            raise RuntimeError(f"the images' mean is {mean}, {self.stored.mean_normalized} expected")
        return first

    def run(self, *, least_s: float = 0.0, step_s: float = 0.0, warm: bool = True) -> dict[str, float]:
        """Whole epochs until so many seconds have passed, each batch followed by a step of ``step_s`` seconds.

        With ``warm`` after one off the clock: between two turns a system may take the files out of its page cache.
        """
        for batch, _labels in next(self.epochs) if warm else ():
            del batch
        batches, images, seconds, stepped_s, spent = 0, 0, 0.0, 0.0, cpu_seconds()
        begin = time.perf_counter()
        while not images or seconds < least_s:
            for batch, labels in next(self.epochs):
                images, batches = images + len(labels), batches + 1
                if step_s:
                    step_began = time.perf_counter()
                    time.sleep(step_s)
                    stepped_s += time.perf_counter() - step_began
                del batch
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds = time.perf_counter() - begin
        spent = cpu_seconds() - spent
        return {"images": images, "batches": batches, "seconds": seconds, "stepped_s": stepped_s, "cpu_s": spent}

    def rows(self, *, epochs: int) -> list[list[list[int]]]:
        """The rows of each epoch's batches, of images that carry them (:func:`benchmarks.inputs.store_numbered`)."""
        mean, std = self.stored.folder.mean, self.stored.folder.std
        found: list[list[list[int]]] = []
        for _ in range(epochs):
            found.append([])
            for images, _labels in next(self.epochs):
                digits = torch.round((images[:, 0, 0, :3].cpu() * std + mean) * 32).to(torch.int64)
                found[-1].append((digits[:, 0] * 1024 + digits[:, 1] * 32 + digits[:, 2]).tolist())
        return found


def evict(folder: Path) -> None:
    """Ask the system to forget the contents of all files below a folder."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def family() -> list[int]:
    """Process ids of this process and all below it."""
    found = [os.getpid()]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def _pss(process: int) -> int:
    """Proportional set size in bytes."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * int(text.split("Pss:")[1].split()[0])


def cpu_seconds() -> float:
    """Processor time of this process and all below it."""
    ticks = 0
    for process in family():
        try:
            values = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(values[11]) + int(values[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Serve: a line of JSON in, a call and its arguments; a line of JSON out, its result or the error."""
    from benchmarks.peers import PEERS

    path, name, device, batch_size, setting = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not pass for an answer
    with open(path, "rb") as file:  # noqa: PTH123
        stored = pickle.load(file)  # noqa: S301  # from load_stage, which started us
    child, request = None, ""
    make = OWN.get(name) or PEERS[name].make
    try:
        child = Child(stored, make, torch.device(device), int(batch_size), **json.loads(setting))
        about = {name: getattr(child, name, None) for name in ("first_batch_s", "peak_pss", "cold_rate")}
        print(json.dumps(about), file=answers, flush=True)
        for request in sys.stdin:
            call, arguments = json.loads(request)
            print(json.dumps(getattr(child, call)(**arguments)), file=answers, flush=True)
    except Exception as error:  # noqa: BLE001  # a peer may fail in any way; the others go on
        print(json.dumps({"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}), file=answers)
        answers.flush()
    finally:
        if child is not None:
            with closing(child.epochs):
                pass


OWN: dict[str, Make] = {
    "pneumo-fast": pneumo_fast,
    "DataLoader": data_loader,
    "memory map": memory_map,
    "float32 in RAM": float32_cache,
    "DALI readers.numpy": dali_files,
}


if __name__ == "__main__":
    main()
