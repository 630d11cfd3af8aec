"""Stored images for the loaders: one set of images in every form that a contender reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.convert_stage import replicate
from pneumo_fast.convert import convert
from pneumo_fast.npy import SCALES, Images, store_unit, write_array
from pneumo_fast.options import ConvertConfig, Dtype, Layout
from pneumo_fast.reader import ShardReader
from pneumo_fast.shards import Dataset, ShardInfo

SHARD_ROWS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The same training images in three forms."""

    shards: dict[Dtype, Dataset]
    """Shards by data type."""
    folder: Dataset
    """One float16 file per image, as torchvision's ``DatasetFolder`` reads them."""
    about: dict[str, object]
    """How many images, of what size, and where they come from."""


def store_dicoms(source: Path, folder: Path, *, count: int, size: int, workers: int) -> Stored:
    """Convert the DICOM files of a folder, replicated up to ``count``, and store them in every form."""
    radiographs = replicate(source, folder, count)
    config = ConvertConfig(
        images=radiographs.images, labels=radiographs.labels, out=folder / "converted", size=size, workers=workers
    )
    convert(config)
    return store_dataset(config.out, folder, count, radiographs.about["from"])


def store_dataset(dataset: Path, folder: Path, count: int, source: str = "a dataset given") -> Stored:
    """Store the first training images of a dataset, ``count`` at most, in every form."""
    whole = Dataset.open(dataset)
    rows = whole.rows("train").head(count)
    return Stored(
        shards={dtype: _store(whole, rows, folder / dtype, dtype, "shards") for dtype in ("float16", "uint8")},
        folder=_store(whole, rows, folder / "folder", "float16", "folder"),
        about={"images": len(rows), "from": source, "size": f"{whole.size} x {whole.size}"},
    )


def _store(whole: Dataset, rows: pd.DataFrame, out: Path, dtype: Dtype, layout: Layout) -> Dataset:
    """Write some rows of a dataset in another form; what was given is left as it is."""
    out.mkdir(parents=True)
    reader = ShardReader(whole, rows)
    shards, names = [], []
    for number, start in enumerate(range(0, len(rows), SHARD_ROWS)):
        part = rows.iloc[start : start + SHARD_ROWS]
        images = _read(reader, np.arange(start, start + len(part)), whole, dtype)
        if layout == "folder":
            singles = [f"train/{label}/{name}.npy" for label, name in zip(part["label"], part["image_id"], strict=True)]
            for name, image in zip(singles, images, strict=True):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                write_array(out / name, image, sync=False)
            names += singles
        else:
            name = f"train-{number:05d}.npy"
            digest = write_array(out / name, images, sync=False)
            size = (out / name).stat().st_size
            shards.append(ShardInfo(name=name, split="train", rows=len(part), bytes=size, sha256=digest))
            names += [name] * len(part)
    reader.close()
    manifest = replace(whole.manifest, dtype=dtype, scale=SCALES[dtype], layout=layout, shards=tuple(shards))
    places = np.arange(len(rows)) % SHARD_ROWS if layout == "shards" else 0
    return replace(whole, path=out, manifest=manifest, index=rows.assign(shard=names, row=places))


def _read(reader: ShardReader, rows: NDArray[np.int64], whole: Dataset, dtype: Dtype) -> Images:
    """Read images in another data type."""
    stored = np.empty((len(rows), *reader.shape), dtype=reader.dtype)
    reader.read_into(rows, stored)
    images: Images = np.empty(stored.shape, dtype=dtype)
    for image, out in zip(stored, images, strict=True):
        store_unit(image.astype(np.float32) / np.float32(whole.scale), out)
    return images
