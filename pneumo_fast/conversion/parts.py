"""What worker processes read goes from hand to hand in files: a part of the work is written, taken and removed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from pneumo_fast.conversion.task import WORK_FOLDER, Record, Task
from pneumo_fast.dataset.npy import Images

NICENESS: Final = 10
"""Of workers that share the cores with the model: its threads wait for one another, so that one that is kept from its
core keeps them all."""


def prepare(work: Path) -> None:
    """Make the folder that workers write into."""
    (work / WORK_FOLDER).mkdir(parents=True, exist_ok=True)


def take(task: Task) -> tuple[Record, Images] | None:
    """What became of a task's files, and the stored images, (n, size, size); None where what was written is gone."""
    record = Record.find(task)
    if record is None:
        return None
    if not record.images:
        return record, np.empty((0, task.size, task.size), np.dtype(task.dtype).newbyteorder("<"))
    return record, np.load(_shard(task))


def clear(task: Task) -> None:
    """Remove what a worker wrote."""
    _shard(task).unlink(missing_ok=True)
    task.record_path.unlink(missing_ok=True)


def _shard(task: Task) -> Path:
    return task.out / f"{task.name}.npy"
