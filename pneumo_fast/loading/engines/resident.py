"""The resident engines: the whole split is in the device's memory once, and every batch is gathered from there."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray

from pneumo_fast.dataset.npy import Images
from pneumo_fast.devices import device_memory
from pneumo_fast.errors import DeviceError
from pneumo_fast.loading.augment import apply, noise_field
from pneumo_fast.loading.engines.base import Batch, Engine, Feed
from pneumo_fast.loading.engines.fused import FusedEngine
from pneumo_fast.loading.engines.ring import nvtx_range
from pneumo_fast.loading.rng import Rows

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


class MemoryEngine(FusedEngine):
    """For CPUs: the fused engine, reading from memory."""

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._stored: Images = np.empty((len(feed.reader), *feed.reader.shape), dtype=feed.reader.dtype)
        for first in range(0, len(self._stored), CHUNK):
            part = self._stored[first : first + CHUNK]
            feed.reader.read_into(np.arange(first, first + len(part)), part)
        feed.reader.close()

    def close(self) -> None:
        """See :class:`pneumo_fast.loading.engines.base.Engine`."""
        super().close()
        self._stored = self._stored[:0].copy()

    def _write(self, rows: Rows, out: NDArray[np.float32]) -> Rows:
        self._normalizer.gather(self._stored.reshape(len(self._stored), -1), rows, out)
        return rows


class DeviceEngine:
    """For GPUs: gather, cast, augment and normalize there; only numbers cross the bus."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._labels = torch.from_numpy(feed.labels).to(feed.device)
        self._noise = torch.tensor(noise_field(feed.reader.shape[0])).to(feed.device) if feed.augmentation else None
        stored: Images = np.empty((CHUNK, 1, *feed.reader.shape), dtype=feed.reader.dtype)
        host = torch.from_numpy(stored)
        self._stored = torch.empty((len(feed.reader), *host.shape[1:]), dtype=host.dtype, device=feed.device)
        for first in range(0, len(feed.reader), CHUNK):
            part = self._stored[first : first + CHUNK]
            feed.reader.read_into(np.arange(first, first + len(part)), stored[: len(part), 0])
            part.copy_(host[: len(part)])
        feed.reader.close()
        self._todo: deque[tuple[torch.Tensor, torch.Tensor | None]] = deque()
        self._epoch = self._first = self._stop = 0

    def begin(self, epoch: int, first: int, stop: int) -> None:
        """See :class:`pneumo_fast.loading.engines.base.Engine`."""
        self.end()
        self._epoch, self._first, self._stop = epoch, first, stop

    def _begin_epoch(self) -> None:
        """Send an epoch's row numbers and changes to the device at once."""
        feed, epoch, batches = self._feed, self._epoch, range(self._first, self._stop)
        self._epoch, self._first = epoch + 1, 0
        if not batches:
            return
        shares = [feed.rank.share(rows) for rows in feed.order.rows_of(epoch, batches)]
        sizes, rows = [len(share) for share in shares], np.concatenate(shares)
        changes: tuple[torch.Tensor | None, ...] = (None,) * len(sizes)
        if feed.augmentation is not None:
            table = feed.augmentation.draw(epoch, rows, feed.reader.shape[0]).table()
            changes = torch.split(torch.from_numpy(table).to(feed.device), sizes)
        numbers = torch.split(torch.from_numpy(rows).to(feed.device), sizes)
        self._todo = deque(zip(numbers, changes, strict=True))

    def next(self) -> Batch:
        """See :class:`pneumo_fast.loading.engines.base.Engine`."""
        feed = self._feed
        while not self._todo:
            self._begin_epoch()
        rows, changes = self._todo.popleft()
        with nvtx_range("gather", feed.device):
            images, white = self._stored.index_select(0, rows).to(torch.float32), feed.scale
            if changes is not None and self._noise is not None:
                images, white = apply(images.div_(feed.scale), changes, self._noise), 1.0
            return images.sub_(feed.mean * white).mul_(1 / (feed.std * white)), self._labels.index_select(0, rows)

    def end(self) -> None:
        """See :class:`pneumo_fast.loading.engines.base.Engine`."""
        self._todo.clear()

    def close(self) -> None:
        """See :class:`pneumo_fast.loading.engines.base.Engine`."""
        self.end()
        self._feed.reader.close()
        self._stored = self._labels = torch.empty(0)
        self._noise = None
