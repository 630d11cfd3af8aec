"""Streams a dataset's images to the device: DALI casts and normalizes, a thread of our own reads ahead.

DALI calls a source on the thread that asks for a batch, so a slow read would stop the training step. Here the
source only hands over a batch that a reading thread has already put into a ring of reused buffers. Which rows
make up which batch is decided by :class:`pneumo_fast.order.Order` alone. This is the only module that imports DALI.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from pneumo_fast.errors import DatasetError, DeviceError
from pneumo_fast.npy import Images
from pneumo_fast.order import Order, Part
from pneumo_fast.reader import ShardReader
from pneumo_fast.shards import Dataset

try:
    from nvidia.dali import fn, pipeline_def, types
except ImportError as error:
    raise DeviceError(
        f"NVIDIA DALI cannot be imported ({error}): install the package nvidia-dali-cuda120 (it runs without a GPU too)"
    ) from error

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images and labels."""

DALI_DEPTH = 2  # batches in flight inside DALI; more did not help
READ_AHEAD = 2  # batches read and waiting for DALI
POLL_S = 0.1  # how soon the reading thread notices that it is no longer wanted


@dataclass(eq=False)
class _Slot:
    """One reused batch of host memory; pinned where a GPU will fetch it."""

    images: Images
    """Shape (max_batch, 1, size, size), stored data type."""
    labels: NDArray[np.float32]
    """Shape (max_batch,)."""
    rows: int = 0
    """How many of the rows are filled."""
    delivered: torch.cuda.Event | None = None
    """Passed on the device once the batch that came from here has left this memory."""


class Loader:
    """Batches of one split, normalized, on the device.

    Parameters
    ----------
    dataset : Dataset
    split : str
        ``train``, ``val`` or ``test``.
    batch_size : int
        Images in a batch; the last one may be smaller, or larger by one (see :class:`pneumo_fast.order.Order`).
    device : torch.device
        A GPU gets the stored data type over the bus and casts and normalizes there; ``cpu`` needs no driver.
    shuffle : bool
        Shuffle afresh each epoch, and never make a batch of one (for training). Else storage order.
    seed : int
        Chooses the order.
    normalization : (mean, std), optional
        In units of [0, 1]; the dataset's own where not given.
    parts : tuple of Part, optional
        Which share of the rows an epoch uses (see :func:`pneumo_fast.order.parts_by_share`).

    Raises
    ------
    DatasetError
        If the split is empty or a shard does not fit the manifest.
    ConfigError
        If the split or the batch size is too small.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        batch_size: int,
        device: torch.device,
        shuffle: bool = False,
        seed: int = 0,
        normalization: tuple[float, float] | None = None,
        parts: tuple[Part, ...] = (),
    ) -> None:
        rows = dataset.rows(split)
        mean, std = normalization or (dataset.mean, dataset.std)
        self.order = Order(n=len(rows), batch_size=batch_size, shuffle=shuffle, seed=seed, parts=parts)
        self.wait_s = 0.0
        """Seconds that the consumer has waited for batches since the epoch began."""
        self._device = device
        self._labels = rows["label"].to_numpy(dtype=np.float32)
        self._reader = ShardReader(dataset, rows)
        shape = (self.order.max_batch, 1, dataset.size, dataset.size)
        self._slots = [_make_slot(shape, dataset.dtype, device) for _ in range(DALI_DEPTH + READ_AHEAD + 1)]
        self._free: queue.Queue[_Slot] = queue.Queue()
        self._ready: queue.Queue[_Slot | Exception] = queue.Queue()
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._in_dali: list[_Slot] = []
        self._current: Generator[Batch, None, None] | None = None
        self._pipeline = _pipeline(
            source=self._next_batch,
            stored=dataset.dtype,
            mean=dataset.scale * mean,
            std=dataset.scale * std,
            batch_size=self.order.max_batch,
            device_id=device.index if device.type == "cuda" else None,
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.order)

    def epoch(self, epoch: int) -> Generator[Batch, None, None]:
        """Go through the split once; an epoch that is still under way ends here.

        Parameters
        ----------
        epoch : int
            Chooses the permutation, when shuffling.

        Yields
        ------
        images : Tensor of float32, shape (N, 1, size, size)
            Normalized, on the device.
        labels : Tensor of float32, shape (N,)
            0 or 1, on the device.

        Raises
        ------
        DatasetError
            If a shard changed under the loader.
        """
        self._end_epoch()
        self._current = self._batches(epoch)
        return self._current

    def _batches(self, epoch: int) -> Generator[Batch, None, None]:
        self._begin()
        reading = threading.Thread(target=self._read_epoch, args=(epoch,), name="pneumo-fast-read", daemon=True)
        reading.start()
        try:
            for _ in range(len(self.order)):
                yield self._deliver()
        finally:
            self._stop.set()
            reading.join()
            self._drain()

    def close(self) -> None:
        """Give back files, threads and device memory; the loader may not be used afterwards."""
        self._end_epoch()
        self._reader.close()
        self._slots.clear()
        self._pipeline = self._failure = None  # an error's traceback holds on to the pipeline

    def __enter__(self) -> Loader:
        """Return the loader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the loader."""
        self.close()

    def _end_epoch(self) -> None:
        """Stop an epoch that was left in the middle, which an error's traceback may still hold."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def _begin(self) -> None:
        self.wait_s = 0.0
        self._failure = None
        self._stop.clear()
        self._in_dali.clear()
        self._ready, self._free = queue.Queue(), queue.Queue()
        for slot in self._slots:
            self._free.put(slot)

    def _read_epoch(self, epoch: int) -> None:
        """Fill free slots in the epoch's order, until the end or until told to stop; runs in its own thread."""
        try:
            for batch in range(len(self.order)):
                slot = self._take_free()
                if slot is None:
                    return
                rows = self.order.rows(epoch, batch)
                slot.rows = len(rows)
                self._reader.read_into(rows, slot.images[: len(rows), 0])
                np.take(self._labels, rows, out=slot.labels[: len(rows)], mode="clip")
                self._ready.put(slot)
        except (DatasetError, OSError) as error:
            self._ready.put(error)
        finally:  # whatever went wrong, nobody waits for a batch that will not come
            self._ready.put(DatasetError("reading ended before the epoch's last batch"))

    def _take_free(self) -> _Slot | None:
        """Wait for a slot whose last batch has left it; None when told to stop."""
        while not self._stop.is_set():
            try:
                slot = self._free.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if slot.delivered is not None:
                slot.delivered.synchronize()
            return slot
        return None

    def _next_batch(self, info: types.BatchInfo) -> tuple[Images, NDArray[np.float32]]:
        """The source that DALI calls: hand over the next batch that has been read."""
        if info.iteration >= len(self.order) or self._stop.is_set() or self._failure is not None:
            raise StopIteration
        slot = self._ready.get()
        if isinstance(slot, Exception):
            self._failure = slot
            raise StopIteration
        self._in_dali.append(slot)
        return slot.images[: slot.rows], slot.labels[: slot.rows]

    def _deliver(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Run DALI for one batch and give its source's slot back to the reading thread."""
        begin = time.perf_counter()
        stream = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None
        try:
            outputs = self._pipeline.run(stream)
        except StopIteration:
            raise self._failure or DatasetError("the epoch ended before its last batch") from None
        images, labels = (from_dlpack(output.as_tensor()) for output in outputs)
        slot = self._in_dali.pop(0)
        if stream is not None:
            slot.delivered = stream.record_event()
        self._free.put(slot)
        self.wait_s += time.perf_counter() - begin
        return images, labels

    def _drain(self) -> None:
        """Take what DALI has begun out of it, so that the next epoch starts clean."""
        try:
            while True:
                self._pipeline.run()
        except StopIteration:
            self._pipeline.reset()


def _make_slot(shape: tuple[int, ...], dtype: np.dtype[Any], device: torch.device) -> _Slot:
    torch_dtype = torch.float16 if dtype == np.float16 else torch.uint8
    images = torch.empty(shape, dtype=torch_dtype, pin_memory=device.type == "cuda")
    return _Slot(images=images.numpy(), labels=np.empty(shape[0], dtype=np.float32))


def _pipeline(
    *, source: Any, stored: np.dtype[Any], mean: float, std: float, batch_size: int, device_id: int | None
) -> Any:
    """Build the one pipeline, for a GPU (``device_id`` given) or without one.

    ``no_copy`` is safe because a slot is not filled again before the batch made from it has been delivered.
    """

    def define() -> tuple[Any, Any]:
        images, labels = fn.external_source(
            source=source,
            num_outputs=2,
            batch=True,
            batch_info=True,
            no_copy=True,
            dtype=[types.FLOAT16 if stored == np.float16 else types.UINT8, types.FLOAT],
            ndim=[3, 0],
            layout=["CHW", ""],
        )
        if device_id is not None:
            images, labels = images.gpu(), labels.gpu()
        images = fn.crop_mirror_normalize(images, dtype=types.FLOAT, mean=[mean], std=[std], output_layout="CHW")
        return images, labels

    decorate = pipeline_def(batch_size=batch_size, device_id=device_id, num_threads=2, prefetch_queue_depth=DALI_DEPTH)
    pipeline = decorate(define)()
    pipeline.build()
    return pipeline
