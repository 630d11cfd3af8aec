"""The engine of datasets whose pixels stay in the source files: worker processes decode them as ``convert`` does.

What is decoded is kept in memory as far as there is room, so that as a rule only the first epoch decodes. A file that
cannot be read any more costs its image alone: the batch is smaller by it, and it is not tried again.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import threading
from concurrent.futures import wait
from contextlib import ExitStack, closing
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray

from pneumo_fast.conversion.executors import local_workers, worker_count
from pneumo_fast.conversion.gpu_decoder import DECODED_ON_GPU
from pneumo_fast.conversion.supervisor import Outcome
from pneumo_fast.conversion.task import Record
from pneumo_fast.dataset.npy import Images
from pneumo_fast.devices import device_memory
from pneumo_fast.errors import ConvertError, DatasetError
from pneumo_fast.loading.engines.base import READ_AHEAD, Feed
from pneumo_fast.loading.engines.fused import FusedEngine
from pneumo_fast.loading.engines.resident import split_bytes
from pneumo_fast.loading.rng import Rows
from pneumo_fast.loading.sources import SourceReader

logger = logging.getLogger(__name__)

KEPT_SHARE: Final = 0.25
"""Of the memory that is free, for the decoded images of one split; another split may take as much."""
LARGEST_PART: Final = 32
"""Images that a worker process decodes at once."""
CHANGED: Final = {"reason": "changed", "detail": "the file is no longer the one that was indexed"}


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


class SourceEngine(FusedEngine):
    """Decodes images in worker processes; normalizes them, and keeps them, here.

    Parameters
    ----------
    feed : Feed
        For the CPU.
    reader : SourceReader
        That of the feed.
    device : torch.device
        Where the model is: on a GPU, which may decode as well, or on the cores that the worker processes use.
    """

    def __init__(self, feed: Feed, reader: SourceReader, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._gpu = device.index or 0 if on_gpu and reader.decode == "gpu" else None
        self._told = False
        workers, count = worker_count(None, uses_gpu=self._gpu is not None), len(reader)
        threads = READ_AHEAD + 1  # they wait for the workers
        super().__init__(replace(feed, threads=threads))
        self._reader = reader
        self._part = min(LARGEST_PART, math.ceil(feed.max_batch * threads / (2 * workers)))
        self._keeps = split_bytes(feed) <= KEPT_SHARE * device_memory(feed.device)[0]
        self._is_kept, self._is_lost = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        self._lock = threading.Lock()
        self._rejects: dict[int, dict[str, str]] = {}
        self._free: SimpleQueue[Rows] = SimpleQueue()  # places for a batch each, where images are not kept
        for thread in range(0 if self._keeps else threads):
            self._free.put(np.arange(feed.max_batch) + thread * feed.max_batch)
        room = count if self._keeps else threads * feed.max_batch
        with ExitStack() as held:
            self._memory = held.enter_context(closing(SharedImages(room, math.prod(reader.shape), reader.dtype)))
            self._submit = held.enter_context(
                local_workers(workers, (self._memory.descriptor,), shares_cores=not on_gpu)
            )
            self._held = held.pop_all()

    @property
    def rejects(self) -> list[dict[str, str]]:
        """The files that could not be read: path, as it may be written, reason and detail."""
        with self._lock:
            return list(self._rejects.values())

    @property
    def rows(self) -> Rows:
        """Row numbers of the images in the batch delivered last, int64, shape (N,)."""
        return self._lent.taken if self._lent else np.empty(0, dtype=np.int64)

    def close(self) -> None:
        """See :class:`pneumo_fast.loading.engines.base.Engine`."""
        super().close()
        self._held.close()

    def _write(self, rows: Rows, out: NDArray[np.float32]) -> Rows:
        missing = np.unique(rows[~(self._is_kept[rows] | self._is_lost[rows])])
        if self._keeps:
            self._is_kept[self._decode(missing, missing)] = True
            there = rows[self._is_kept[rows] & ~self._is_lost[rows]]  # a file may have changed since it was kept
            self._normalizer.gather(self._memory.images, there, out[: len(there)])
            return there
        free = self._free.get()
        try:
            there = rows[np.isin(rows, self._decode(missing, free[: len(missing)]))]
            places = free[np.searchsorted(missing, there)]
            self._normalizer.gather(self._memory.images, places, out[: len(there)])
            return there
        finally:
            self._free.put(free)

    def _decode(self, rows: Rows, places: Rows) -> Rows:
        """Have the images of some rows put into their places of the memory; return the rows that are there."""
        cuts = range(self._part, len(rows), self._part)
        parts = list(zip(np.split(rows, cuts), np.split(places, cuts), strict=True)) if len(rows) else []
        tasks = [self._reader.task(*part, self._memory.descriptor, self._gpu) for part in parts]
        futures = [self._submit(task, self._reader.timeout_s) for task in tasks]
        try:
            return np.concatenate([rows[:0], *(self._unchanged(future.result()) for future in futures)])
        except ConvertError as error:
            raise DatasetError(f"images cannot be decoded ({error})") from error
        finally:
            wait(futures)  # until then they may be written into places that are used again

    def _unchanged(self, outcome: Outcome) -> Rows:
        """Row numbers of the images in a part that are still those of the index; the others are lost."""
        record = cast("Record", outcome.record)
        numbers = np.array([int(row["image_id"]) for row in record.images], dtype=np.int64)
        pairs = zip(numbers.tolist(), record.images, strict=True)
        same = np.array([self._reader.is_same(number, row) for number, row in pairs], dtype=bool)
        self._tell_of_cpu(record)
        self._lose([*record.rejects, *({"path": str(number), **CHANGED} for number in numbers[~same].tolist())])
        unchanged: Rows = numbers[same]
        return unchanged

    def _tell_of_cpu(self, record: Record) -> None:
        """Say once where the CPU decodes what the GPU was to decode."""
        by_gpu = [DECODED_ON_GPU in row["notes"] for row in record.images]
        with self._lock:
            if self._gpu is None or self._told or not by_gpu or any(by_gpu):
                return
            self._told = True
        logger.warning("the GPU decoded none of %d images, the CPU did: see pneumo-fast doctor", len(by_gpu))

    def _lose(self, rejects: list[dict[str, str]]) -> None:
        """Remember files that could not be read; DatasetError if they are too many."""
        with self._lock:
            for reject in rejects:
                row = int(reject["path"])
                if row not in self._rejects:
                    self._rejects[row] = {**reject, "path": self._reader.shown_path(row)}
                    self._is_lost[row] = True
                    logger.warning("%(path)s is left out: %(reason)s (%(detail)s)", self._rejects[row])
            if len(self._rejects) > self._reader.most_rejects:
                raise DatasetError(
                    f"{len(self._rejects)} of {len(self._reader)} image files cannot be read any more, "
                    f"{self._reader.most_rejects} are allowed: see to {self._reader.folder}, or index the images again "
                    "with a higher --max-rejects"
                )
