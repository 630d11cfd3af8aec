"""What every engine of the loader is given and has to do; and the fused one, for CPUs.

An engine delivers the batches of one process, in order. Which rows those are, the loader says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pneumo_fast.augment import Augmentation, Draws, apply, noise_field
from pneumo_fast.fused import Normalizer
from pneumo_fast.order import Order, Rank, Rows
from pneumo_fast.reader import ShardReader
from pneumo_fast.ring import Position, Ring, Slot, positions

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images, float32, shape (N, 1, size, size), normalized; and labels, float32, shape (N,)."""

READ_AHEAD = 3  # batches read and waiting: with 2, two threads sometimes wait for a slot at short steps
GROUP = 16  # images augmented together on a CPU: few enough to stay in its cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """What the batches are made of."""

    reader: ShardReader
    labels: NDArray[np.float32] = field(repr=False)
    """Shape (rows of the split,)."""
    order: Order
    rank: Rank
    scale: float
    """Stored value of white."""
    mean: float
    """Of the images, in [0, 1]."""
    std: float
    device: torch.device
    threads: int
    """That read."""
    augmentation: Augmentation | None = None

    @property
    def max_batch(self) -> int:
        """Rows in the largest batch of this process."""
        return -(-self.order.max_batch // self.rank.world_size)

    def rows(self, epoch: int, batch: int) -> Rows:
        """The rows of a batch that are this process's."""
        return self.rank.share(self.order.rows(epoch, batch))


class Engine(Protocol):
    """Delivers batches."""

    def begin(self, epoch: int, first: int, stop: int) -> None:
        """Start with a batch of an epoch, and go on epoch after epoch, each up to ``stop``; none of them is empty.

        Epochs follow each other without a pause: while the last batches of one are used, the next one's are read.
        """

    def next(self) -> Batch:
        """The next batch, on the device; it stays as it is until the next one is asked for.

        Raises
        ------
        DatasetError
            If a shard changed under the loader.
        """

    def end(self) -> None:
        """Stop, also in the middle of an epoch."""

    def close(self) -> None:
        """End, and give back files, threads and memory."""


def _floats(shape: tuple[int, ...]) -> torch.Tensor:
    """Memory of this machine, whatever PyTorch's defaults are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


class FusedEngine:
    """Reads, casts and normalizes each image into the very memory that PyTorch sees; for CPUs."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        mean, std = (0.0, 1.0) if feed.augmentation else (feed.mean, feed.std)
        self._normalizer = Normalizer(feed.reader.dtype, mean * feed.scale, std * feed.scale)
        self._noise = torch.tensor(noise_field(feed.reader.shape[0])) if feed.augmentation else torch.empty(0)
        shape = (feed.max_batch, 1, *feed.reader.shape)
        slots = [Slot(images=_floats(shape), labels=_floats(shape[:1])) for _ in range(READ_AHEAD + 1)]
        self._ring = Ring(slots, self._fill, feed.threads)
        self._lent: Slot | None = None

    def begin(self, epoch: int, first: int, stop: int) -> None:
        """See :class:`Engine`."""
        self._ring.begin(positions(epoch, first, stop))

    def next(self) -> Batch:
        """See :class:`Engine`."""
        if self._lent is not None:
            self._ring.give_back(self._lent)
        self._lent = self._ring.take()
        return self._lent.views

    def end(self) -> None:
        """See :class:`Engine`."""
        self._ring.end()
        self._lent = None

    def close(self) -> None:
        """See :class:`Engine`."""
        self.end()
        self._ring.close()
        self._feed.reader.close()

    def _fill(self, slot: Slot, position: Position) -> None:
        rows = self._feed.rows(*position)
        slot.rows = len(rows)
        slot.views = slot.images[: len(rows)], slot.labels[: len(rows)]  # here: the consumer would wait for the GIL
        self._write(rows, slot.images.numpy().reshape(len(slot.images), -1)[: len(rows)])
        if self._feed.augmentation:
            draws = self._feed.augmentation.draw(position[0], rows, slot.images.shape[-1])
            self._augment(draws, slot.images[: len(rows)])
        np.take(self._feed.labels, rows, out=slot.labels.numpy()[: len(rows)], mode="clip")

    def _write(self, rows: Rows, out: NDArray[np.float32]) -> None:
        """Normalize images into ``out``, shape (len(rows), pixels)."""
        self._normalizer.stream(self._feed.reader, rows, out)

    def _augment(self, draws: Draws, images: torch.Tensor) -> None:
        """Change images in [0, 1] and normalize them, in place."""
        table = torch.from_numpy(draws.table())
        for group, of_group in zip(torch.split(images, GROUP), torch.split(table, GROUP), strict=True):
            changed = apply(group, of_group, self._noise)
            torch.mul(changed.sub_(self._feed.mean), 1 / self._feed.std, out=group)
