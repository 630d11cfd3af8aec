"""Loaders that other people make, each as its documentation advises, with float16 on disk where it keeps arrays.

A peer that is not installed is listed with the reason. None of them is a dependency: the extra ``peers`` brings those
that pip can install.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.contenders import Batch, Epochs, Make, mapped, normalized, on_device
from benchmarks.inputs import Stored


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A loader somebody else makes."""

    package: str
    module: str
    make: Make
    prepare: Callable[[Stored, Path], None]
    """Writes the images in the peer's own format below a folder."""
    settings: tuple[dict[str, Any], ...] = field(default=({},))
    """What is tried; the fastest takes part."""
    needs: str = ".venv/bin/pip install -e '.[peers]'"
    """How to get it."""

    def absent(self) -> str:
        """Why it cannot take part; empty if it can."""
        try:
            importlib.import_module(self.module)
        except Exception as error:  # noqa: BLE001  # whatever stops an import is the reason
            return f"{type(error).__name__}: {str(error).splitlines()[0][:120]} ({self.needs})"
        return ""

    @property
    def version(self) -> str:
        """The installed version."""
        return importlib.metadata.version(self.package)


def _folder(stored: Stored, name: str) -> Path:
    return stored.folder.path.parent / f"peer-{name}"


def _rows(stored: Stored) -> Iterator[tuple[np.ndarray[Any, Any], float]]:
    images, labels = mapped(stored)
    for image, label in zip(images, labels, strict=True):
        yield np.array(image), float(label)


def _collate(samples: list[tuple[np.ndarray[Any, Any], float]], mean: float, std: float) -> Batch:
    images = np.stack([image for image, _ in samples])
    return normalized(images, mean, std), torch.tensor([label for _, label in samples], dtype=torch.float32)


class Collate:
    """Stack stored images and normalize them together; can be sent to worker processes."""

    def __init__(self, stored: Stored, image: Any = 0, label: Any = 1) -> None:
        self.mean, self.std = stored.folder.mean, stored.folder.std
        self.image, self.label = image, label

    def __call__(self, samples: list[Any]) -> Batch:
        """One batch."""
        return _collate([(np.asarray(s[self.image]), float(s[self.label])) for s in samples], self.mean, self.std)


# ---- WebDataset


def _write_webdataset(stored: Stored, folder: Path) -> None:
    import webdataset

    with webdataset.ShardWriter(str(folder / "%05d.tar"), maxcount=512, verbose=0) as sink:
        for number, (image, label) in enumerate(_rows(stored)):
            buffer = io.BytesIO()
            np.save(buffer, image)
            sink.write({"__key__": f"{number:07d}", "npy": buffer.getvalue(), "cls": int(label)})


def webdataset_epochs(stored: Stored, device: torch.device, batch_size: int, *, workers: int, buffer: int) -> Epochs:
    """Tar shards, shuffled in a buffer."""
    import webdataset

    shards = sorted(map(str, _folder(stored, "WebDataset").glob("*.tar")))
    workers = min(workers, len(shards))
    data = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), empty_check=False)
        .shuffle(buffer)
        .decode()
        .to_tuple("npy", "cls")
        .batched(batch_size, collation_fn=Collate(stored))
    )
    return on_device(webdataset.WebLoader(data, batch_size=None, num_workers=workers), device)


# ---- LitData


def _litdata_sample(number: int, folder: str) -> dict[str, Any]:
    return {"image": np.array(np.load(f"{folder}-whole.npy", mmap_mode="r")[number]), "row": number}


def _write_litdata(stored: Stored, folder: Path) -> None:
    from functools import partial

    import litdata

    mapped(stored)
    sample = partial(_litdata_sample, folder=str(stored.shards["float16"].path))
    rows = list(range(len(stored.folder.index)))
    litdata.optimize(sample, rows, output_dir=str(folder), chunk_bytes="64MB", num_workers=1)


class _LitLabels:
    """Collate LitData's samples, whose labels come from the table by row."""

    def __init__(self, stored: Stored) -> None:
        self.mean, self.std = stored.folder.mean, stored.folder.std
        self.labels = stored.folder.index["label"].to_numpy(dtype=np.float32)

    def __call__(self, samples: list[Any]) -> Batch:
        """One batch."""
        pairs = [(np.asarray(s["image"]), float(self.labels[int(s["row"])])) for s in samples]
        return _collate(pairs, self.mean, self.std)


def litdata_epochs(stored: Stored, device: torch.device, batch_size: int, *, workers: int) -> Epochs:
    """Chunks of 64 MB, shuffled by chunk and within."""
    import litdata

    data = litdata.StreamingDataset(str(_folder(stored, "LitData")), shuffle=True)
    loader = litdata.StreamingDataLoader(
        data, batch_size=batch_size, num_workers=workers, collate_fn=_LitLabels(stored), shuffle=True
    )
    return on_device(loader, device)


# ---- MosaicML Streaming


def _write_streaming(stored: Stored, folder: Path) -> None:
    from streaming import MDSWriter

    size = stored.folder.size
    columns = {"image": f"ndarray:float16:{size},{size}", "label": "float32"}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for image, label in _rows(stored):
            writer.write({"image": image, "label": np.float32(label)})


def streaming_epochs(stored: Stored, device: torch.device, batch_size: int, *, workers: int) -> Epochs:
    """MDS shards with its default shuffle."""
    from streaming import StreamingDataset

    data = StreamingDataset(local=str(_folder(stored, "Streaming")), shuffle=True, batch_size=batch_size)
    collate = Collate(stored, "image", "label")
    loader = DataLoader(
        data, batch_size=batch_size, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0
    )
    return on_device(loader, device)


# ---- SPDL


def _nothing(stored: Stored, folder: Path) -> None:
    """Reads the memory map that is there."""
    del folder
    mapped(stored)


def spdl_epochs(stored: Stored, device: torch.device, batch_size: int, *, threads: int) -> Epochs:
    """A pipeline of threads, each gathering whole batches from a memory map."""
    from spdl.pipeline import PipelineBuilder

    images, labels = mapped(stored)
    mean, std = stored.folder.mean, stored.folder.std

    def fetch(rows: list[int]) -> Batch:
        return normalized(images[rows], mean, std), torch.from_numpy(labels[rows])

    def batches(epoch: int) -> Iterator[Batch]:
        rows = np.random.default_rng(epoch).permutation(len(images))
        parts = [rows[at : at + batch_size].tolist() for at in range(0, len(rows), batch_size)]
        pipeline = PipelineBuilder().add_source(parts).pipe(fetch, concurrency=threads).add_sink(2)
        with (built := pipeline.build(num_threads=threads)).auto_stop():
            yield from built

    epoch = 0
    while True:
        yield ((image.to(device), label.to(device)) for image, label in batches(epoch))
        epoch += 1


# ---- Grain


class _Source:
    """Random access to the memory map, for Grain; with another data type, to the same bits, for FFCV."""

    def __init__(self, stored: Stored, dtype: str = "float16") -> None:
        images, self.labels = mapped(stored)
        self.images = images.view(dtype)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Any, float]:
        return np.array(self.images[row]), float(self.labels[row])


def grain_epochs(stored: Stored, device: torch.device, batch_size: int, *, threads: int, buffer: int) -> Epochs:
    """A map dataset, shuffled globally, read by threads."""
    import grain

    def batches(epoch: int) -> Iterator[Batch]:
        data = grain.MapDataset.source(_Source(stored)).shuffle(seed=epoch)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer)
        yield from data.to_iter_dataset(options).batch(batch_size, drop_remainder=False, batch_fn=Collate(stored))

    epoch = 0
    while True:
        yield ((image.to(device), label.to(device)) for image, label in batches(epoch))
        epoch += 1


# ---- FFCV


def _write_ffcv(stored: Stored, folder: Path) -> None:
    from ffcv.fields import FloatField, NDArrayField
    from ffcv.writer import DatasetWriter

    size = stored.folder.size
    fields = {"image": NDArrayField(shape=(size, size), dtype=np.dtype("int16")), "label": FloatField()}
    DatasetWriter(str(folder / "data.beton"), fields, num_workers=1).from_indexed_dataset(_Source(stored, "int16"))


def ffcv_epochs(stored: Stored, device: torch.device, batch_size: int, *, workers: int) -> Epochs:
    """One file under a memory map, threads that decode into reused memory; random order.

    The compiler that FFCV relies on knows no float16 on a CPU, so the bits travel as whole numbers.
    """
    from ffcv.fields.decoders import FloatDecoder, NDArrayDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    loader = Loader(
        str(_folder(stored, "FFCV") / "data.beton"),
        batch_size=batch_size,
        num_workers=workers,
        order=OrderOption.RANDOM,
        drop_last=False,
        pipelines={"image": [NDArrayDecoder(), ToTensor()], "label": [FloatDecoder(), ToTensor()]},
    )
    mean, std = stored.folder.mean, stored.folder.std
    while True:
        yield (
            (
                image.view(torch.float16).unsqueeze(1).to(device).to(torch.float32).sub_(mean).mul_(1 / std),
                label.flatten().to(device, torch.float32),
            )
            for image, label in loader
        )


_WORKERS = tuple({"workers": workers} for workers in (0, 1, 2))
PEERS = {
    "FFCV": Peer(
        package="ffcv", module="ffcv", make=ffcv_epochs, prepare=_write_ffcv, settings=({"workers": 1}, {"workers": 2}),
        needs="pip install ffcv compiles it, against the development files of OpenCV 4 and libjpeg-turbo",
    ),
    "SPDL": Peer(
        package="spdl", module="spdl.pipeline", make=spdl_epochs, prepare=_nothing,
        settings=tuple({"threads": threads} for threads in (1, 2, 3)),
    ),
    "Grain": Peer(
        package="grain", module="grain", make=grain_epochs, prepare=_nothing,
        settings=tuple({"threads": t, "buffer": b} for t, b in ((1, 256), (2, 512), (4, 512))),
    ),
    "Streaming": Peer(
        package="mosaicml-streaming", module="streaming", make=streaming_epochs, prepare=_write_streaming,
        settings=_WORKERS,
    ),
    "LitData": Peer(
        package="litdata", module="litdata", make=litdata_epochs, prepare=_write_litdata, settings=_WORKERS
    ),
    "WebDataset": Peer(
        package="webdataset", module="webdataset", make=webdataset_epochs, prepare=_write_webdataset,
        settings=tuple({"workers": workers, "buffer": 1000} for workers in (0, 1, 2)),
    ),
}  # fmt: skip
