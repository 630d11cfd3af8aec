"""The dataset on disk (format 1): manifest, tables and shards. ``docs/format.md`` is the specification.

A shard is a plain ``.npy`` file of stacked images, little-endian and in C order, so ``np.load(..., mmap_mode="r")``
reads it anywhere. The manifest is written last: a folder without one is no dataset.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import pandas as pd

from pneumo_fast.errors import DatasetError
from pneumo_fast.files import write_atomic
from pneumo_fast.npy import SCALES
from pneumo_fast.options import Dtype, Layout

FORMAT: Final = "pneumo-fast dataset"
FORMAT_VERSION: Final = 1
SPLITS: Final = ("train", "val", "test")

INDEX_TYPES: Final[dict[str, type]] = {
    "image_id": str,
    "split": str,
    "shard": str,
    "row": int,
    "label": int,
    "group": str,
    "sex": str,
    "age": str,
    "view": str,
    "body_part": str,
    "class": str,
    "height": int,
    "width": int,
    "spacing_mm": str,
    "bits_stored": int,
    "photometric": str,
    "intensity": str,
    "padding_pixels": int,
    "burned_in": str,
    "notes": str,
    "pixel_hash": str,
}
"""Columns of ``index.csv`` in their order: the allow-list of what may be known of an image."""
BOX_COLUMNS: Final = ("image_id", "x", "y", "width", "height", "source_width", "source_height")
BOX_TYPES: Final[dict[str, type]] = {name: str if name == "image_id" else float for name in BOX_COLUMNS}
REJECT_COLUMNS: Final = ("path", "reason", "detail")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One shard file, as the manifest lists it."""

    name: str
    """File name inside the dataset folder."""
    split: str
    """``train``, ``val`` or ``test``."""
    rows: int
    """Images in the file."""
    bytes: int
    """Size of the file."""
    sha256: str
    """Checksum of the whole file, in hexadecimal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """``manifest.json``, key by key; see ``docs/format.md``."""

    format: str
    format_version: int
    created_by: str
    layout: Layout
    image_shape: tuple[int, int]
    dtype: Dtype
    scale: float
    mean: float
    std: float
    preprocessing: dict[str, Any]
    split: dict[str, Any]
    counts: dict[str, dict[str, int]]
    input: dict[str, Any]
    duplicates: dict[str, int]
    rejects: dict[str, int]
    arguments: dict[str, Any]
    shards: tuple[ShardInfo, ...]
    tables: dict[str, str]

    def to_json(self) -> str:
        """Text of ``manifest.json``; the same manifest always gives the same bytes."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        DatasetError
            If the text is no manifest, or one of another format version.
        """
        try:
            raw = json.loads(text)
            version = raw["format_version"]
            if raw["format"] != FORMAT or version != FORMAT_VERSION:
                raise DatasetError(
                    f"format {raw['format']!r} version {version!r}; this release reads {FORMAT!r} version "
                    f"{FORMAT_VERSION}: convert the images again"
                )
            _check_kinds(raw)
            raw["shards"] = tuple(ShardInfo(**shard) for shard in raw["shards"])
            raw["image_shape"] = tuple(raw["image_shape"])
            manifest = cls(**raw)
            manifest._check()
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"not a complete manifest ({error}): convert the images again") from error
        return manifest

    def _check(self) -> None:
        """Refuse values that would give wrong pixels further on."""
        height, width = self.image_shape
        if self.layout not in get_args(Layout):
            raise DatasetError(f"layout {self.layout!r}: expected one of {', '.join(get_args(Layout))}")
        if self.dtype not in SCALES or self.scale != SCALES[self.dtype]:
            raise DatasetError(f"dtype {self.dtype!r} with scale {self.scale!r}: expected one of {SCALES}")
        if height != width or height < 1:
            raise DatasetError(f"image_shape {self.image_shape!r}: expected two equal whole numbers")
        if not (0.0 <= self.mean <= 1.0 and 0.0 < self.std <= 1.0):
            raise DatasetError(f"mean {self.mean!r}, std {self.std!r}: expected 0 to 1, and a std above 0")


def _check_kinds(raw: dict[str, Any]) -> None:
    """Refuse a manifest whose values are not of the kinds that the rest relies on."""
    for name in ("preprocessing", "split", "counts", "input", "duplicates", "rejects", "arguments", "tables"):
        if not isinstance(raw[name], dict):
            raise DatasetError(f"{name} is no table of keys: convert the images again")
    if not all(type(side) is int for side in raw["image_shape"]):
        raise DatasetError(f"image_shape {raw['image_shape']!r}: expected two equal whole numbers")
    for shard in raw["shards"]:
        if Path(shard["name"]).name != shard["name"]:
            raise DatasetError(f"shard name {shard['name']!r}: expected the name of a file in the folder")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A dataset folder, opened and checked; nothing in it changes while it is open."""

    path: Path
    manifest: Manifest
    index: pd.DataFrame
    """One row per image with the columns of :data:`INDEX_TYPES`; text is ``""`` where unknown."""
    boxes: pd.DataFrame
    """One row per box with the columns of :data:`BOX_COLUMNS`, in source pixels."""
    identity: str
    """SHA-256 of ``manifest.json``, which holds the checksums of all else."""

    @classmethod
    def open(cls, path: Path, *, check_files: bool = True) -> Dataset:
        """Open a dataset folder and check what can be checked without reading pixels.

        Parameters
        ----------
        check_files : bool
            Whether each file of pixels must be there with its size; ``verify`` looks closer itself.

        Raises
        ------
        DatasetError
            If there is no manifest, or a table or shard is missing, changed or of the wrong size.
        """
        manifest_path = path / "manifest.json"
        try:
            text = manifest_path.read_bytes()
        except OSError as error:
            raise DatasetError(f"{path} is no dataset: no manifest.json there; run pneumo-fast convert") from error
        try:
            manifest = Manifest.from_json(text.decode())
            index = _read_table(path, manifest, "index.csv", INDEX_TYPES)
            boxes = _read_table(path, manifest, "boxes.csv", BOX_TYPES)
            if check_files:
                _check_files(path, manifest, index)
        except (DatasetError, ValueError) as error:
            raise DatasetError(f"dataset {path}: {error}") from error
        return cls(path=path, manifest=manifest, index=index, boxes=boxes, identity=hashlib.sha256(text).hexdigest())

    @property
    def size(self) -> int:
        """Height and width of an image, in pixels."""
        return self.manifest.image_shape[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored data type: little-endian float16, or uint8."""
        return np.dtype(self.manifest.dtype).newbyteorder("<")

    @property
    def scale(self) -> float:
        """Stored value of white; stored value / scale lies in [0, 1]."""
        return self.manifest.scale

    @property
    def mean(self) -> float:
        """Mean of the train split's pixels, in [0, 1]."""
        return self.manifest.mean

    @property
    def std(self) -> float:
        """Standard deviation of the train split's pixels, in [0, 1]."""
        return self.manifest.std

    def rows(self, split: str) -> pd.DataFrame:
        """Rows of the index that belong to a split, in storage order, numbered from 0.

        Raises
        ------
        DatasetError
            If the split is not there or holds no image.
        """
        rows = self.index[self.index["split"] == split].reset_index(drop=True)
        if rows.empty:
            there = ", ".join(s for s in SPLITS if (self.index["split"] == s).any()) or "none"
            raise DatasetError(f"dataset {self.path} has no {split!r} images: its splits are {there}")
        return rows


def write_table(folder: Path, name: str, table: pd.DataFrame) -> str:
    """Write a CSV table atomically; return its SHA-256."""
    text = table.to_csv(index=False, lineterminator="\n")
    write_atomic(folder / name, text)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_table(folder: Path, manifest: Manifest, name: str, types: dict[str, type]) -> pd.DataFrame:
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise DatasetError(f"{name} cannot be read ({error.strerror}): run convert again") from error
    if hashlib.sha256(data).hexdigest() != manifest.tables.get(name):
        raise DatasetError(f"{name} is not the file that convert wrote: its checksum differs; run convert again")
    table = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    if tuple(table.columns) != tuple(types):
        raise DatasetError(f"{name} has the columns {', '.join(table.columns)}: run convert again")
    try:
        return table.astype({column: kind for column, kind in types.items() if kind is not str})
    except ValueError as error:
        raise DatasetError(f"{name} cannot be read ({error}): run convert again") from error


def _check_files(folder: Path, manifest: Manifest, index: pd.DataFrame) -> None:
    """Check that each file of pixels is there with the size it had."""
    sizes = {shard.name: shard.bytes for shard in manifest.shards}
    names = sizes if manifest.layout == "shards" else index["shard"]
    for name in names:
        path = folder / str(name)
        try:
            found = path.stat().st_size
        except OSError as error:
            raise DatasetError(f"{name} is missing ({error.strerror}): run convert again") from error
        if found != sizes.get(str(name), found):
            raise DatasetError(f"{name} has {found} bytes, the manifest says {sizes[str(name)]}: run convert again")
