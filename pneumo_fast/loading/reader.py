"""Reads stored images by positioned reads, from any thread."""

from __future__ import annotations

import os
import resource
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.npy import Images, read_header
from pneumo_fast.errors import DatasetError
from pneumo_fast.files import open_regular
from pneumo_fast.loading.rng import Rows

CLOSED = -1
HALF_ONE: Final = 0x3C00
"""The bits of 1 as float16. Those of inf, NaN and all that is negative are a larger number."""


def openable_files(wanted: int) -> int:
    """How many files a reader may keep open: a quarter of what the process may, so that others have room.

    Where that is fewer than are wanted, the process's soft limit is raised to its hard one, as other runtimes do when
    they start. A file that is not kept open costs a tenth of a millisecond more for each image.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft // 4 < wanted and soft < hard:
        soft = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft // 4


def _stamp(path: str) -> tuple[int, int, int]:
    """What tells whether a file was written to or replaced: inode, time of change, size; zeros where there is none.

    It is asked for at every batch and shard, so the path is a string: making a Path took ten times as long.
    """
    try:
        facts = os.stat(path)  # noqa: PTH116
    except OSError:
        return 0, 0, 0
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def _close_all(descriptors: NDArray[np.int32]) -> None:
    for descriptor in descriptors[descriptors != CLOSED].tolist():
        os.close(descriptor)
    descriptors[:] = CLOSED


@dataclass(frozen=True, slots=True)
class Places:
    """Where some images lie; each array has one value per image."""

    shard: Rows
    """Number of each image's shard."""
    descriptor: NDArray[np.int32]
    """File descriptor of each image's shard; :data:`CLOSED` where it is not kept open."""
    offset: Rows
    """Byte at which each image begins; without meaning where the shard is not open."""


class ShardReader:
    """Reads stored images of one split by positioned reads; safe to use from several threads.

    A positioned read of a file that was cut short comes back short and becomes an error; a memory map would kill
    the process. A shard that is written to or replaced while the reader lives is noticed by inode, time and size.

    Parameters
    ----------
    dataset : Dataset
    rows : DataFrame
        Rows of the index, as :meth:`pneumo_fast.dataset.folder.Dataset.rows` gives them.
    whole_shards : int
        If above 0, so many shards are read from at a time, and the system is told of each when it is first asked for: a
        slow disk then reads it in one go.
    """

    def __init__(self, dataset: Dataset, rows: pd.DataFrame, whole_shards: int = 0) -> None:
        self.shape = dataset.manifest.image_shape
        self.dtype = dataset.dtype
        self.image_bytes = self.shape[0] * self.shape[1] * self.dtype.itemsize
        self._white = np.float32(dataset.scale)
        names, codes = np.unique(rows["shard"].to_numpy(dtype=str), return_inverse=True)
        self._shard = codes.astype(np.int64)
        self._row = rows["row"].to_numpy(dtype=np.int64)
        counts = {shard.name: shard.rows for shard in dataset.manifest.shards}
        self._rows = [counts.get(str(name)) for name in names]
        self._open_files = openable_files(len(names))
        self._opening = threading.Lock()
        self._descriptor = np.full(len(names), CLOSED, dtype=np.int32)
        self._first_byte = np.zeros(len(names), dtype=np.int64)
        self._close = weakref.finalize(self, _close_all, self._descriptor)
        self._paths = [str(dataset.path / name) for name in names]
        self._stamps = list(map(_stamp, self._paths))
        self._kept = 0
        self._announced: deque[int] = deque(maxlen=whole_shards)

    def __len__(self) -> int:
        """Images in the split."""
        return len(self._row)

    def read_into(self, rows: Rows, out: Images) -> None:
        """Read images into a buffer.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Row numbers within the split.
        out : ndarray, shape (n, size, size), of the stored data type, C order
            Filled in the order of ``rows``.

        Raises
        ------
        DatasetError
            If a shard is gone, was cut short, has another header than the manifest says, changed while open, or holds
            a value outside of [0, 1].
        """
        places = self.locate(rows)
        row, shard = self._row[rows], places.shard
        breaks = np.flatnonzero((shard[1:] != shard[:-1]) | (row[1:] != row[:-1] + 1)) + 1  # np.diff is slow for few
        starts = [0, *breaks.tolist()]
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):  # neighbours on disk: one read
            self._read_run(int(shard[start]), int(row[start]), out[start:stop])
        self.check_unchanged(places)
        if out.dtype == np.float16 and np.maximum.reduce(out.view(np.uint16), axis=None, initial=0) > HALF_ONE:
            self._refuse(rows, out.reshape(len(out), -1).view(np.uint16).max(1))

    def read_unit(self, rows: Rows) -> NDArray[np.float32]:
        """Some images, float32 in [0, 1], shape (n, size, size), in the order of ``rows``; see :meth:`read_into`."""
        images = np.empty((len(rows), *self.shape), dtype=self.dtype)
        self.read_into(rows, images)
        return images.astype(np.float32) / self._white

    def locate(self, rows: Rows) -> Places:
        """Where images lie; their shards are opened, as far as files may be kept open.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Row numbers within the split.

        Raises
        ------
        DatasetError
            If a shard is gone or has another header than the manifest says.
        """
        shard = self._shard[rows]
        if (self._descriptor[shard] == CLOSED).any():
            self._keep_open(np.unique(shard))
        if self._announced.maxlen:
            self._announce(np.unique(shard))
        offset = self._first_byte[shard] + self._row[rows] * self.image_bytes
        return Places(shard, self._descriptor[shard], offset)

    def check_unchanged(self, places: Places) -> None:
        """Refuse what was read if one of the shards has been written to or replaced since the reader was made.

        Raises
        ------
        DatasetError
        """
        for shard in np.unique(places.shard).tolist():
            if _stamp(self._paths[shard]) != self._stamps[shard]:
                raise DatasetError(f"shard {self._path(shard)} changed while it was read: run convert again")

    def _refuse(self, rows: Rows, largest: NDArray[np.uint16]) -> None:
        """Name the first image, given the bits of the largest value of each, that holds one outside of [0, 1]."""
        wild = int((largest > HALF_ONE).argmax())
        raise DatasetError(
            f"shard {self._paths[self._shard[rows[wild]]]} holds {largest[wild].view(np.float16)} in image "
            f"{self._row[rows[wild]]} (values from 0 to 1 expected): run verify, then convert again"
        )

    def close(self) -> None:
        """Close every file; the reader may not be used afterwards."""
        self._close()

    def _announce(self, shards: Rows) -> None:
        """Have the system read whole shards into the page cache."""
        for shard in shards.tolist():
            descriptor = int(self._descriptor[shard])
            if shard not in self._announced and descriptor != CLOSED:
                self._announced.append(shard)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)

    def _keep_open(self, shards: Rows) -> None:
        with self._opening:
            for shard in shards[self._descriptor[shards] == CLOSED].tolist():
                if self._kept >= self._open_files:
                    return
                descriptor, first_byte = self._open(shard)
                self._first_byte[shard] = first_byte  # before the descriptor, which other threads look at
                self._descriptor[shard] = descriptor
                self._kept += 1

    def _read_run(self, shard: int, row: int, out: Images) -> None:
        descriptor, first_byte = int(self._descriptor[shard]), int(self._first_byte[shard])
        kept = descriptor != CLOSED
        if not kept:
            descriptor, first_byte = self._open(shard)
        try:
            view = out.data.cast("B")
            offset = first_byte + row * self.image_bytes
            while view:
                count = os.preadv(descriptor, [view], offset)
                if count == 0:
                    raise DatasetError(f"shard {self._path(shard)} was cut short: run convert again")
                view, offset = view[count:], offset + count
        finally:
            if not kept:
                os.close(descriptor)

    def _open(self, shard: int) -> tuple[int, int]:
        """Open a shard, check its header and return (file descriptor, offset of the first pixel)."""
        path = self._path(shard)
        try:
            with open_regular(path) as file:
                offset, shape, dtype = read_header(file, path)
                descriptor = os.dup(file.fileno())
        except OSError as error:
            raise DatasetError(f"shard {path} cannot be opened ({error.strerror}): run convert again") from error
        rows = self._rows[shard]
        expected = self.shape if rows is None else (rows, *self.shape)
        if shape != expected or dtype != self.dtype:
            os.close(descriptor)
            raise DatasetError(
                f"shard {path} holds {dtype} {shape}, the manifest says {self.dtype} {expected}: run convert again"
            )
        return descriptor, offset

    def _path(self, shard: int) -> Path:
        return Path(self._paths[shard])
