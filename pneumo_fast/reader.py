"""Reads stored images by positioned reads, from any thread."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast.errors import DatasetError
from pneumo_fast.npy import Images, read_header
from pneumo_fast.shards import Dataset


class ShardReader:
    """Reads stored images of one split by positioned reads; safe to use from several threads.

    A positioned read of a file that was cut short comes back short and becomes an error; a memory map would kill
    the process.
    """

    OPEN_FILES = 256
    """File descriptors kept open at most; files beyond that are opened for each read."""

    def __init__(self, dataset: Dataset, rows: pd.DataFrame) -> None:
        self.shape = dataset.manifest.image_shape
        self.dtype = dataset.dtype
        self._folder = dataset.path
        self._image_bytes = self.shape[0] * self.shape[1] * self.dtype.itemsize
        names, codes = np.unique(rows["shard"].to_numpy(dtype=str), return_inverse=True)
        self._names = [str(name) for name in names]
        self._shard = codes.astype(np.int64)
        self._row = rows["row"].to_numpy(dtype=np.int64)
        counts = {shard.name: shard.rows for shard in dataset.manifest.shards}
        self._rows = [counts.get(name) for name in self._names]
        self._open: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        """Images in the split."""
        return len(self._row)

    def read_into(self, rows: NDArray[np.int64], out: Images) -> None:
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
            If a shard is gone, was cut short or has another header than the manifest says.
        """
        shard, row = self._shard[rows], self._row[rows]
        breaks = np.flatnonzero((np.diff(shard) != 0) | (np.diff(row) != 1)) + 1
        starts = [0, *breaks.tolist()]
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):  # neighbours on disk: one read
            self._read_run(int(shard[start]), int(row[start]), out[start:stop])

    def _read_run(self, shard: int, row: int, out: Images) -> None:
        descriptor, first_byte = self._open.get(shard) or self._open_shard(shard)
        try:
            view = out.data.cast("B")
            offset = first_byte + row * self._image_bytes
            while view:
                count = os.preadv(descriptor, [view], offset)
                if count == 0:
                    raise DatasetError(f"shard {self._folder / self._names[shard]} was cut short: run convert again")
                view, offset = view[count:], offset + count
        finally:
            if self._open.get(shard) != (descriptor, first_byte):
                os.close(descriptor)

    def _open_shard(self, shard: int) -> tuple[int, int]:
        """Open a shard, check its header and return (file descriptor, offset of the first pixel)."""
        path = self._folder / self._names[shard]
        try:
            with path.open("rb") as file:
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
        if len(self._open) < self.OPEN_FILES:
            self._open.setdefault(shard, (descriptor, offset))  # another thread may have been first
        return descriptor, offset

    def close(self) -> None:
        """Close every file; the reader may not be used afterwards."""
        while self._open:
            os.close(self._open.popitem()[1][0])
