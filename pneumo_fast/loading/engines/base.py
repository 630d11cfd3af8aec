"""What every engine of the loader is given, and has to do.

An engine delivers the batches of one process, in order. Which rows those are, the loader says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pneumo_fast.loading.augment import Augmentation
from pneumo_fast.loading.batches import Order, Rank
from pneumo_fast.loading.reader import ShardReader
from pneumo_fast.loading.rng import Rows
from pneumo_fast.loading.sources import SourceReader

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images, float32, shape (N, 1, size, size), normalized; and labels, float32, shape (N,)."""

READ_AHEAD = 3  # batches read and waiting: with 2, two threads sometimes wait for a slot at short steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """What the batches are made of."""

    reader: ShardReader | SourceReader
    labels: NDArray[np.float32] = field(repr=False)
    """Shape (rows of the split,)."""
    order: Order
    rank: Rank
    scale: float
    """Stored value of white."""
    mean: float
    """Of the images, in [0, 1]."""
    std: float
    """Of the images, in (0, 1]."""
    device: torch.device
    threads: int
    """That read."""
    augmentation: Augmentation | None = None

    @property
    def max_batch(self) -> int:
        """Rows in the largest batch of this process."""
        return -(-self.order.max_batch // self.rank.world_size)

    def rows(self, epoch: int, batch: int) -> Rows:
        """The rows of a batch that are this process's, int64, shape (N,)."""
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
