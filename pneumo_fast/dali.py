"""The DALI engine: casts and normalizes on the device. The only module that imports DALI.

DALI calls a source on the thread that asks for a batch, so a slow read would stop the training step. Here the source
only hands over a batch that the ring's threads have already read. The stored data type crosses the bus.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from pneumo_fast.engines import READ_AHEAD, Batch, Feed
from pneumo_fast.errors import DatasetError, DeviceError
from pneumo_fast.npy import Images
from pneumo_fast.ring import Ring, Slot, nvtx_range

try:
    from nvidia.dali import fn, pipeline_def, types
except ImportError as error:
    raise DeviceError(
        f"NVIDIA DALI cannot be imported ({error}): install the package nvidia-dali-cuda120 (it runs without a GPU "
        "too), or give --loader fused or resident"
    ) from error

DALI_DEPTH = 2  # batches in flight inside DALI; more did not help


class DaliEngine:
    """Reads batches ahead in the stored data type, and lets DALI do the rest on the device."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._epoch = 0
        self._stopped = True
        self._failure: Exception | None = None
        self._in_dali: list[Slot] = []
        shape = (feed.max_batch, 1, *feed.reader.shape)
        slots = [_make_slot(shape, feed.reader.dtype, feed.device) for _ in range(DALI_DEPTH + READ_AHEAD + 1)]
        self._ring = Ring(slots, self._fill, feed.threads)
        self._pipeline = _pipeline(
            source=self._source,
            stored=feed.reader.dtype,
            mean=feed.scale * feed.mean,
            std=feed.scale * feed.std,
            batch_size=feed.max_batch,
            device_id=feed.device.index if feed.device.type == "cuda" else None,
        )

    def begin(self, epoch: int, batches: range) -> None:
        """See :class:`pneumo_fast.engines.Engine`."""
        self._epoch, self._failure, self._stopped = epoch, None, False
        self._ring.begin(batches)

    def next(self) -> Batch:
        """See :class:`pneumo_fast.engines.Engine`; gives the slot back to be read into while DALI is at work."""
        device = self._feed.device
        stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        try:
            with nvtx_range("deliver", device):
                outputs = self._pipeline.run(stream)
        except StopIteration:
            raise self._failure or DatasetError("the epoch ended before its last batch") from None
        images, labels = (from_dlpack(output.as_tensor()) for output in outputs)
        slot = self._in_dali.pop(0)
        if stream is not None:
            slot.delivered = stream.record_event()
        self._ring.give_back(slot)
        return images, labels

    def end(self) -> None:
        """Take what DALI has begun out of it, so that the next epoch starts clean."""
        if self._pipeline is None or self._stopped:
            return
        self._stopped = True
        try:
            while True:
                self._pipeline.run()
        except StopIteration:
            self._pipeline.reset()
        self._ring.end()
        self._in_dali.clear()

    def close(self) -> None:
        """See :class:`pneumo_fast.engines.Engine`."""
        self.end()
        self._ring.close()
        self._feed.reader.close()
        self._pipeline = self._failure = None  # an error's traceback holds on to the pipeline

    def _fill(self, slot: Slot, batch: int) -> None:
        with nvtx_range("read", self._feed.device):
            rows = self._feed.rows(self._epoch, batch)
            slot.rows = len(rows)
            self._feed.reader.read_into(rows, slot.images.numpy()[: len(rows), 0])
            np.take(self._feed.labels, rows, out=slot.labels.numpy()[: len(rows)], mode="clip")

    def _source(self) -> tuple[Images, NDArray[np.float32]]:
        """What DALI calls: hand over the next batch that has been read."""
        if self._stopped or self._failure is not None or not self._ring:
            raise StopIteration
        try:
            slot = self._ring.take()
        except Exception as error:  # noqa: BLE001  # next() raises it; in here it would be DALI's
            self._failure = error
            raise StopIteration from None
        self._in_dali.append(slot)
        return slot.images.numpy()[: slot.rows], slot.labels.numpy()[: slot.rows]


def _make_slot(shape: tuple[int, ...], dtype: np.dtype[Any], device: torch.device) -> Slot:
    torch_dtype = torch.float16 if dtype == np.float16 else torch.uint8
    pinned = device.type == "cuda"
    return Slot(
        images=torch.empty(shape, dtype=torch_dtype, pin_memory=pinned),
        labels=torch.empty(shape[0], pin_memory=pinned),
    )


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
