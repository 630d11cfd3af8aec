"""Straight from source files: an epoch that decodes, beside the converter, its reader alone, and DALI's decoder."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from pydicom import dcmread
from pydicom.encaps import get_frame

from benchmarks.convert_stage import Radiographs, replicate
from benchmarks.measure import Contender, Result, Stage, Turn, race
from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.executors import local_workers
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.loading.engines.source import SharedImages
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.loading.sources import SourceReader

FIRST, LATER = "direct: open, and an epoch that decodes", "direct: a later epoch, from memory"
READER, CONVERT, DALI = "converter's reader alone", "convert", "DALI on the CPU: decode and resize"
GPU_FIRST, GPU_CONVERT = "direct, --decode gpu: open, and an epoch that decodes", "convert --decode gpu"
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
BATCH = 64
PART = 32  # images that the reader alone is given at once
LEVELS = 255


def direct_stage(source: Path, folder: Path, *, count: int, size: int, workers: int, runs: int) -> Stage:
    """Race them; the reader alone and DALI find nothing else to do, and DALI finds its frames in memory."""
    radiographs = replicate(source, folder, count)
    indexed = _made(radiographs, folder / "source", size, layout="source", workers=workers)
    converted = _made(radiographs, folder / "shards", size, workers=workers)
    notes = [_differences("Direct", indexed, converted)]
    with Loader(indexed, "train", LoadConfig(batch_size=PART), device=CPU) as loader:
        list(loader.epoch(0))
        contenders: dict[str, Contender] = {
            FIRST: partial(_first_epoch, indexed),
            LATER: partial(_later_epoch, loader),
            READER: partial(_read, indexed, workers),
            CONVERT: partial(_convert, radiographs, folder, size, workers=workers),
            DALI: partial(_decode_by_dali, _frames(radiographs), size, workers),
        }
        if torch.cuda.is_available():
            on_gpu = _made(radiographs, folder / "gpu", size, layout="source", decode="gpu")
            exact = _made(radiographs, folder / "exact", size, decode="exact")
            contenders[GPU_FIRST] = partial(_first_epoch, on_gpu, GPU)
            contenders[GPU_CONVERT] = partial(_convert, radiographs, folder, size, decode="gpu")
            notes.append(_differences("Decoded by the GPU", on_gpu, exact, GPU))
        results = race(contenders, runs)
    return Stage(
        name="direct",
        conditions={"images": count} | radiographs.about | {"to": f"{size} x {size}", "workers": workers},
        results=results,
        ratios=_ratios(results),
        notes=notes,
    )


def _made(radiographs: Radiographs, out: Path, size: int, **options: Any) -> Dataset:
    common: dict[str, Any] = {"size": size, "val_fraction": 0.0, "keep_ids": True}
    convert(ConvertConfig(images=radiographs.images, labels=radiographs.labels, out=out, **common, **options))
    return Dataset.open(out)


def _later_epoch(loader: Loader) -> Turn:
    begin = time.perf_counter()
    images = sum(len(labels) for _, labels in loader.epoch(0))
    return Turn(images=images, seconds=time.perf_counter() - begin)


def _first_epoch(dataset: Dataset, device: torch.device = CPU) -> Turn:
    begin = time.perf_counter()
    config = LoadConfig(batch_size=min(BATCH, len(dataset.rows("train"))), order="shuffle")
    with Loader(dataset, "train", config, device=device) as loader:
        images = sum(len(labels) for _, labels in loader.epoch(0))
        return Turn(images=images, seconds=time.perf_counter() - begin)


def _read(dataset: Dataset, workers: int) -> Turn:
    """The worker processes alone, running already."""
    reader = SourceReader(dataset, dataset.rows("train"))
    with ExitStack() as held:
        memory = held.enter_context(
            closing(SharedImages(len(reader), math.prod(reader.shape), reader.dtype))
        ).descriptor
        submit = held.enter_context(local_workers(workers, shared=(memory,)))
        rows = np.arange(len(reader))
        parts = np.split(rows, range(PART, len(reader), PART))
        tasks = [reader.task(part, part, memory) for part in parts]
        for future in [submit(replace(task, sources=task.sources[:1]), 60.0) for task in tasks[:workers]]:
            future.result()
        begin = time.perf_counter()
        images = sum(future.result().stored for future in [submit(task, 60.0) for task in tasks])
        return Turn(images=images, seconds=time.perf_counter() - begin)


def _convert(radiographs: Radiographs, folder: Path, size: int, **options: Any) -> Turn:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        begin = time.perf_counter()
        dataset = _made(radiographs, Path(out, "dataset"), size, **options)
        return Turn(images=len(dataset.index), seconds=time.perf_counter() - begin)


def _frames(radiographs: Radiographs) -> list[NDArray[np.uint8]]:
    """The JPEG stream of each file; links to one file share it."""
    known: dict[int, NDArray[np.uint8]] = {}
    frames = []
    for path in map(Path, radiographs.paths):
        inode = path.stat().st_ino
        if inode not in known:
            known[inode] = np.frombuffer(get_frame(dcmread(path).PixelData, 0, number_of_frames=1), dtype=np.uint8)
        frames.append(known[inode])
    return frames


def _decode_by_dali(frames: list[NDArray[np.uint8]], size: int, workers: int) -> Turn:
    batch = min(BATCH, len(frames))

    def batches() -> Iterator[list[NDArray[np.uint8]]]:
        for start in range(0, len(frames) - batch + 1, batch):
            yield frames[start : start + batch]

    def define() -> Any:
        encoded = fn.external_source(source=batches(), dtype=types.UINT8, ndim=1, no_copy=True)
        grey = fn.decoders.image(encoded, device="cpu", output_type=types.GRAY)
        return fn.resize(grey, size=[size, size], antialias=True, interp_type=types.INTERP_LINEAR, dtype=types.FLOAT)

    pipeline = pipeline_def(batch_size=batch, num_threads=workers, device_id=None)(define)()
    pipeline.build()
    begin, images = time.perf_counter(), 0
    for _ in range(len(frames) // batch):
        (resized,) = pipeline.run()
        images += len(resized)
    return Turn(images=images, seconds=time.perf_counter() - begin)


def _ratios(results: list[Result]) -> dict[str, float]:
    rate = {result.name: result.median for result in results}
    on_gpu = {
        "direct, --decode gpu / first epoch": rate[GPU_FIRST] / rate[FIRST],
        "convert --decode gpu / convert": rate[GPU_CONVERT] / rate[CONVERT],
    } if GPU_FIRST in rate else {}  # fmt: skip
    return on_gpu | {
        "first epoch / the faster of reader and DALI": rate[FIRST] / max(rate[READER], rate[DALI]),
        "first epoch / convert": rate[FIRST] / rate[CONVERT],
        "converter's reader / DALI": rate[READER] / rate[DALI],
    }


def _differences(which: str, indexed: Dataset, converted: Dataset, device: torch.device = CPU) -> str:
    """How far the batches of both are apart, in grey levels of 255, normalization undone."""
    config, apart = LoadConfig(batch_size=min(BATCH, len(indexed.rows("train"))), order="shuffle"), []
    loaders = [
        Loader(dataset, "train", config, device=device, normalization=(0.0, 1.0)) for dataset in (indexed, converted)
    ]
    with loaders[0] as direct, loaders[1] as stored:
        for (ours, _), (theirs, _) in zip(direct.epoch(1), stored.epoch(1), strict=True):
            apart.append((ours - theirs).abs().mul_(LEVELS).flatten().cpu().numpy().copy())
    values = np.concatenate(apart)
    shares = ", ".join(f"{quantile:.1%} at most {np.quantile(values, quantile):g}" for quantile in (0.5, 0.99, 1.0))
    mean, std = abs(indexed.mean - converted.mean), abs(indexed.std - converted.std)
    return (
        f"{which} and converted batches, grey levels of {LEVELS} apart: {shares}; mean and std of the train split "
        f"{LEVELS * mean:.2f} and {LEVELS * std:.2f}"
    )
