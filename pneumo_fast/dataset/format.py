"""The dataset format: manifest, and the columns of the tables; ``docs/format.md`` specifies it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pneumo_fast import folder_kinds
from pneumo_fast.dataset.npy import SCALES
from pneumo_fast.errors import DatasetError
from pneumo_fast.records import Fault, Head, build, parse
from pneumo_fast.vocabulary import LARGEST_SIZE, Dtype, Ids, Layout

FORMAT: Final = "pneumo-fast dataset"
FORMAT_VERSION: Final = 3
READABLE: Final = (1, 2, 3)
HASHED_ONCE: Final = 3
"""The first version in which a shard's checksum is that of its images' digests; before, it was that of the file."""
MANIFEST: Final = folder_kinds.MANIFEST
INDEX: Final = "index.csv"
BOXES: Final = "boxes.csv"

INDEX_TYPES: Final[dict[str, type]] = {
    "image_id": str, "split": str, "shard": str, "row": int, "label": int, "group": str,
    "sex": str, "age": str, "view": str, "body_part": str, "class": str,
    "height": int, "width": int, "spacing_mm": str, "bits_stored": int, "photometric": str,
    "intensity": str, "padding_pixels": int, "burned_in": str, "notes": str, "pixel_hash": str,
}  # fmt: skip
"""Columns of ``index.csv`` in their order: the allow-list of what may be known of an image."""
BOX_COLUMNS: Final = ("image_id", "x", "y", "width", "height", "source_width", "source_height")
BOX_TYPES: Final[dict[str, type]] = {name: str if name == "image_id" else float for name in BOX_COLUMNS}
REJECT_COLUMNS: Final = ("path", "reason", "detail")
UNMATCHED: Final = "unmatched.csv"
"""The rows of the label table without a file."""
WITHOUT_ROW: Final = "files_without_row.csv"
"""The files that no row of the label table claims."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One shard file, as the manifest lists it."""

    name: str
    """File name inside the dataset folder."""
    split: str
    rows: int
    """Images in the file."""
    bytes: int
    checksum: str
    """Of :func:`~pneumo_fast.dataset.npy.shard_checksum`; before :data:`HASHED_ONCE` SHA-256 of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFiles:
    """Where the pixels of a dataset of layout ``source`` are, and how they are read."""

    folder: str
    """That the files are below."""
    hash_key: str
    """File of the key that the names of files are pseudonyms by, where it is not the default one."""
    max_rejects: int | float
    """Files of a split that may turn out unreadable: a count, or a share."""
    timeout_s: float
    """Seconds that reading one file may take."""
    statistics_of: int
    """Training images that mean and standard deviation were taken from."""


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
    ids: Ids
    """Whether image ids, and paths of rejected files, are pseudonyms or those of the input."""
    preprocessing: dict[str, Any]
    split: dict[str, Any]
    counts: dict[str, dict[str, int]]
    input: dict[str, Any]
    duplicates: dict[str, int]
    rejects: dict[str, int]
    arguments: dict[str, Any]
    shards: tuple[ShardInfo, ...]
    tables: dict[str, str]
    source: SourceFiles | None = None
    """Of layout ``source`` alone."""

    def to_json(self) -> str:
        """Text of ``manifest.json``; the same manifest always gives the same bytes."""
        values = asdict(self)
        if self.source is None:
            del values["source"]
        return json.dumps(values, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes | str) -> Manifest:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        DatasetError
            If the text is no manifest, or one of another format version.
        """
        try:
            values = parse(text)
            head = build(values, Head)
            if head.format != FORMAT or head.format_version not in READABLE:
                raise DatasetError(
                    f"format {head.format!r} version {head.format_version!r}; this release reads {FORMAT!r} version "
                    f"{READABLE[0]} to {READABLE[-1]}: convert the images again"
                )
            if head.format_version < HASHED_ONCE:
                values = _with_checksums(values)
            if head.format_version < 2:
                values = _with_kept_ids(values)
            manifest = build(values, cls, closed=True)
        except Fault as error:
            raise DatasetError(f"not a complete manifest ({error}): convert the images again") from error
        manifest._check()
        return manifest

    def _check(self) -> None:
        """Refuse values that would give wrong pixels further on."""
        height, width = self.image_shape
        if self.scale != SCALES[self.dtype]:
            raise DatasetError(f"dtype {self.dtype!r} with scale {self.scale!r}: expected one of {SCALES}")
        if height != width or not 1 <= height <= LARGEST_SIZE:
            raise DatasetError(
                f"image_shape {self.image_shape!r}: expected two equal whole numbers up to {LARGEST_SIZE}"
            )
        if not (0.0 <= self.mean <= 1.0 and 0.0 < self.std <= 1.0):
            raise DatasetError(f"mean {self.mean!r}, std {self.std!r}: expected 0 to 1, and a std above 0")
        if (self.layout == "source") != (self.source is not None):
            raise DatasetError(f"layout {self.layout!r} with source {self.source!r}: expected with layout source alone")
        for shard in self.shards:
            if Path(shard.name).name != shard.name:
                raise DatasetError(f"shard name {shard.name!r}: expected the name of a file in the folder")


def _with_checksums(values: dict[str, Any]) -> dict[str, Any]:
    """A manifest of version 2 with the names of version 3; its version tells what the checksums are of."""
    shards = values.get("shards")
    if not isinstance(shards, list) or not all(isinstance(shard, dict) for shard in shards):
        return values
    if any("checksum" in shard or "sha256" not in shard for shard in shards):
        raise Fault("$.shards: one sha256 each expected, and no checksum, before version 3")
    renamed = [{"checksum" if name == "sha256" else name: shard[name] for name in shard} for shard in shards]
    return {**values, "shards": renamed}


def _with_kept_ids(values: dict[str, Any]) -> dict[str, Any]:
    """A manifest of version 1 as later ones are; ids were kept then, unless ``hash_ids`` was given."""
    arguments = values.get("arguments")
    options = arguments.get("options") if isinstance(arguments, dict) else None
    if not isinstance(arguments, dict) or not isinstance(options, dict):
        return {**values, "ids": "kept"}
    kept = options.get("hash_ids") is not True
    options = {name: value for name, value in options.items() if name != "hash_ids"} | {"keep_ids": kept}
    ids = "kept" if kept else "pseudonyms"
    return {**values, "ids": ids, "arguments": {**arguments, "options": options}}
