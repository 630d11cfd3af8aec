"""The unit of conversion: a task is some images, those of one shard for instance; its record is what becomes of them.

A disposable process (:mod:`pneumo_fast.conversion.child`) does one after the other
(:mod:`pneumo_fast.conversion.shard`) for a supervisor (:mod:`pneumo_fast.conversion.supervisor`). It imports nothing
heavy, no pixels pass through a pipe, and before each file it notes in memory shared with the supervisor which
file it is at, so that a hang or a crash can be attributed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pneumo_fast.files import read_regular, sync_filesystem, sync_path, write_atomic
from pneumo_fast.radiograph.metadata import Metadata
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
    place: int = 0
    """Where its pixels go in :attr:`Task.memory`, counted in images."""


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
    """Whether files that are written are kept: only then are they hashed and flushed to disk, and the record kept."""
    memory: int | None = None
    """Descriptor of memory that takes the pixels: no file is written, and nothing is hashed."""
    gpu: int | None = None
    """Number of the GPU that decodes what it can, where ``decode`` is ``gpu``; None for the CPU, in full."""

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
    """One row per stored image, for the index; where images are not to last, with ``sums`` of its values and of their
    squares."""
    rejects: list[dict[str, str]]
    """One row per rejected file: path, reason, detail."""

    def keep(self, task: Task) -> None:
        """Write it into a file, once what it tells of is safe from a power cut.

        Raises
        ------
        OSError
            If something cannot be written.
        """
        if task.layout == "folder":
            sync_filesystem(task.out)  # at once for all files
        elif self.bytes:
            sync_path(task.out / f"{task.name}.npy")
        write_atomic(task.record_path, json.dumps(shallow(self)), sync=False)  # one that is lost costs the task again

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


def count_rejects(rejects: Iterable[dict[str, str]]) -> tuple[int, int]:
    """How many files were rejected for a fault, and how many skipped because they are another object than is wanted."""
    reasons = [reject["reason"] for reject in rejects]
    skipped = sum(reason in SKIPPED for reason in reasons)
    return len(reasons) - skipped, skipped


def shallow(data: Metadata | Record) -> dict[str, Any]:
    """The fields of a dataclass by name; :func:`dataclasses.asdict` would copy them deeply."""
    return {f.name: getattr(data, f.name) for f in fields(data)}
