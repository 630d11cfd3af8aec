"""Batches of one split, normalized, on the device: the same ones whichever engine makes them.

Which rows make up which batch is decided by :class:`pneumo_fast.loading.batches.Order` alone. How they get to the
device is the business of the engine, one of :mod:`pneumo_fast.loading.engines`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.devices import resolve_device
from pneumo_fast.errors import ConfigError
from pneumo_fast.files import joint_checksum
from pneumo_fast.loading.batches import Order, Rank
from pneumo_fast.loading.choose import choose_engine, make_sampler, open_engine, source_engine
from pneumo_fast.loading.engines.base import Batch, Feed
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.loading.rng import Rows
from pneumo_fast.loading.sources import open_reader
from pneumo_fast.loading.targets import Targets, TargetTable
from pneumo_fast.resources import usable_cores

THREADS, GPU_THREADS = 4, 5
"""Reading threads at most, on a CPU and for a GPU. More wait for each other, or take a GPU's memory: a batch each."""


class Loader:
    """Batches of one split, normalized, on the device.

    A batch is images, float32, shape (N, 1, size, size), (pixel in [0, 1] - mean) / std; and labels, float32, shape
    (N,), 0 or 1; both on the device, and both valid until the next batch is asked for.

    Parameters
    ----------
    dataset : Dataset
    split : str
        ``train``, ``val`` or ``test``.
    config : LoadConfig
    device : torch.device
    normalization : (mean, std), optional
        In units of [0, 1]; the dataset's own where not given.
    rank : Rank, optional
        Which process this is; each takes its share of every batch.

    Raises
    ------
    DatasetError
        If the split is empty or a shard does not fit the manifest.
    ConfigError
        If the split or the batch size is too small, or the engine cannot serve the device.
    DeviceError
        If engine ``dali`` is asked for and not installed, the device is not there, or the split does not fit into its
        memory.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        config: LoadConfig,
        *,
        device: torch.device,
        normalization: tuple[float, float] | None = None,
        rank: Rank | None = None,
    ) -> None:
        device = resolve_device(str(device))
        rows = dataset.rows(split)
        mean, std = normalization or (dataset.mean, dataset.std)
        training = config.order != "sequential"
        self.order = Order(sampler=make_sampler(config, rows), batch_size=config.batch_size, training=training)
        rank = rank or Rank()
        if rank.world_size > config.batch_size:
            raise ConfigError(
                f"batch size {config.batch_size} for {rank.world_size} processes: at least one image each expected"
            )
        self.wait_s = 0.0
        """Seconds that the consumer has waited for batches since the epoch began."""
        self.longest_wait_s = 0.0
        """The longest of these waits but the first, for which nothing can have been read ahead."""
        self.size = dataset.size
        """Height and width of an image, in pixels."""
        images = joint_checksum(rows["image_id"])
        self._fingerprint = {"dataset": dataset.identity, "split": split, "images": images, **_fingerprint(config)}
        self._epoch = self._batch = 0
        """The epoch, and the batch after the one delivered last."""
        self._resuming = False
        """Whether that position was loaded, and its epoch has not begun."""
        self._begun: tuple[int, int] | None = None
        """Epoch and batch that the engine has ready: it need not begin anew for them."""
        self._current: Generator[Batch, None, None] | None = None
        self._targets = TargetTable.of(dataset, rows, config.classes) if config.targets else None
        self._feed = Feed(
            reader=open_reader(dataset, rows, config.window if config.order == "windowed" else 0),
            labels=rows["label"].to_numpy(dtype=np.float32),
            order=self.order,
            rank=rank,
            scale=dataset.scale,
            mean=mean,
            std=std,
            augmentation=config.augmentation,
            device=device,
            threads=min(THREADS if device.type == "cpu" else GPU_THREADS, usable_cores()),
        )
        self.engine = choose_engine(config, self._feed)
        """The engine's name."""
        try:
            self._sources = source_engine(self._feed)
            self._engine = open_engine(self.engine, self._feed, self._sources)
        except BaseException:
            self._feed.reader.close()
            raise
        last = np.arange(self.order.rows_in(len(self.order) - 1))
        self._full = len(self.order) - (len(rank.share(last)) == 0)  # batches of which this process has a share

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.order)

    def epoch(self, epoch: int) -> Generator[Batch, None, None]:
        """Go through the split once; an epoch that is still under way ends here.

        The first one after :meth:`load_state_dict` begins where the state says, if it is the state's epoch.

        Parameters
        ----------
        epoch : int
            From 0; chooses the order, where it is not storage order.

        Yields
        ------
        images : Tensor of float32, shape (N, 1, size, size)
            Normalized, on the device. It stays as it is until the next batch is asked for, and no longer.
        labels : Tensor of float32, shape (N,)
            0 or 1, on the device.

        Raises
        ------
        DatasetError
            If a shard changed under the loader.
        """
        self._end_epoch()
        first = self.position(epoch)
        self._resuming = False
        self._current = self._batches(epoch, first)
        return self._current

    def targets(self, epoch: int, batch: int) -> Targets | None:
        """Boxes and classes of this process's share of a batch, on the device; None unless the configuration asks.

        They follow from the two numbers alone, whichever batch was delivered last; of source files, where it is that
        one, they are those of its images.

        Raises
        ------
        IndexError
            If the epoch has no such batch.
        """
        if self._targets is None:
            return None
        is_last = self._current is not None and (epoch, batch + 1) == (self._epoch, self._batch)
        rows = self.rows if self._sources and is_last else self._feed.rows(epoch, batch)
        return self._targets.batch(epoch, rows, self._feed.augmentation, self._feed.device)

    @property
    def rows(self) -> Rows:
        """Row numbers of this process's images in the batch delivered last, int64, shape (N,)."""
        if self._sources:
            return self._sources.rows
        return self._feed.rows(self._epoch, self._batch - 1)

    @property
    def rejects(self) -> list[dict[str, str]]:
        """Files that could not be read any more, whose images are left out: path, reason and detail."""
        return self._sources.rejects if self._sources else []

    def position(self, epoch: int) -> int:
        """The first batch that :meth:`epoch` will deliver: 0, or where :meth:`load_state_dict` left off."""
        return self._batch if self._resuming and epoch == self._epoch else 0

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is: the next batch to deliver. It does not depend on the number of processes."""
        return {"epoch": self._epoch, "batch": self._batch, **self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader was: its epoch will begin with the batch that it would have delivered next.

        Raises
        ------
        ConfigError
            If that loader had other data or another order, or the state names a batch that no epoch has.
        """
        for name, value in self._fingerprint.items():
            found = state.get(name, value if name == "images" else None)  # which earlier releases did not record
            if found != value:
                raise ConfigError(f"the loader's state has {name} {found!r}, this loader has {value!r}")
        epoch, batch = int(state["epoch"]), int(state["batch"])
        if not 0 <= batch <= len(self):
            raise ConfigError(f"the loader's state has batch {batch}, an epoch of this loader has {len(self)}")
        self._end_epoch()
        self._epoch, self._batch = epoch, batch
        self._resuming = True

    def _batches(self, epoch: int, first: int) -> Generator[Batch, None, None]:
        self._epoch, self._batch = epoch, first
        self.wait_s = self.longest_wait_s = 0.0
        stop = self._full
        if self._begun != (epoch, first):
            self._engine.end()
            if stop:
                self._engine.begin(epoch, first, stop)
        self._begun = None
        try:
            for batch in range(first, len(self)):
                begin = time.perf_counter()
                out = self._engine.next() if batch < stop else self._nothing()
                waited = time.perf_counter() - begin
                self.wait_s += waited
                if batch > first:
                    self.longest_wait_s = max(self.longest_wait_s, waited)
                self._batch = batch + 1
                yield out
            self._begun = epoch + 1, 0  # most probably asked for next
        finally:
            if self._begun is None:
                self._engine.end()

    def _nothing(self) -> Batch:
        """Our share of a last batch that has fewer rows than there are processes."""
        images = torch.empty((0, 1, self.size, self.size), dtype=torch.float32, device=self._feed.device)
        return images, images.new_empty(0)

    def close(self) -> None:
        """Give back files, threads and device memory; the loader may not be used afterwards."""
        self._end_epoch()
        self._engine.close()

    def __enter__(self) -> Loader:
        """Return the loader itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the loader."""
        self.close()

    def _end_epoch(self) -> None:
        """Stop an epoch that was left in the middle, which an error's traceback may still hold."""
        if self._current is not None:
            self._current.close()
            self._current = None


def _fingerprint(config: LoadConfig) -> dict[str, Any]:
    """What of a configuration decides the batches; the engine and the number of processes do not."""
    parts = [[part.rows, part.used] for part in config.parts]
    chosen = {name: getattr(config, name) for name in ("batch_size", "order", "seed", "balance", "window")}
    augmentation = asdict(config.augmentation) if config.augmentation else None
    return {**chosen, "parts": parts, "augmentation": augmentation}
