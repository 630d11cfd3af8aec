"""Has the converter's worker processes read files, a part at a time, while those before are being scored.

What a hostile file can do is the same as in ``convert``: its worker is stopped or replaced, and the file is rejected.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, cast

import numpy as np

from pneumo_fast.conversion.executors import Submit
from pneumo_fast.conversion.supervisor import Outcome
from pneumo_fast.conversion.task import Record, Source, Task
from pneumo_fast.dataset.npy import Images
from pneumo_fast.errors import PredictError
from pneumo_fast.prediction.files import File
from pneumo_fast.prediction.model import Model
from pneumo_fast.radiograph.selection import Selection

PARTS_WANTED: Final = 64
SMALLEST_PART, LARGEST_PART = 8, 128
"""Files that are read, scored and written together."""
AHEAD: Final = 2
"""Parts that are read ahead for each worker."""


def cut(
    files: Sequence[File], model: Model, selection: Selection, work: Path, key: bytes, largest: int = LARGEST_PART
) -> list[Task]:
    """Cut files into parts, by their count alone; each file's id and shown path are its number."""
    rows = min(max(math.ceil(len(files) / PARTS_WANTED), SMALLEST_PART), largest)
    preprocessing = model.input.preprocessing
    return [
        Task(
            name=f"part-{start // rows:07d}",
            split="predict",
            images=Path.cwd(),
            out=work,
            sources=tuple(
                Source(str(start + place), file.full, str(start + place), 0)
                for place, file in enumerate(files[start : start + rows])
            ),
            size=model.size,
            dtype=preprocessing.dtype,
            layout="shards",
            decode=preprocessing.decode,
            window=preprocessing.window,
            max_pixels=preprocessing.max_pixels,
            key=key,
            selection=selection,
            lasting=False,
            gpu=model.decoding_gpu,
        )
        for start in range(0, len(files), rows)
    ]


def read(
    tasks: Sequence[Task], submit: Submit, workers: int, timeout_s: float
) -> Iterator[tuple[Task, Record, Images]]:
    """Start to read at once; give each part, with what became of its files and the stored images, in order.

    A part's files go when it has been used.

    Parameters
    ----------
    submit : callable
        Hands a part to the ``workers`` worker processes.

    Raises
    ------
    PredictError
        If what a worker wrote is gone.
    ConvertError
        If a part cannot be written, or workers keep dying.
    """
    left = iter(tasks)
    running: deque[tuple[Task, Future[Outcome]]] = deque()

    def start(count: int) -> None:
        running.extend((task, submit(task, timeout_s)) for task in islice(left, count))

    def parts() -> Iterator[tuple[Task, Record, Images]]:
        while running:
            task, future = running.popleft()
            record = cast("Record", future.result().record)
            start(1)
            yield task, record, take(task, record)
            _clear(task)

    start(AHEAD * workers)
    return parts()


def take(task: Task, record: Record) -> Images:
    """The images that a task has stored, shape (n, size, size).

    Raises
    ------
    PredictError
        If they are not there any more, or not whole.
    """
    if not record.images:
        return np.empty((0, task.size, task.size), np.dtype(task.dtype).newbyteorder("<"))
    with suppress(FileNotFoundError):
        if _shard(task).stat().st_size == record.bytes:
            stored: Images = np.load(_shard(task))
            return stored
    raise PredictError(f"{task.out} was changed while files were read: let nothing else write there, and resume")


def _clear(task: Task) -> None:
    """Remove what a worker wrote."""
    _shard(task).unlink(missing_ok=True)


def _shard(task: Task) -> Path:
    return task.out / f"{task.name}.npy"
