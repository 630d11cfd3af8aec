"""The unit of conversion: one task reads its images and writes one whole shard and a record of it.

A disposable process (:mod:`pneumo_fast.conversion.child`) does so, task after task, for a supervisor
(:mod:`pneumo_fast.conversion.supervisor`). It imports nothing heavy, no pixels cross a process boundary, and before
each file it notes in memory shared with the supervisor which file it is at, so that a hang or a crash can be
attributed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from pneumo_fast.dataset.npy import Images, ShardWriter, image_digest, pixel_hash, store_unit, write_array
from pneumo_fast.dataset.pseudonyms import pseudonym
from pneumo_fast.errors import RejectedImageError
from pneumo_fast.files import read_regular, sync_filesystem, write_atomic
from pneumo_fast.radiograph.metadata import Metadata
from pneumo_fast.radiograph.read import Facts, read_facts, read_radiograph
from pneumo_fast.radiograph.rejection import SKIPPED
from pneumo_fast.radiograph.selection import Selection
from pneumo_fast.vocabulary import Decode, Dtype, Layout, Window

WORK_FOLDER = ".convert"
JOURNAL = struct.Struct("<qd")  # position of the source being read, and when that began (monotonic clock, seconds)
NO_FILE = -1  # the position between files


@dataclass(frozen=True, slots=True)
class Source:
    """One image to convert."""

    image_id: str
    """As it will be written."""
    path: str = field(repr=False)
    """Relative to the images folder; it may name a patient, so no log of a cluster shows it."""
    shown_path: str
    """As it will be written if the file is rejected."""
    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """All that a worker needs to make one shard."""

    name: str
    """Name of the shard without its ending, for instance ``train-00000``."""
    split: str
    images: Path
    """Folder that the sources' paths start from."""
    out: Path
    sources: tuple[Source, ...] = field(repr=False)
    """Of those with one id, which follow each other, the first that can be read is taken."""
    size: int
    dtype: Dtype
    layout: Layout
    decode: Decode
    window: Window
    max_pixels: int
    key: bytes = field(repr=False)
    """The hash key: a hash of a UID without it could be found again by trying UIDs."""
    selection: Selection | None = None
    """What is wanted; without one whatever can be read."""
    pixels: bool = True
    """Whether pixels are decoded, and not headers alone looked at."""
    lasting: bool = True
    """Whether the files are kept: only then are they hashed, and flushed to disk."""

    @property
    def record_path(self) -> Path:
        """Where the record of the finished shard lies; it is written after the shard."""
        return self.out / WORK_FOLDER / f"{self.name}.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What became of a task."""

    name: str
    split: str
    bytes: int
    """Size of the shard file; 0 where there is none."""
    checksum: str
    """Of the shard (:func:`~pneumo_fast.dataset.npy.shard_checksum`); empty where there is none."""
    sum: float
    """Of all pixels, in [0, 1] each."""
    square_sum: float
    pixels: int
    """Pixels that are no padding."""
    images: list[dict[str, Any]]
    """One row per stored image, for the index."""
    rejects: list[dict[str, str]]
    """One row per rejected file: path, reason, detail."""

    @classmethod
    def find(cls, task: Task) -> Record | None:
        """The record of a finished task; None if it is not finished, or if what it wrote is no longer whole."""
        try:
            record = cls(**json.loads(read_regular(task.record_path)))
            in_source = task.layout == "source"
            files = {} if in_source else {row["shard"]: record.bytes for row in record.images}
            sizes = [(task.out / name).stat().st_size == expected or not expected for name, expected in files.items()]
        except (OSError, ValueError, TypeError):
            return None
        return record if all(sizes) else None


def convert_task(task: Task, condemned: dict[int, tuple[str, str]], at: Callable[[int], None]) -> tuple[int, int, int]:
    """Convert one task's images; return how many were stored, rejected, and skipped as no wanted radiographs.

    Parameters
    ----------
    condemned : dict
        Sources, by position, that killed or stopped a worker before, with reason and detail: not read again.
    at : callable
        Called with the position of a source before it is read, and with :data:`NO_FILE` after the last.

    Raises
    ------
    OSError
        If the shard cannot be written.
    """
    images = len({source.image_id for source in task.sources})
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, str]] = []
    totals: list[tuple[float, float]] = []
    stored: Images = np.empty((task.size, task.size), np.dtype(task.dtype).newbyteorder("<"))
    with ShardWriter(task.out / f"{task.name}.npy", expected=images - len(condemned)) as shard:
        for position, source in enumerate(task.sources):
            at(position)
            try:
                if position in condemned:
                    raise RejectedImageError(*condemned[position])
                if rows and rows[-1]["image_id"] == source.image_id:
                    raise RejectedImageError("not_the_first", "another file of the row was taken")
                row, total = _read_image(task, source, stored, len(rows))
            except RejectedImageError as error:
                rejects.append({"path": source.shown_path, "reason": error.reason, "detail": error.detail})
            else:
                digest = image_digest(stored) if task.lasting and task.layout != "source" else b""
                row["pixel_hash"] = pixel_hash(digest)
                if task.layout == "folder":
                    path = task.out / row["shard"]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_array(path, stored, sync=False)
                elif task.layout == "shards":
                    shard.append(stored, digest)
                rows.append(row)
                totals.append(total)
        at(NO_FILE)
        size, checksum = shard.finish(sync=task.lasting)
    if task.layout == "folder":
        sync_filesystem(task.out)  # at once for all of them, and before the record says that they are there
    record = Record(
        name=task.name,
        split=task.split,
        bytes=size,
        checksum=checksum,
        sum=sum(total for total, _ in totals),
        square_sum=sum(square for _, square in totals),
        pixels=sum(task.size**2 - row["padding_pixels"] for row in rows) if task.pixels else 0,
        images=rows,
        rejects=rejects,
    )
    write_atomic(task.record_path, json.dumps(_shallow(record)), sync=False)  # one that is lost costs the task again
    return len(rows), *count_rejects(rejects)


def count_rejects(rejects: Iterable[dict[str, str]]) -> tuple[int, int]:
    """How many files were rejected for a fault, and how many skipped because they are another object than is wanted."""
    reasons = [reject["reason"] for reject in rejects]
    skipped = sum(reason in SKIPPED for reason in reasons)
    return len(reasons) - skipped, skipped


def _read_image(task: Task, source: Source, out: Images, row: int) -> tuple[dict[str, Any], tuple[float, float]]:
    """Read one image into ``out``, where pixels are wanted; return its row of the index, and the sums of its pixels."""
    path = task.images / source.path
    facts: Facts
    total = 0.0, 0.0
    if task.pixels:
        facts = radiograph = read_radiograph(
            path, task.size, decode_mode=task.decode, window=task.window, max_pixels=task.max_pixels,
            selection=task.selection,
        )  # fmt: skip
        total = store_unit(radiograph.pixels, out)
    else:
        facts = read_facts(path, task.size, window=task.window, max_pixels=task.max_pixels, selection=task.selection)
    columns = {
        "image_id": source.image_id,
        "split": task.split,
        "shard": _file_of(task, source),
        "row": row if task.layout == "shards" else 0,
        **_shallow(facts.metadata),
        "intensity": facts.intensity,
        "padding_pixels": facts.padding_pixels,
        "notes": " ".join(facts.notes),
        "uid_hash": pseudonym(task.key, "uid", facts.uid_hash),
        "pixel_hash": "",  # it is hashed where it is written
    }
    return columns, total


def _file_of(task: Task, source: Source) -> str:
    """The file that holds the pixels of an image, as the index names it."""
    if task.layout == "shards":
        return f"{task.name}.npy"
    return source.shown_path if task.layout == "source" else f"{task.split}/{source.label}/{source.image_id}.npy"


def _shallow(data: Metadata | Record) -> dict[str, Any]:
    """The fields of a dataclass by name; :func:`dataclasses.asdict` would copy them deeply."""
    return {f.name: getattr(data, f.name) for f in fields(data)}
