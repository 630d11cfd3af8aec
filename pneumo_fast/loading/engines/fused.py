"""The fused engine, for CPUs: it casts and normalizes image by image while it is in the cache, without the GIL.

With numba (extra ``fast``) compiled kernels do it; without it, and until they are loaded, NumPy takes a few passes over
the same cached image. Both give the same bits: ``(float32(stored) - shift) * factor``, each step rounded to float32.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from pneumo_fast.dataset.npy import HALF_FACTOR, HALF_SHIFT, Images
from pneumo_fast.loading.augment import Draws, Floats, apply, noise_field
from pneumo_fast.loading.engines.base import READ_AHEAD, Batch, Feed
from pneumo_fast.loading.engines.ring import Position, Ring, Slot, make_slots
from pneumo_fast.loading.reader import ShardReader
from pneumo_fast.loading.rng import Rows

if TYPE_CHECKING:
    from pneumo_fast.loading.engines.kernels import Kernels


class Normalizer:
    """Gathers stored images as normalized float32, from files or from memory; safe to use from several threads.

    Parameters
    ----------
    dtype : float16 or uint8
        Stored data type; no value is negative.
    mean, std : float
        Of the stored values.
    compiled : bool
        Use numba where it is installed, as soon as its kernels are there.
    """

    def __init__(self, dtype: np.dtype[Any], mean: float, std: float, *, compiled: bool = True) -> None:
        self._constants = np.float32(mean), np.float32(1 / std)
        self._half = dtype == np.float16
        self._dtype = np.dtype(np.uint16) if self._half else np.dtype(np.uint8)
        self._normalize = _half_by_numpy if self._half else _byte_by_numpy
        self._loading = compiled_kernels(8 * self._dtype.itemsize) if compiled else None
        self._threads = threading.local()

    def wait_for_kernels(self) -> Normalizer:
        """The normalizer itself, once its kernels are loaded, where it is to have them."""
        if self._loading is not None:
            self._loading.result()
        return self

    @property
    def _kernels(self) -> Kernels | None:
        return self._loading.result() if self._loading is not None and self._loading.done() else None

    def stream(self, reader: ShardReader, rows: Rows, out: Floats) -> None:
        """Read images and normalize them into ``out``, shape (len(rows), pixels), C order.

        Raises
        ------
        DatasetError
            See :meth:`pneumo_fast.loading.reader.ShardReader.read_into`.
        """
        scratch = self._scratch(out.shape[1])
        places = reader.locate(rows)
        row, kernels = 0, self._kernels
        while row < len(rows):
            if kernels is not None:
                row += kernels.stream(
                    places.descriptor[row:], places.offset[row:], scratch, out[row:], *self._constants
                )
            if row < len(rows):  # no numba, a file not kept open; or a short read or wild value, which becomes an error
                reader.read_into(rows[row : row + 1], scratch.view(reader.dtype).reshape(1, *reader.shape))
                self._normalize(scratch, out[row], *self._constants)
                row += 1
        reader.check_unchanged(places)

    def gather(self, images: Images, rows: Rows, out: Floats) -> None:
        """Normalize some of the ``images``, shape (n, pixels), into ``out``, shape (len(rows), pixels)."""
        stored = images.view(self._dtype)
        if (kernels := self._kernels) is not None:
            kernels.gather(stored, rows, out, *self._constants)
            return
        for row, target in zip(rows.tolist(), out, strict=True):
            self._normalize(stored[row], target, *self._constants)

    def _scratch(self, pixels: int) -> NDArray[Any]:
        """Room for one stored image, reused by the thread that asks."""
        if not hasattr(self._threads, "scratch"):
            self._threads.scratch = np.empty(pixels, dtype=self._dtype)
        scratch: NDArray[Any] = self._threads.scratch
        return scratch


@lru_cache
def compiled_kernels(bits: int) -> Future[Kernels | None]:
    """The kernels for stored values of so many bits, which a thread loads; None without the extra ``fast``.

    Importing numba and reading them from the disk takes 0.4 s, compiling them the first time a second, which the first
    batch need not wait for.
    """
    loader = ThreadPoolExecutor(1, thread_name_prefix="pneumo-fast-kernels")
    try:
        return loader.submit(_load_kernels, bits)
    finally:
        loader.shutdown(wait=False)


def _load_kernels(bits: int) -> Kernels | None:
    try:
        from pneumo_fast.loading.engines.kernels import load  # noqa: PLC0415  # only where they are used
    except ImportError:
        return None
    return load(bits)


def _half_by_numpy(bits: NDArray[np.uint16], out: Floats, shift: np.float32, factor: np.float32) -> None:
    np.left_shift(bits, np.uint32(HALF_SHIFT), out=out.view(np.uint32), dtype=np.uint32)
    np.multiply(out, np.float32(HALF_FACTOR), out=out)
    np.subtract(out, shift, out=out)
    np.multiply(out, factor, out=out)


def _byte_by_numpy(levels: NDArray[np.uint8], out: Floats, shift: np.float32, factor: np.float32) -> None:
    np.subtract(levels, shift, out=out, dtype=np.float32)
    np.multiply(out, factor, out=out)


GROUP = 16  # images augmented together on a CPU: few enough to stay in its cache


class FusedEngine:
    """Reads, casts and normalizes each image into the very memory that PyTorch sees; for CPUs."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        mean, std = (0.0, 1.0) if feed.augmentation else (feed.mean, feed.std)
        self._normalizer = Normalizer(feed.reader.dtype, mean * feed.scale, std * feed.scale)
        self._noise = torch.tensor(noise_field(feed.reader.shape[0])) if feed.augmentation else torch.empty(0)
        shape = (feed.max_batch, 1, *feed.reader.shape)
        self._ring = Ring(make_slots(READ_AHEAD + 1, shape, torch.float32), self._fill, feed.threads)
        self._lent: Slot | None = None

    def begin(self, epoch: int, first: int, stop: int) -> None:
        """See :class:`Engine`."""
        self._ring.begin(epoch, first, stop)

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
        rows = slot.taken = self._write(rows, slot.images.numpy().reshape(len(slot.images), -1)[: len(rows)])
        slot.rows = len(rows)
        slot.views = slot.images[: len(rows)], slot.labels[: len(rows)]  # here: the consumer would wait for the GIL
        if self._feed.augmentation:
            draws = self._feed.augmentation.draw(position[0], rows, slot.images.shape[-1])
            self._augment(draws, slot.images[: len(rows)])
        np.take(self._feed.labels, rows, out=slot.labels.numpy()[: len(rows)], mode="clip")

    def _write(self, rows: Rows, out: NDArray[np.float32]) -> Rows:
        """Normalize images into ``out``, shape (len(rows), pixels); return the rows that are there, the first of it."""
        self._normalizer.stream(cast("ShardReader", self._feed.reader), rows, out)
        return rows

    def _augment(self, draws: Draws, images: torch.Tensor) -> None:
        """Change images in [0, 1] and normalize them, in place."""
        table = torch.from_numpy(draws.table())
        for group, of_group in zip(torch.split(images, GROUP), torch.split(table, GROUP), strict=True):
            changed = apply(group, of_group, self._noise)
            torch.mul(changed.sub_(self._feed.mean), 1 / self._feed.std, out=group)
