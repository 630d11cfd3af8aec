"""What worker processes read goes from hand to hand in files that are written, taken and removed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from pneumo_fast.conversion.task import Record, Task
from pneumo_fast.dataset.npy import Images

NICENESS: Final = 10
"""Of workers that share the cores with the model: its threads wait for one another, so that one that is kept from its
core keeps them all."""


def take(task: Task, record: Record) -> Images | None:
    """The images that a task has stored, (n, size, size); None where they are not there any more, or not whole."""
    if not record.images:
        return np.empty((0, task.size, task.size), np.dtype(task.dtype).newbyteorder("<"))
    try:
        whole = _shard(task).stat().st_size == record.bytes
        return np.load(_shard(task)) if whole else None
    except FileNotFoundError:
        return None


def clear(task: Task) -> None:
    """Remove what a worker wrote."""
    _shard(task).unlink(missing_ok=True)


def _shard(task: Task) -> Path:
    return task.out / f"{task.name}.npy"
