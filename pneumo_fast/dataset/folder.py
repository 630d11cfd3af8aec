"""Opens a dataset folder and checks it; :mod:`pneumo_fast.dataset.format` has the manifest and the columns.

A shard is a plain ``.npy`` file of stacked images, little-endian and in C order, so ``np.load(..., mmap_mode="r")``
reads it anywhere. The manifest is written last: a folder without one is not a dataset.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pandas as pd

from pneumo_fast.dataset.format import BOX_TYPES, BOXES, INDEX, INDEX_TYPES, MANIFEST, Manifest
from pneumo_fast.errors import DatasetError
from pneumo_fast.files import AnyPath, atomic_file, open_regular, read_regular, sha256_of
from pneumo_fast.folder_kinds import check_kind
from pneumo_fast.records import LARGEST_BYTES
from pneumo_fast.vocabulary import SPLITS

LARGEST_TABLE: Final = 1 << 32
"""Bytes; the index of ten million images has 1.5 GB."""
ROWS_AT_ONCE: Final = 1 << 16
"""Of a table that is written; as text they take some 10 MB."""


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
    key_ids: frozenset[str]
    """Pseudonyms of the hash keys it was made with: one, or several where datasets are joined."""

    @classmethod
    def open(cls, path: AnyPath, *, check_files: bool = True) -> Dataset:
        """Open a dataset folder and check what can be checked without reading pixels.

        Parameters
        ----------
        check_files : bool
            Whether each file of pixels must be there with its size; ``verify`` looks closer itself.

        Raises
        ------
        DatasetError
            If there is no folder or no manifest, or a table or shard is missing, changed or of the wrong size.
        """
        path = Path(path)
        manifest_path = path / MANIFEST
        try:
            text = read_regular(manifest_path, LARGEST_BYTES)
        except (FileNotFoundError, NotADirectoryError) as error:
            check_kind(path, "dataset")
            raise DatasetError(f"{path} is not a dataset: it has no manifest.json; run pneumo-fast convert") from error
        except OSError as error:
            raise DatasetError(
                f"{path} is not a dataset: its manifest.json cannot be read ({error.strerror}); run pneumo-fast convert"
            ) from error
        try:
            manifest = Manifest.from_json(text.decode())
            index = _read_table(path, manifest, INDEX, INDEX_TYPES)
            boxes = _read_table(path, manifest, BOXES, BOX_TYPES)
            _check_places(manifest, index)
            if check_files:
                _check_files(path, manifest, index)
        except (DatasetError, ValueError) as error:
            raise DatasetError(f"dataset {path}: {error}") from error
        return cls(
            path=path,
            manifest=manifest,
            index=index,
            boxes=boxes,
            identity=hashlib.sha256(text).hexdigest(),
            key_ids=frozenset({str(manifest.split.get("hash_key_id", ""))}),
        )

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

    @property
    def train_pixels(self) -> int:
        """Pixels of the train split that are no padding."""
        rows = self.rows("train")
        return len(rows) * self.size**2 - int(rows["padding_pixels"].sum())

    def rows(self, split: str) -> pd.DataFrame:
        """Rows of the index that belong to a split, in storage order, numbered from 0.

        Parameters
        ----------
        split : str
            ``train``, ``val`` or ``test``.

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
    digest = hashlib.sha256()
    with atomic_file(folder / name) as file:
        for start in range(0, max(len(table), 1), ROWS_AT_ONCE):
            text = csv_text(table[start : start + ROWS_AT_ONCE], header=start == 0).encode()
            digest.update(text)
            file.write(text)
    return digest.hexdigest()


def csv_text(table: pd.DataFrame, *, header: bool = True) -> str:
    """A table as CSV: commas, quotes only where necessary, and the same in every version of Python."""
    text = table.to_csv(index=False, header=header, lineterminator="\n")
    if "\r" not in text:
        return text
    quoted = table.to_csv(index=False, header=header, lineterminator="\n", quoting=csv.QUOTE_ALL)
    return "".join(csv_line(cells) for cells in csv.reader(io.StringIO(quoted, newline="")))


def csv_line(cells: Iterable[str]) -> str:
    """A line of CSV, with its end."""
    return ",".join(map(_quoted, cells)) + "\n"


def _quoted(cell: str) -> str:
    """In quotation marks where it needs them; for a carriage return as well, which csv overlooks before Python 3.13."""
    return '"' + cell.replace('"', '""') + '"' if any(mark in cell for mark in ',"\r\n') else cell


def _read_table(folder: Path, manifest: Manifest, name: str, types: dict[str, type]) -> pd.DataFrame:
    try:
        with open_regular(folder / name, LARGEST_TABLE) as file:
            # hashed piece by piece first: a file that is not ours may be of any size
            if sha256_of(file) != manifest.tables.get(name):
                raise DatasetError(
                    f"{name} is not the file that convert wrote: its checksum differs; run convert again"
                )
            file.seek(0)
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except OSError as error:
        raise DatasetError(f"{name} cannot be read ({error.strerror}): run convert again") from error
    if tuple(table.columns) != tuple(types):
        raise DatasetError(f"{name} has the columns {', '.join(table.columns)}: run convert again")
    try:
        return table.astype({column: kind for column, kind in types.items() if kind is not str})
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"{name} cannot be read ({error}): run convert again") from error


def _check_places(manifest: Manifest, index: pd.DataFrame) -> None:
    """Refuse images whose split or label is unknown, or that do not lie in the dataset's own files."""
    shards = {shard.name: shard.rows for shard in manifest.shards}
    if manifest.layout == "shards":
        rows = index["shard"].map(shards)  # NaN, which no comparison is true for, where there is no such shard
    else:
        inside = {name for name in set(index["shard"]) if _is_inside(name)}
        rows = index["shard"].isin(inside).astype(int)
    wrong = {
        "shard": ~(rows > 0),
        "row": ~(index["row"].ge(0) & index["row"].lt(rows)),
        "split": ~index["split"].isin(SPLITS),
        "label": ~index["label"].isin([0, 1]),
    }
    for column, found in wrong.items():
        if found.any():
            value = index.loc[found, column].iloc[0]
            raise DatasetError(
                f"index.csv has {found.sum()} images of an impossible {column}, first {value!r}: run convert again"
            )


def _is_inside(name: str) -> bool:
    """Whether a relative path stays below the folder it starts from."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _check_files(folder: Path, manifest: Manifest, index: pd.DataFrame) -> None:
    """Check that each file of pixels is there with the size it had; of source files, that their folder is."""
    if manifest.source is not None:
        if not Path(manifest.source.folder).is_dir():
            raise DatasetError(
                f"the folder of its images, {manifest.source.folder}, is not there: bring it back, or run convert again"
            )
        return
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
