"""The DALI engine: casts, augments and normalizes on the device.

DALI calls a source on the thread that asks for a batch, so a slow read would stop the training step. Here the source
only hands over a batch that the ring's threads have already read and, for a GPU, copied there, in the stored data type.
DALI's own copy of such a batch reached an eighth of the speed of the bus (``docs/experiments.md``).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from pneumo_fast.errors import DatasetError, DeviceError
from pneumo_fast.extras import DALI
from pneumo_fast.loading.augment import Draws, noise_field
from pneumo_fast.loading.engines.base import READ_AHEAD, Batch, Feed
from pneumo_fast.loading.engines.ring import Position, Ring, Slot, make_slots, nvtx_range
from pneumo_fast.loading.engines.stored import StoredImages

if TYPE_CHECKING:
    from pneumo_fast.loading.reader import ShardReader

try:
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali import math as dali_math
except ImportError as error:
    raise DeviceError(
        f"NVIDIA DALI cannot be imported ({error}): {DALI.command} (it runs without a GPU too), or give --loader "
        "fused or resident"
    ) from error

DALI_DEPTH = 2  # batches in flight inside DALI; more did not help
ARGUMENT_TYPES = (types.FLOAT, types.FLOAT, types.FLOAT, types.FLOAT, types.INT32)  # of what _arguments gives
ARGUMENT_DIMENSIONS = (2, 0, 0, 0, 1)


class DaliEngine:
    """Reads batches ahead in the stored data type, and lets DALI do the rest on the device."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._stopped = True
        self._failure: Exception | None = None
        self._in_dali: list[Slot] = []
        self._unasked: list[deque[Slot]] = [deque() for _ in range(2 if feed.augmentation else 1)]
        """Slots taken from the ring that a source has not yet handed to DALI, one queue for each source."""
        self._lent: Batch | None = None
        self._held: deque[tuple[torch.cuda.Event, Batch]] = deque()
        self._stored = StoredImages(cast("ShardReader", feed.reader))
        on_gpu = feed.device.type == "cuda"
        self._copying = torch.cuda.Stream(feed.device) if on_gpu else None  # type: ignore[no-untyped-call]
        ahead = max(READ_AHEAD, feed.threads) if on_gpu else READ_AHEAD
        dtype = torch.float16 if feed.reader.dtype == np.float16 else torch.uint8
        shape = (feed.max_batch, 1, *feed.reader.shape)
        slots = make_slots(DALI_DEPTH + ahead + 1, shape, dtype, gpu=feed.device if on_gpu else None)
        self._ring = Ring(slots, self._fill, feed.threads)
        self._pipeline = _pipeline(feed, self._give_images, self._give_arguments)

    def begin(self, epoch: int, first: int, stop: int) -> None:
        """See :class:`pneumo_fast.loading.engines.base.Engine`."""
        self._failure, self._stopped = None, False
        self._ring.begin(epoch, first, stop)

    def next(self) -> Batch:
        """See :class:`~pneumo_fast.loading.engines.base.Engine`; gives the slot back while DALI works."""
        device = self._feed.device
        stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        if stream is not None:
            self._hold(stream)
        try:
            with nvtx_range("deliver", device):
                outputs = self._pipeline.run(stream)
        except StopIteration:
            raise self._failure or DatasetError("the epoch ended before its last batch") from None
        images, labels = (from_dlpack(output.as_tensor()) for output in outputs)
        slot = self._in_dali.pop(0)
        if stream is not None:
            slot.delivered = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            slot.delivered.record(stream)
            self._lent = images, labels
        self._ring.give_back(slot)
        return images, labels

    def _hold(self, stream: torch.cuda.Stream) -> None:
        """Keep the last batch from being written over by DALI until all that the consumer has asked of it is done."""
        if self._lent is not None:
            self._held.append((stream.record_event(), self._lent))
        while self._held and self._held[0][0].query():  # type: ignore[no-untyped-call]
            self._held.popleft()

    def end(self) -> None:
        """Take what DALI has begun out of it, so that the next epoch starts clean."""
        if self._pipeline is None or self._stopped:
            return
        self._stopped = True
        try:
            while getattr(self._pipeline, "_pipe", self) is not None:  # None once the process ends, or is collected
                self._pipeline.run()
        except StopIteration:
            self._pipeline.reset()
        finally:
            self._ring.end()
            self._in_dali.clear()
            for unasked in self._unasked:
                unasked.clear()
            self._wait_for_consumer()

    def _wait_for_consumer(self) -> None:
        """Let no batch go, which DALI might then write over, before the consumer's stream has read it."""
        if self._lent is not None:
            self._hold(torch.cuda.current_stream(self._feed.device))
            self._lent = None
        while self._held:
            self._held[0][0].synchronize()
            self._held.popleft()

    def close(self) -> None:
        """See :class:`pneumo_fast.loading.engines.base.Engine`."""
        self.end()
        self._ring.close()
        self._feed.reader.close()
        self._pipeline = self._failure = self._lent = None  # an error's traceback holds on to the pipeline

    def _fill(self, slot: Slot, position: Position) -> None:
        with nvtx_range("read", self._feed.device):
            rows = self._feed.rows(*position)
            slot.rows = len(rows)
            self._stored.read_into(rows, slot.images.numpy()[: len(rows), 0])
            np.take(self._feed.labels, rows, out=slot.labels.numpy()[: len(rows)], mode="clip")
            if augmentation := self._feed.augmentation:
                draws = augmentation.draw(position[0], rows, self._feed.reader.shape[0])
                slot.arguments = _arguments(self._feed, draws)
        if self._copying is not None:
            with nvtx_range("copy", self._feed.device):
                slot.copy_to_gpu(self._copying)

    def _give_images(self) -> tuple[Any, Any]:
        """What DALI calls for images and labels."""
        slot = self._hand_over(self._unasked[0])
        if slot.on_gpu is not None:
            images, labels = slot.on_gpu
            return images[: slot.rows], labels[: slot.rows]
        return slot.images.numpy()[: slot.rows], slot.labels.numpy()[: slot.rows]

    def _give_arguments(self) -> tuple[NDArray[np.generic], ...]:
        """What DALI calls for the arguments of the augmentation, before or after the images of the same batch."""
        return self._hand_over(self._unasked[1]).arguments

    def _hand_over(self, unasked: deque[Slot]) -> Slot:
        """The next slot that a source has to hand to DALI, given the queue of that source."""
        if not unasked:
            if self._stopped or self._failure is not None or not self._ring:
                raise StopIteration
            try:
                slot = self._ring.take()
            except Exception as error:  # noqa: BLE001  # next() raises it; in here it would be DALI's
                self._failure = error
                raise StopIteration from None
            self._in_dali.append(slot)
            for queue in self._unasked:
                queue.append(slot)
        return unasked.popleft()


def _pipeline(feed: Feed, source: Any, argument_source: Any) -> Any:
    """Build the one pipeline, for a GPU or without one, with augmentation or without.

    ``no_copy`` is safe because a slot is not filled again before the batch made from it has been delivered, and because
    what is on the GPU has arrived before DALI is told of it. Labels are copied, since nothing is done to them: before
    DALI 2.3 the consumer would get the slot's own memory.
    """
    stored = types.FLOAT16 if feed.reader.dtype == np.float16 else types.UINT8
    on_gpu = feed.device.type == "cuda"

    def define() -> tuple[Any, Any]:
        images, labels = fn.external_source(
            source=source,
            num_outputs=2,
            batch=True,
            no_copy=True,
            device="gpu" if on_gpu else "cpu",
            dtype=[stored, types.FLOAT],
            ndim=[3, 0],
            layout=["CHW", ""],
        )
        labels = fn.copy(labels)
        if not feed.augmentation:
            return _normalized(feed, images), labels
        arguments = fn.external_source(
            source=argument_source,
            num_outputs=len(ARGUMENT_TYPES),
            batch=True,
            no_copy=True,
            dtype=list(ARGUMENT_TYPES),
            ndim=list(ARGUMENT_DIMENSIONS),
        )
        return _augmented(feed, images, *arguments), labels

    decorate = pipeline_def(
        batch_size=feed.max_batch,
        device_id=feed.device.index if on_gpu else None,
        num_threads=2,
        prefetch_queue_depth=DALI_DEPTH,
    )
    pipeline = decorate(define)()
    pipeline.build()
    return pipeline


def _normalized(feed: Feed, images: Any) -> Any:
    mean, std = feed.mean * feed.scale, feed.std * feed.scale
    return fn.crop_mirror_normalize(images, dtype=types.FLOAT, mean=[mean], std=[std], output_layout="CHW")


def _arguments(feed: Feed, draws: Draws) -> tuple[NDArray[np.generic], ...]:
    """What :func:`_augmented` is told about each image; the normalization is in the factors and summands."""
    gain = draws.contrast / np.float32(feed.scale * feed.std)
    summand = (draws.offset - np.float32(feed.mean)) / np.float32(feed.std)
    return draws.matrix, gain, summand, draws.noise / np.float32(feed.std), draws.noise_shift


def _augmented(feed: Feed, images: Any, matrix: Any, gain: Any, summand: Any, noise: Any, noise_shift: Any) -> Any:
    """The operators that do what :func:`pneumo_fast.loading.augment.apply` does, and normalize."""
    size, device = feed.reader.shape[0], "gpu" if feed.device.type == "cuda" else "cpu"
    if device == "gpu":  # but not what operators take as arguments, which DALI wants on the CPU
        gain, summand, noise = gain.gpu(), summand.gpu(), noise.gpu()
    if feed.reader.dtype == np.float16:  # which warp_affine does not take
        images = fn.cast(images, dtype=types.FLOAT)
    images = fn.reshape(images, shape=[size, size, 1], layout="HWC")
    images = fn.warp_affine(images, matrix=matrix, dtype=types.FLOAT, fill_value=0.0)
    images = fn.reshape(images, shape=[1, size, size], layout="CHW")
    field = types.Constant(noise_field(size)[None], device=device)
    windows = fn.slice(field, start=noise_shift, shape=[size, size], axes=[1, 2])
    low, high = -feed.mean / feed.std, (1 - feed.mean) / feed.std
    return dali_math.clamp(images * gain + summand + windows * noise, low, high)
