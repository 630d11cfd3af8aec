"""Datasets small enough to check by hand, written with the package's own writers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.folder import write_table as write
from pneumo_fast.dataset.format import BOX_COLUMNS, FORMAT, FORMAT_VERSION, INDEX_TYPES, Manifest, ShardInfo
from pneumo_fast.dataset.npy import SCALES, ShardWriter, image_digest, write_array

Layout = Literal["shards", "folder"]
Dtype = Literal["float16", "uint8"]

LABELS = {"train": [0, 1, 0, 0] * 5 + [1], "val": [1, 0, 0] * 4 + [0]}
"""21 training and 13 validation images."""
CLASSES = ("Lung Opacity", "No Lung Opacity / Not Normal", "Normal")


def make_dataset(
    path: Path,
    *,
    labels: Mapping[str, Sequence[int]] = LABELS,
    size: int = 8,
    dtype: Dtype = "float16",
    layout: Layout = "shards",
    shard_rows: int = 4,
    learnable: bool = False,
    findings: bool = False,
) -> Dataset:
    """Write noise, and a bright square into the positives where they shall be ``learnable``; open the dataset.

    With ``findings`` an image is white where its boxes are, and black elsewhere, and has one of three classes.
    """
    path.mkdir()
    rng = np.random.default_rng(len(labels["train"]))
    shards: list[ShardInfo] = []
    index: list[dict[str, Any]] = []
    boxes = pd.DataFrame(columns=list(BOX_COLUMNS))
    for split, marks in labels.items():
        stored = _draw(rng, marks, size, dtype, learnable=learnable)
        if findings:
            of_split = _find(rng, split, marks, size)
            boxes = pd.concat([boxes, of_split]) if len(boxes) else of_split
            stored = _paint(of_split, [f"{split}-{row}" for row in range(len(marks))], size, stored.dtype)
        if layout == "shards":
            shards += _write_shards(path, split, stored, shard_rows)
        else:
            _write_folder(path, split, stored, marks)
        index += [
            {"image_id": f"{split}-{row}", "split": split, "label": mark, "height": size, "width": size}
            | _place(split, row, mark, layout, shard_rows)
            | ({"class": CLASSES[0 if mark else 1 + row % 2]} if findings else {})
            for row, mark in enumerate(marks)
        ]
    unknown = {name: kind() for name, kind in INDEX_TYPES.items()}
    tables = {
        "index.csv": write(path, "index.csv", pd.DataFrame([unknown | image for image in index])),
        "boxes.csv": write(path, "boxes.csv", boxes),
    }
    counts = {split: {str(label): list(marks).count(label) for label in (0, 1)} for split, marks in labels.items()}
    manifest = manifest_of(
        shards, tables, size=size, dtype=dtype, layout=layout, mean=0.4812345, std=0.2712345, counts=counts
    )
    (path / "manifest.json").write_text(manifest.to_json())
    return Dataset.open(path)


def manifest_of(
    shards: Sequence[ShardInfo],
    tables: dict[str, str],
    *,
    size: int,
    mean: float,
    std: float,
    dtype: Dtype = "float16",
    layout: Layout = "shards",
    counts: dict[str, dict[str, int]] | None = None,
) -> Manifest:
    """The manifest of a dataset of square images that was never converted."""
    return Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        created_by="tests",
        layout=layout,
        image_shape=(size, size),
        dtype=dtype,
        scale=SCALES[dtype],
        mean=mean,
        std=std,
        ids="kept",
        preprocessing={},
        split={"seed": 0},
        counts=counts or {},
        input={},
        duplicates={},
        rejects={},
        arguments={},
        shards=tuple(shards),
        tables=tables,
    )


def as_former(folder: Path, version: int) -> dict[str, Any]:
    """The manifest as releases before version 3 wrote it, with SHA-256 of each shard's file."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["shards"]:
        del shard["checksum"]
        shard["sha256"] = sha256((folder / shard["name"]).read_bytes()).hexdigest()
    return manifest | {"format_version": version}


def stored_images(dataset: Dataset, split: str) -> NDArray[Any]:
    """All stored images of a split in storage order, read by NumPy itself."""
    rows = dataset.rows(split)
    if dataset.manifest.layout == "folder":
        return np.stack([np.load(dataset.path / name) for name in rows["shard"]])
    return np.concatenate([np.load(dataset.path / name) for name in rows["shard"].unique()])


def _find(rng: np.random.Generator, split: str, marks: Sequence[int], size: int) -> pd.DataFrame:
    """One or two boxes for each positive image, which may overlap, in fractions of pixels."""
    rows = [row for row, mark in enumerate(marks) if mark for _ in range(1 + row % 2)]
    start, side = rng.uniform(0.05, 0.6, (2, len(rows))) * size, rng.uniform(0.15, 0.35, (2, len(rows))) * size
    values = zip([f"{split}-{row}" for row in rows], *start, *side, strict=True)
    return pd.DataFrame([(*value, size, size) for value in values], columns=list(BOX_COLUMNS))


def _paint(boxes: pd.DataFrame, ids: Sequence[str], size: int, dtype: np.dtype[Any]) -> Any:
    """Images that are as white, pixel by pixel, as the boxes cover them."""
    images = np.stack([coverage(boxes[boxes["image_id"] == image_id], size) for image_id in ids])
    return np.rint(images * 255).astype(dtype) if dtype == np.uint8 else images.astype(dtype)


def coverage(boxes: pd.DataFrame, size: int, fine: int = 16) -> NDArray[np.float64]:
    """The share of each pixel of an image (size, size) that the union of boxes (of a source of that size) covers."""
    at = (np.arange(size * fine) + 0.5) / fine
    covered = np.zeros((size * fine, size * fine), bool)
    for x, y, width, height in boxes[["x", "y", "width", "height"]].to_numpy(float):
        covered |= np.outer((y <= at) & (at < y + height), (x <= at) & (at < x + width))
    share: NDArray[np.float64] = covered.reshape(size, fine, size, fine).mean((1, 3))
    return share


def _draw(
    rng: np.random.Generator, marks: Sequence[int], size: int, dtype: Dtype, *, learnable: bool
) -> NDArray[np.float16] | NDArray[np.uint8]:
    images = rng.random((len(marks), size, size))
    if learnable:
        images *= 0.3
        quarter = size // 4
        images[np.array(marks) == 1, quarter : 3 * quarter, quarter : 3 * quarter] += 0.6
    if dtype == "uint8":
        return np.rint(images * 255).astype(np.uint8)
    return images.astype(np.float16)


def _place(split: str, row: int, mark: int, layout: Layout, shard_rows: int) -> dict[str, str | int]:
    if layout == "folder":
        return {"shard": f"{split}/{mark}/{split}-{row}.npy", "row": 0}
    return {"shard": f"{split}-{row // shard_rows:05d}.npy", "row": row % shard_rows}


def write_shard(path: Path, images: Any) -> tuple[int, str]:
    """Write a shard (rows, size, size); its size in bytes and its checksum."""
    with ShardWriter(path, len(images)) as shard:
        for image in images:
            shard.append(image, image_digest(image))
        return shard.finish()


def _write_shards(path: Path, split: str, stored: Any, shard_rows: int) -> list[ShardInfo]:
    shards = []
    for number, start in enumerate(range(0, len(stored), shard_rows)):
        name, images = f"{split}-{number:05d}.npy", stored[start : start + shard_rows]
        size, checksum = write_shard(path / name, images)
        shards.append(ShardInfo(name=name, split=split, rows=len(images), bytes=size, checksum=checksum))
    return shards


def _write_folder(path: Path, split: str, stored: Any, marks: Sequence[int]) -> None:
    for row, mark in enumerate(marks):
        name = path / str(_place(split, row, mark, "folder", 1)["shard"])
        name.parent.mkdir(parents=True, exist_ok=True)
        write_array(name, stored[row])
