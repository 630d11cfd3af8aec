"""What worker processes read goes from hand to hand: in files that are written, taken and removed, or in memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, Final

import numpy as np

from pneumo_fast.conversion.task import Record, Task
from pneumo_fast.dataset.npy import Images

NICENESS: Final = 10
"""Of workers that share the cores with the model: its threads wait for one another, so that one that is kept from its
core keeps them all."""


class SharedImages:
    """Memory for decoded images that worker processes write into; it goes with the last process that has it open.

    Parameters
    ----------
    count, pixels : int
        Room for so many images of so many pixels.
    dtype : float16 or uint8
    """

    def __init__(self, count: int, pixels: int, dtype: np.dtype[Any]) -> None:
        self.descriptor = os.memfd_create("pneumo-fast-images")
        """Open here; to be passed to the worker processes."""
        os.truncate(self.descriptor, count * pixels * dtype.itemsize)
        memory = mmap.mmap(self.descriptor, count * pixels * dtype.itemsize)
        self.images: Images = np.frombuffer(memory, dtype=dtype).reshape(count, pixels)
        """Shape (count, pixels)."""

    def close(self) -> None:
        """Give the memory back, as soon as nothing else refers to the images."""
        os.close(self.descriptor)
        del self.images


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
