"""A ring of reused buffers that a few threads fill ahead of the consumer.

Fresh memory for every batch costs more in page faults than everything else together, so the buffers are allocated
once. Batches are taken in their order, whichever thread was done first.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(eq=False, slots=True)
class Slot:
    """One reused batch buffer in host memory, pinned where it is copied to a GPU, and its copy in GPU memory."""

    images: torch.Tensor
    """Shape (max_batch, 1, size, size)."""
    labels: torch.Tensor
    """Float32, shape (max_batch,)."""
    rows: int = 0
    """How many of the rows are filled."""
    views: tuple[torch.Tensor, torch.Tensor] = field(default_factory=lambda: (torch.empty(0), torch.empty(0)))
    """The filled rows of both."""
    taken: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Row numbers of the images in it, where the engine tells."""
    arguments: tuple[NDArray[np.generic], ...] = ()
    """What DALI is told about each image, beside its pixels."""
    on_gpu: tuple[torch.Tensor, torch.Tensor] | None = None
    """Images and labels on the GPU, of the same shapes, where they are copied there."""
    delivered: torch.cuda.Event | None = None
    """Passed on the device once the batch that came from here has left this memory."""

    def copy_to_gpu(self, stream: torch.cuda.Stream) -> None:
        """Copy the filled rows to :attr:`on_gpu`, if there is such memory, and wait until they are there."""
        if self.on_gpu is None:
            return
        copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            for there, here in zip(self.on_gpu, (self.images, self.labels), strict=True):
                there[: self.rows].copy_(here[: self.rows], non_blocking=True)
            copied.record(stream)
        copied.synchronize()


def make_slots(
    count: int, shape: tuple[int, ...], dtype: torch.dtype, *, gpu: torch.device | None = None
) -> list[Slot]:
    """Slots for images of this shape, (max_batch, 1, size, size), in this machine's memory, and on a GPU if given."""

    def room(device: torch.device | str, *, pinned: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.empty(shape, dtype=dtype, device=device, pin_memory=pinned)
        return images, torch.empty(shape[:1], dtype=torch.float32, device=device, pin_memory=pinned)

    def slot() -> Slot:
        images, labels = room("cpu", pinned=gpu is not None)  # whatever PyTorch's default device is
        return Slot(images=images, labels=labels, on_gpu=room(gpu) if gpu else None)

    return [slot() for _ in range(count)]


Position = tuple[int, int]
"""Epoch and batch."""


class Ring:
    """Fills slots ahead of the consumer; at most as many batches as there are slots are in memory.

    ``fill`` puts a batch into a slot; it is called from several threads at once.
    """

    def __init__(self, slots: list[Slot], fill: Callable[[Slot, Position], None], threads: int) -> None:
        self._slots = slots
        self._fill = fill
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pneumo-fast-read")
        self._todo: Iterator[Position] = iter(())
        self._filling: deque[tuple[Slot, Future[None]]] = deque()

    def begin(self, epoch: int, first: int, stop: int) -> None:
        """Start to fill all slots: with each epoch's batches up to ``stop``, the first one's from ``first``."""
        self._todo = (
            (later, batch) for later in itertools.count(epoch) for batch in range(first if later == epoch else 0, stop)
        )
        for slot in self._slots:
            self.give_back(slot)

    def __bool__(self) -> bool:
        """Whether there is another batch to take."""
        return bool(self._filling)

    def take(self) -> Slot:
        """The next batch in order, once it is filled.

        Raises
        ------
        Exception
            Whatever filling it raised.
        """
        slot, filled = self._filling[0]
        filled.result()  # a signal may interrupt this: the slot stays in the queue, so that it is waited for
        self._filling.popleft()
        return slot

    def give_back(self, slot: Slot) -> None:
        """Let a slot be filled with another batch."""
        position = next(self._todo, None)
        if position is not None:
            self._filling.append((slot, self._pool.submit(self._fill_when_free, slot, position)))

    def _fill_when_free(self, slot: Slot, position: Position) -> None:
        if slot.delivered is not None:
            slot.delivered.synchronize()
        self._fill(slot, position)

    def end(self) -> None:
        """Stop filling, and wait for what is being filled."""
        self._todo = iter(())
        for _, filled in self._filling:
            filled.cancel()
        while self._filling:
            with suppress(CancelledError):
                self._filling[0][1].exception()
            self._filling.popleft()

    def close(self) -> None:
        """End, and give back threads and memory."""
        self.end()
        self._pool.shutdown()
        self._slots.clear()


def nvtx_range(name: str, device: torch.device) -> AbstractContextManager[None]:
    """A named stretch in a profile of a GPU; nothing elsewhere."""
    ranged: AbstractContextManager[None] = torch.cuda.nvtx.range(name) if device.type == "cuda" else nullcontext()
    return ranged
