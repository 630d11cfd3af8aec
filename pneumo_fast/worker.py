"""The unit of conversion: one task reads its images and writes one whole shard and a record of it.

:func:`main` is the disposable child process that does so, task after task, for a supervisor
(:mod:`pneumo_fast.supervise`). It imports nothing heavy, no pixels cross a process boundary, and before each file
it notes in memory shared with the supervisor which file it is at, so that a hang or a crash can be attributed.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import pickle
import resource
import select
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.dicom import read_radiograph
from pneumo_fast.errors import RejectedImageError
from pneumo_fast.files import sync_filesystem, write_atomic
from pneumo_fast.metadata import Metadata
from pneumo_fast.npy import SCALES, Images, store_unit, write_array
from pneumo_fast.options import Decode, Dtype, Layout, Window

WORK_FOLDER = ".convert"
JOURNAL = struct.Struct("<qd")  # position of the source being read, and when that began (monotonic clock, seconds)
NO_FILE = -1  # the position between files
MEMORY_BYTES = 6 << 30  # address space of a worker beside its shard: a decoder that wants more is stopped by this
IDLE_S = 20.0  # a worker that is given nothing to do for so long ends; another is started when needed


@dataclass(frozen=True, kw_only=True, slots=True)
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
    """Dataset folder."""
    sources: tuple[Source, ...] = field(repr=False)
    size: int
    dtype: Dtype
    layout: Layout
    decode: Decode
    window: Window
    max_pixels: int

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
    sha256: str
    """Checksum of the shard file; empty where there is none."""
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
            record = cls(**json.loads(task.record_path.read_bytes()))
            files = {row["shard"]: record.bytes for row in record.images}
            sizes = [(task.out / name).stat().st_size == expected or not expected for name, expected in files.items()]
        except (OSError, ValueError, TypeError):
            return None
        return record if all(sizes) else None


def convert_task(
    task: Task, condemned: dict[int, tuple[str, str]], at: Callable[[int], None], memory: bytearray
) -> tuple[int, int]:
    """Convert one task's images; return how many were stored and how many rejected.

    Parameters
    ----------
    condemned : dict
        Sources, by position, that killed or stopped a worker before, with reason and detail: not read again.
    at : callable
        Called with the position of a source before it is read, and with :data:`NO_FILE` after the last.
    memory : bytearray
        Where the images are gathered; grown if too small.

    Raises
    ------
    OSError
        If the shard cannot be written.
    """
    stored = _buffer(task, memory)
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, str]] = []
    for position, source in enumerate(task.sources):
        at(position)
        try:
            if position in condemned:
                raise RejectedImageError(*condemned[position])
            rows.append(_read_image(task, source, stored[len(rows)], len(rows)))
        except RejectedImageError as error:
            rejects.append({"path": source.shown_path, "reason": error.reason, "detail": error.detail})
    at(NO_FILE)
    kept = stored[: len(rows)]
    sums = [_sums(image, SCALES[task.dtype]) for image in kept]
    record = Record(
        name=task.name,
        split=task.split,
        **_write(task, kept, rows),
        sum=sum(s for s, _ in sums),
        square_sum=sum(q for _, q in sums),
        pixels=kept.size - sum(row["padding_pixels"] for row in rows),
        images=rows,
        rejects=rejects,
    )
    write_atomic(task.record_path, json.dumps(_shallow(record)))
    return len(rows), len(rejects)


def _read_image(task: Task, source: Source, out: Images, row: int) -> dict[str, Any]:
    """Read one image into its row of the shard; return its row of the index."""
    path = task.images / source.path
    radiograph = read_radiograph(
        path, task.size, decode_mode=task.decode, window=task.window, max_pixels=task.max_pixels
    )
    store_unit(radiograph.pixels, out)
    in_folder = task.layout == "folder"
    return {
        "image_id": source.image_id,
        "split": task.split,
        "shard": f"{task.split}/{source.label}/{source.image_id}.npy" if in_folder else f"{task.name}.npy",
        "row": 0 if in_folder else row,
        **_shallow(radiograph.metadata),
        "intensity": radiograph.intensity,
        "padding_pixels": radiograph.padding_pixels,
        "notes": " ".join(radiograph.notes),
        "uid_hash": radiograph.uid_hash,
        "pixel_hash": hashlib.sha256(out.data).hexdigest()[:16],
    }


def _write(task: Task, kept: Images, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the shard, or each image of the folder layout; return the shard file's size and checksum."""
    if task.layout == "folder":
        for row, image in zip(rows, kept, strict=True):
            path = task.out / row["shard"]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_array(path, image, sync=False)
        sync_filesystem(task.out)  # at once for all of them, and before the record says that they are there
        return {"bytes": 0, "sha256": ""}
    if not rows:
        return {"bytes": 0, "sha256": ""}
    path = task.out / f"{task.name}.npy"
    sha256 = write_array(path, kept)
    return {"bytes": path.stat().st_size, "sha256": sha256}


def _sums(image: Images, scale: float) -> tuple[float, float]:
    """Sum and squared sum of one stored image, in float64; padding is 0 and adds nothing."""
    values: NDArray[np.float64] = image.astype(np.float64).ravel() / scale
    return float(values.sum()), float(values @ values)


def _buffer(task: Task, memory: bytearray) -> Images:
    """An array for a task's images, in memory that grows to the largest task: fresh pages are dear."""
    dtype = np.dtype(task.dtype).newbyteorder("<")
    shape = (len(task.sources), task.size, task.size)
    if (missing := math.prod(shape) * dtype.itemsize - len(memory)) > 0:
        memory.extend(bytes(missing))
    return np.frombuffer(memory, dtype=dtype, count=math.prod(shape)).reshape(shape)


def _shallow(data: Metadata | Record) -> dict[str, Any]:
    """The fields of a dataclass by name; :func:`dataclasses.asdict` would copy them deeply."""
    return {f.name: getattr(data, f.name) for f in fields(data)}


def main() -> None:
    """Serve tasks from standard input until it ends; answer each with one line of JSON on standard output.

    Argument: the descriptor of the journal's memory.
    """
    journal = mmap.mmap(int(sys.argv[1]), JOURNAL.size)
    answers = os.fdopen(os.dup(1), "w")
    memory = bytearray()
    os.dup2(2, 1)  # whatever a native decoder prints must not pass for an answer

    def at(position: int) -> None:
        JOURNAL.pack_into(journal, 0, position, time.monotonic())

    while select.select([sys.stdin], [], [], IDLE_S)[0]:
        try:
            task, condemned = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the supervisor, which started us
        except EOFError:
            return
        _limit_memory(task)
        try:
            stored, rejected = convert_task(task, condemned, at, memory)
            answer: dict[str, int | str] = {"stored": stored, "rejected": rejected}
        except OSError as error:
            answer = {"error": error.strerror or type(error).__name__}
        at(NO_FILE)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _limit_memory(task: Task) -> None:
    """Make an absurd allocation fail in this process instead of bringing the machine down."""
    shard = len(task.sources) * task.size * task.size * 4
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = MEMORY_BYTES + shard
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
