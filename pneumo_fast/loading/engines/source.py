"""The engine of datasets whose pixels stay in the source files: worker processes decode them as ``convert`` does.

What is decoded is kept in memory as far as there is room, so that as a rule only the first epoch decodes. A file that
cannot be read any more costs its image alone: the batch is smaller by it, and it is not tried again.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pneumo_fast.conversion.executors import local_workers, worker_count
from pneumo_fast.conversion.parts import NICENESS, clear, prepare, take
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


class SourceEngine(FusedEngine):
    """Decodes images in worker processes; normalizes them, and keeps them, here.

    Parameters
    ----------
    feed : Feed
        For the CPU.
    reader : SourceReader
        That of the feed.
    shared : bool
        Whether the model computes on the same cores.
    """

    def __init__(self, feed: Feed, reader: SourceReader, *, shared: bool) -> None:
        workers, count = worker_count(None, reader.decode), len(reader)
        super().__init__(replace(feed, threads=READ_AHEAD + 1))  # they wait for the workers
        self._reader = reader
        self._part = min(LARGEST_PART, math.ceil(feed.max_batch * (READ_AHEAD + 1) / (2 * workers)))
        room = split_bytes(feed) <= KEPT_SHARE * device_memory(feed.device)[0]
        self._kept: Images | None = np.empty((count, math.prod(reader.shape)), reader.dtype) if room else None
        self._is_kept, self._is_lost = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        self._lock, self._names = threading.Lock(), itertools.count()
        self._rejects: dict[int, dict[str, str]] = {}
        self._held = ExitStack()
        self._work = Path(self._held.enter_context(TemporaryDirectory(prefix="pneumo-fast-")))
        prepare(self._work)
        self._submit = self._held.enter_context(local_workers(workers, NICENESS if shared else 0))

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
        if self._kept is not None:
            for decoded, images in self._decode(missing):
                self._kept[decoded], self._is_kept[decoded] = images, True
            there = rows[self._is_kept[rows]]
            self._normalizer.gather(self._kept, there, out[: len(there)])
            return there
        parts = list(self._decode(missing))
        decoded = np.concatenate([np.empty(0, dtype=np.int64), *(numbers for numbers, _ in parts)])
        there = rows[np.isin(rows, decoded)]
        if len(there):
            images = np.concatenate([images for _, images in parts])
            self._normalizer.gather(images, np.searchsorted(decoded, there), out[: len(there)])
        return there

    def _decode(self, rows: Rows) -> Iterator[tuple[Rows, Images]]:
        """Those of some rows, in ascending order, that can be read, and their images, shape (n, pixels); by parts."""
        parts = np.split(rows, range(self._part, len(rows), self._part)) if len(rows) else []
        tasks = [self._reader.task(f"part-{next(self._names)}", part.tolist(), self._work) for part in parts]
        futures = [self._submit(task, self._reader.timeout_s) for task in tasks]
        for task, future in zip(tasks, futures, strict=True):
            try:
                future.result()
            except ConvertError as error:
                raise DatasetError(
                    f"images cannot be decoded by way of {self._work} ({error}): make room there, or set TMPDIR"
                ) from error
            taken = take(task)
            clear(task)
            if taken is None:
                raise DatasetError(f"{self._work} was changed while files were read: let nothing else write there")
            record, found = taken
            numbers, same = self._compare(record)
            images = found.reshape(len(found), math.prod(self._reader.shape))
            yield (numbers, images) if same.all() else (numbers[same], images[same])

    def _compare(self, record: Record) -> tuple[Rows, NDArray[np.bool_]]:
        """Row numbers of the images in a part, and which of them are still those of the index; the others are lost."""
        numbers = np.array([int(row["image_id"]) for row in record.images], dtype=np.int64)
        pairs = zip(numbers.tolist(), record.images, strict=True)
        same = np.array([self._reader.is_same(number, row) for number, row in pairs], dtype=bool)
        self._lose([*record.rejects, *({"path": str(number), **CHANGED} for number in numbers[~same].tolist())])
        return numbers, same

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
