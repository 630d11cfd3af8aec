"""The resident engines: the whole split is in the device's memory once, and every batch is gathered from there."""

from __future__ import annotations

import os
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray

from pneumo_fast.engines import Batch, Engine, Feed, FusedEngine
from pneumo_fast.errors import DeviceError
from pneumo_fast.npy import Images
from pneumo_fast.order import Rows

CHUNK = 256  # images read at once while the split is loaded


def resident_engine(feed: Feed) -> Engine:
    """The resident engine for the feed's device.

    Raises
    ------
    DeviceError
        If the split does not fit into the memory that is free.
    DatasetError
        If a shard does not fit the manifest.
    """
    needed, free = split_bytes(feed), device_memory(feed.device)[0]
    if needed > free:
        raise DeviceError(
            f"the split takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on {feed.device}: give another "
            "--loader"
        )
    return MemoryEngine(feed) if feed.device.type == "cpu" else DeviceEngine(feed)


def split_bytes(feed: Feed) -> int:
    """Bytes that the split's images take as they are stored."""
    return len(feed.reader) * int(np.prod(feed.reader.shape)) * feed.reader.dtype.itemsize


def device_memory(device: torch.device) -> tuple[int, int]:
    """Bytes that are free, and bytes in all."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    page = os.sysconf("SC_PAGE_SIZE")
    return os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page


class MemoryEngine(FusedEngine):
    """For CPUs: the fused engine, reading from memory."""

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._stored: Images = np.empty((len(feed.reader), *feed.reader.shape), dtype=feed.reader.dtype)
        for first in range(0, len(self._stored), CHUNK):
            part = self._stored[first : first + CHUNK]
            feed.reader.read_into(np.arange(first, first + len(part)), part)
        feed.reader.close()

    def _write(self, rows: Rows, out: NDArray[np.float32]) -> None:
        self._normalizer.gather(self._stored.reshape(len(self._stored), -1), rows, out)


class DeviceEngine:
    """For GPUs: gather, cast and normalize there; only row numbers cross the bus."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._mean, self._factor = feed.mean * feed.scale, 1 / (feed.std * feed.scale)
        self._labels = torch.from_numpy(feed.labels).to(feed.device)
        stored: Images = np.empty((CHUNK, 1, *feed.reader.shape), dtype=feed.reader.dtype)
        host = torch.from_numpy(stored)
        self._stored = torch.empty((len(feed.reader), *host.shape[1:]), dtype=host.dtype, device=feed.device)
        for first in range(0, len(feed.reader), CHUNK):
            part = self._stored[first : first + CHUNK]
            feed.reader.read_into(np.arange(first, first + len(part)), stored[: len(part), 0])
            part.copy_(host[: len(part)])
        feed.reader.close()
        self._rows: deque[torch.Tensor] = deque()

    def begin(self, epoch: int, batches: range) -> None:
        """See :class:`pneumo_fast.engines.Engine`; the epoch's row numbers go to the device at once."""
        shares = [self._feed.rank.share(rows) for rows in self._feed.order.rows_of(epoch, batches)]
        rows = torch.from_numpy(np.concatenate(shares)).to(self._feed.device)
        self._rows = deque(torch.split(rows, [len(share) for share in shares]))

    def next(self) -> Batch:
        """See :class:`pneumo_fast.engines.Engine`."""
        rows = self._rows.popleft()
        images = self._stored.index_select(0, rows).to(torch.float32)
        return images.sub_(self._mean).mul_(self._factor), self._labels.index_select(0, rows)

    def end(self) -> None:
        """See :class:`pneumo_fast.engines.Engine`."""
        self._rows.clear()

    def close(self) -> None:
        """See :class:`pneumo_fast.engines.Engine`."""
        self.end()
        self._feed.reader.close()
        del self._stored, self._labels
