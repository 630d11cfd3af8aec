"""Which rows make up which batch, and which process takes which of them: a pure function of (seed, epoch, batch).

Nothing is stored between calls, so two readers that agree on the numbers agree on the rows, and a run can resume
anywhere. A sampler (:mod:`pneumo_fast.loading.samplers`) maps positions in an epoch to rows; :class:`Order` cuts the
positions into batches. The number of processes plays no part in either: each process (:class:`Rank`) takes its share of
every batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.rng import Rows
from pneumo_fast.loading.samplers import Sampler


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The batches of every epoch."""

    sampler: Sampler
    batch_size: int
    """Rows in a batch of all processes together, at least 1; for training at least 2."""
    training: bool = False
    """Never make a batch of a single image, which BatchNorm may refuse: a single left-over row joins the batch before
    it, which then has ``batch_size + 1`` rows."""

    def __post_init__(self) -> None:
        """Check the numbers; ConfigError where rows are too few (two for training), or the batch size does not fit."""
        least = 2 if self.training else 1
        if self.batch_size < least:
            raise ConfigError(f"batch size {self.batch_size} is too small: use at least {least}")
        if self.length < least:
            raise ConfigError(f"an epoch has {self.length} images: at least {least} are needed")
        if self.training and self.batch_size > self.length:
            raise ConfigError(
                f"batch size {self.batch_size} is larger than an epoch of {self.length} images: give a --batch-size of "
                "at most that many"
            )

    @property
    def length(self) -> int:
        """Rows in an epoch."""
        return self.sampler.length

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, left = divmod(self.length, self.batch_size)
        return whole if left == 0 or self._joins_last else whole + 1

    @property
    def max_batch(self) -> int:
        """Rows in the largest batch."""
        return min(self.length, self.batch_size + self._joins_last)

    @property
    def _joins_last(self) -> bool:
        return self.training and self.length % self.batch_size == 1

    def rows_in(self, batch: int) -> int:
        """Rows in one batch."""
        last = batch == len(self) - 1
        return self.length - batch * self.batch_size if last else self.batch_size

    def rows(self, epoch: int, batch: int) -> Rows:
        """Row numbers of one batch, int64, shape (rows,).

        Raises
        ------
        IndexError
            If the epoch has no such batch.
        """
        return self.rows_of(epoch, range(batch, batch + 1))[0]

    def rows_of(self, epoch: int, batches: range) -> list[Rows]:
        """Row numbers of some batches that follow each other: what :meth:`rows` gives of each, worked out at once."""
        if not 0 <= batches.start < batches.stop <= len(self):
            lacking = batches.start if not 0 <= batches.start < len(self) else batches.stop - 1
            raise IndexError(f"batch {lacking} of an epoch of {len(self)}")
        ends = [min(batch * self.batch_size, self.length) for batch in batches[1:]]
        first = batches.start * self.batch_size
        last = self.length if batches.stop == len(self) else batches.stop * self.batch_size
        rows = self.sampler.rows(np.arange(first, last, dtype=np.int64), epoch)
        return np.split(rows, np.array(ends, dtype=np.int64) - first)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """Which process this is, of how many that share every batch."""

    number: int = 0
    """From 0."""
    world_size: int = 1
    """Processes, at least 1."""

    def __post_init__(self) -> None:
        """Check the numbers; ConfigError where there is no such process."""
        if self.world_size < 1:
            raise ConfigError(f"world size {self.world_size}: at least 1 process expected")
        if not 0 <= self.number < self.world_size:
            raise ConfigError(
                f"rank {self.number} of a world of {self.world_size}: 0 to {self.world_size - 1} expected"
            )

    def share(self, rows: Rows) -> Rows:
        """The rows of a batch, int64, (n,), that are this process's: a stretch, at most one longer than any other's."""
        first, stop = (len(rows) * number // self.world_size for number in (self.number, self.number + 1))
        return rows[first:stop]
