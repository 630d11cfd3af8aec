"""The kernels of :mod:`pneumo_fast.loading.engines.fused` in numba; the only module that imports it (extra ``fast``).

Each works through a whole batch without the GIL: an image is read (by pread(2), which a shard cut short cannot
hurt), and normalized while it is in the processor's cache. What comes out is far larger than the cache, so it is
stored past it ("non-temporal"), which spares the memory one read for every write: on two cores that took streaming
from 42,000 to 68,000 images per second (``docs/experiments.md``).

Numba keeps what it compiled on disk, by its own version and the processor's: beside this file, or where that is
read-only in the user's cache folder or in ``NUMBA_CACHE_DIR``. For that the kernels stand at module level and call
pread(2) by its name: numba does not keep what holds an address.
"""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from llvmlite import ir
from numba import float32, int32, int64, intp, njit, types, uint8, uint16, void
from numba.core import cgutils
from numba.extending import intrinsic

from pneumo_fast.dataset.npy import HALF_FACTOR, HALF_SHIFT
from pneumo_fast.loading.reader import HALF_ONE

logger = logging.getLogger(__name__)

LANES = 16
"""Values in a step: 64 bytes of float32, which is a cache line."""

_compiled = {"nogil": True, "error_model": "numpy"}
_pread = types.ExternalFunction("pread", int64(int32, intp, int64, int64))

_INT32, _FLOAT = ir.IntType(32), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_INT32, LANES), ir.VectorType(_FLOAT, LANES)


def _widen(builder: Any, values: Any, bits: int, integers: Any, floats: Any) -> Any:
    """Stored values as float32, one or a vector of them.

    float16 (``bits`` 16), none of it negative, becomes float32 by its bits: see
    :data:`pneumo_fast.dataset.npy.HALF_SHIFT`.
    """

    def constant(kind: Any, value: float) -> Any:
        return ir.Constant(kind, [value] * LANES if isinstance(kind, ir.VectorType) else value)

    if bits == 8:
        return builder.uitofp(values, floats)
    shifted = builder.shl(builder.zext(values, integers), constant(integers, HALF_SHIFT))
    return builder.fmul(builder.bitcast(shifted, floats), constant(floats, HALF_FACTOR))


@intrinsic
def _single(_typing: Any, level: Any) -> Any:
    """A stored value as float32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _widen(builder, arguments[0], level.bitwidth, _INT32, _FLOAT)

    return float32(level), generate


@intrinsic
def _steps(_typing: Any, level: Any, source: Any, target: Any, count: Any, shift: Any, factor: Any) -> Any:
    """Normalize 16 values so many times, from an address on to another, a multiple of 64; gives the largest as stored.

    ``level`` tells their type. The loop stands here, so that the largest values stay in a register.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        _, source, target, count, shift, factor = arguments
        stored = ir.VectorType(ir.IntType(level.bitwidth), LANES)
        shift, factor = _repeat(builder, shift), _repeat(builder, factor)
        largest = cgutils.alloca_once_value(builder, ir.Constant(stored, [0] * LANES))
        with cgutils.for_range(builder, count) as loop:
            values = builder.load(_address(builder, source, loop.index, stored), align=1)
            _keep_largest(builder, largest, values)
            shifted = builder.fsub(_widen(builder, values, level.bitwidth, _INTS, _FLOATS), shift)
            store = builder.store(
                builder.fmul(shifted, factor), _address(builder, target, loop.index, _FLOATS), align=64
            )
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT32, 1)]))
        lanes = builder.load(largest)
        highest = cgutils.alloca_once_value(builder, ir.Constant(stored.element, 0))
        for lane in range(LANES):
            _keep_largest(builder, highest, builder.extract_element(lanes, ir.Constant(_INT32, lane)))
        return builder.load(highest)

    return level(level, source, target, count, shift, factor), generate


def _address(builder: Any, first: Any, index: Any, vector: Any) -> Any:
    return builder.gep(builder.inttoptr(first, vector.as_pointer()), [index])


def _keep_largest(builder: Any, kept: Any, values: Any) -> None:
    before = builder.load(kept)
    builder.store(builder.select(builder.icmp_unsigned(">", values, before), values, before), kept)


def _repeat(builder: Any, value: Any) -> Any:
    """A vector of one value."""
    empty = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(_INTS, [0] * LANES))


@intrinsic
def _fence(_typing: Any) -> Any:
    """Make what was stored past the cache visible to other threads."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return void(), generate


@njit(**_compiled)
def _normalize(image: Any, out: Any, shift: Any, factor: Any) -> Any:
    """Normalize an image, and give its largest value as it is stored."""
    whole = image.size // LANES if out.ctypes.data % 64 == 0 else 0
    largest = _steps(image[0], image.ctypes.data, out.ctypes.data, whole, shift, factor)
    for i in range(whole * LANES, image.size):
        largest = max(largest, image[i])
        out[i] = (_single(image[i]) - shift) * factor
    return largest


@njit(**_compiled)
def _in_range(image: Any) -> Any:
    """Whether all stored values lie in [0, 1]: any uint8, and a float16 whose bits are no larger number than one's."""
    if image.itemsize == 1:
        return True
    largest = image[0]
    for i in range(image.size):
        largest = max(largest, image[i])
    return largest <= HALF_ONE


def _stream(descriptors: Any, offsets: Any, scratch: Any, out: Any, shift: Any, factor: Any) -> Any:
    wanted = scratch.size * scratch.itemsize
    for i in range(descriptors.size):
        whole = _pread(descriptors[i], scratch.ctypes.data, wanted, offsets[i]) == wanted
        if not whole or _normalize(scratch, out[i], shift, factor) > HALF_ONE:  # which no uint8 is
            _fence()
            return i
    _fence()
    return descriptors.size


def _read(descriptors: Any, offsets: Any, out: Any) -> Any:
    wanted = out.shape[1] * out.itemsize
    for i in range(descriptors.size):
        if _pread(descriptors[i], out.ctypes.data + i * wanted, wanted, offsets[i]) != wanted or not _in_range(out[i]):
            return i
    return descriptors.size


def _gather(images: Any, rows: Any, out: Any, shift: Any, factor: Any) -> None:
    for i in range(rows.size):
        _normalize(images[rows[i]], out[i], shift, factor)
    _fence()


class Kernels(NamedTuple):
    """Compiled for images of one stored type; ``shift`` and ``factor`` are float32."""

    stream: Any
    """Of (descriptors, offsets, scratch, out, shift, factor): reads and normalizes image by image; returns how many, up
    to the first that came back short or with a value outside of [0, 1]."""
    gather: Any
    """Of (images, rows, out, shift, factor): normalizes some of the images in memory."""
    read: Any
    """Of (descriptors, offsets, out): reads image by image as they are stored; returns as ``stream`` does."""


@lru_cache
def load(bits: int) -> Kernels:
    """The kernels for float16 (``bits`` 16) or uint8 (8), from the disk where an earlier process has left them."""
    try:
        return _compile(bits, cache=True)
    except _UNUSABLE as error:
        logger.warning(
            "compiled kernels cannot be kept on disk or read from there (%s): they are compiled at every start; set "
            "NUMBA_CACHE_DIR to a folder of your own",
            " ".join(str(error).split()) or type(error).__name__,
        )
        return _compile(bits, cache=False)


_UNUSABLE: Final = (
    OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError,
    ImportError,
)  # fmt: skip
"""What numba raises where it can write to no folder, or finds a damaged file there."""


def _compile(bits: int, *, cache: bool) -> Kernels:
    stored = uint16 if bits == 16 else uint8
    kernels = Kernels(*(njit(kernel, cache=cache, **_compiled) for kernel in (_stream, _gather, _read)))
    with _alone(kernels.stream.stats.cache_path):
        kernels.stream.compile((int32[::1], int64[::1], stored[::1], float32[:, ::1], float32, float32))
        kernels.gather.compile((stored[:, ::1], int64[::1], float32[:, ::1], float32, float32))
        kernels.read.compile((int32[::1], int64[::1], stored[:, ::1]))
    return kernels


@contextmanager
def _alone(folder: str | None) -> Iterator[None]:
    """Keep other processes from the cache meanwhile: numba's index could lead one to what another compiled."""
    if folder is None:
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
