"""Stored images for the loaders: one set of images in every form that a contender reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.convert_stage import replicate
from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.format import ShardInfo
from pneumo_fast.dataset.npy import SCALES, Images, ShardWriter, image_digest, store_unit, write_array
from pneumo_fast.loading.reader import ShardReader
from pneumo_fast.vocabulary import Dtype, Layout

SHARD_ROWS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The same training images in three forms."""

    shards: dict[Dtype, Dataset]
    """Shards by data type."""
    folder: Dataset
    """One float16 file per image, as torchvision's ``DatasetFolder`` reads them."""
    mean_normalized: float
    """Mean of all pixels once they are normalized."""
    about: dict[str, object]
    """How many images, of what size, and where they come from."""


@cache
def convert_dicoms(source: Path, folder: Path, *, count: int, size: int, workers: int) -> tuple[Path, str]:
    """Convert the DICOM files of a folder, replicated up to ``count``; the dataset's path, and where it comes from."""
    radiographs = replicate(source, folder, count)
    config = ConvertConfig(
        images=radiographs.images, labels=radiographs.labels, out=folder / "dataset", size=size, workers=workers
    )
    convert(config)
    return config.out, str(radiographs.about["from"])


def store_dataset(dataset: Path, folder: Path, count: int, source: str = "a dataset given") -> Stored:
    """Store the first training images of a dataset, ``count`` at most, in every form."""
    whole = Dataset.open(dataset)
    return _store_all(whole, whole.rows("train").head(count), folder, source)


def _store_all(whole: Dataset, rows: pd.DataFrame, folder: Path, source: str) -> Stored:
    singles = _store(whole, rows, folder / "folder", "float16", "folder")
    return Stored(
        shards={dtype: _store(whole, rows, folder / dtype, dtype, "shards") for dtype in ("float16", "uint8")},
        folder=singles,
        mean_normalized=mean_normalized(singles),
        about={"images": len(rows), "from": source, "size": f"{whole.size} x {whole.size}"},
    )


def store_repeated(dataset: Path, folder: Path, count: int) -> Dataset:
    """Shards of ``count`` images: the training images of a dataset, over and over again."""
    whole = Dataset.open(dataset)
    rows = whole.rows("train")
    return _store(whole, rows.iloc[np.arange(count) % len(rows)].reset_index(drop=True), folder, "float16", "shards")


def mean_normalized(dataset: Dataset) -> float:
    """Mean of all pixels of a float16 dataset once they are normalized."""
    reader, total = ShardReader(dataset, dataset.index), 0.0
    images = np.empty((SHARD_ROWS, *reader.shape), dtype=reader.dtype)
    for first in range(0, len(reader), SHARD_ROWS):
        rows = np.arange(first, min(first + SHARD_ROWS, len(reader)))
        reader.read_into(rows, images[: len(rows)])
        total += sum(float(image.astype(np.float32).sum(dtype=np.float64)) for image in images[: len(rows)])
    reader.close()
    return (total / (len(reader) * dataset.size**2) - dataset.mean) / dataset.std


def store_numbered(dataset: Path, folder: Path, count: int) -> Stored:
    """Images whose first three pixels tell their row (three digits of 32), stored class after class.

    What a loader delivers tells how well it shuffles: with classes apart, a shuffle within a buffer shows.
    """
    whole = Dataset.open(dataset)
    rows = whole.rows("train").head(count)
    rows = rows.sort_values("label", kind="stable", ignore_index=True)
    stored = _store_all(whole, rows, folder, "numbered")
    for dataset_of in (*stored.shards.values(), stored.folder):
        for name, part in dataset_of.index.groupby("shard", sort=False):
            path = dataset_of.path / str(name)
            images = np.load(path).reshape(-1, whole.size, whole.size)
            for row, place in zip(part.index, part["row"], strict=True):
                digits = np.array([row // 1024, row // 32 % 32, row % 32], dtype=np.float32) / np.float32(32)
                store_unit(digits, images[place, 0, :3])
            write_array(path, images if dataset_of.manifest.layout == "shards" else images[0])
    return replace(stored, mean_normalized=mean_normalized(stored.folder))


def _store(whole: Dataset, rows: pd.DataFrame, out: Path, dtype: Dtype, layout: Layout) -> Dataset:
    """Write some rows of a dataset in another form; what was given is left as it is."""
    out.mkdir(parents=True)
    reader = ShardReader(whole, rows)
    shards, names = [], []
    for number, start in enumerate(range(0, len(rows), SHARD_ROWS)):
        part = rows.iloc[start : start + SHARD_ROWS]
        images = _read(reader, np.arange(start, start + len(part)), dtype)
        if layout == "folder":
            singles = [f"train/{label}/{name}.npy" for label, name in zip(part["label"], part["image_id"], strict=True)]
            for name, image in zip(singles, images, strict=True):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                write_array(out / name, image)
            names += singles
        else:
            name = f"train-{number:05d}.npy"
            with ShardWriter(out / name, len(images)) as shard:
                for image in images:
                    shard.append(image, image_digest(image))
                size, checksum = shard.finish()
            shards.append(ShardInfo(name=name, split="train", rows=len(part), bytes=size, checksum=checksum))
            names += [name] * len(part)
    reader.close()
    manifest = replace(whole.manifest, dtype=dtype, scale=SCALES[dtype], layout=layout, shards=tuple(shards))
    places = np.arange(len(rows)) % SHARD_ROWS if layout == "shards" else 0
    return replace(whole, path=out, manifest=manifest, index=rows.assign(shard=names, row=places))


def _read(reader: ShardReader, rows: NDArray[np.int64], dtype: Dtype) -> Images:
    """Read images in another data type."""
    images: Images = np.empty((len(rows), *reader.shape), dtype=dtype)
    for image, out in zip(reader.read_unit(rows), images, strict=True):
        store_unit(image, out)
    return images
