"""The kernels of :mod:`pneumo_fast.loading.engines.fused` in numba; the only module that imports it (extra ``fast``).

Each works through a whole batch without the GIL: an image is read (by pread(2), which a shard cut short cannot
hurt), and normalized while it is in the processor's cache. What comes out is far larger than the cache, so it is
stored past it ("non-temporal"), which spares the memory one read for every write: on two cores that took streaming
from 42,000 to 68,000 images per second (``docs/experiments.md``).
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, int32, int64, intp, njit, uint8, uint16, void
from numba.extending import intrinsic

from pneumo_fast.dataset.npy import HALF_FACTOR, HALF_SHIFT

LANES = 16
"""Values in a step: 64 bytes of float32, which is a cache line."""

_compiled = {"nogil": True, "error_model": "numpy"}
_pread = ctypes.CDLL(None).pread
_pread.argtypes = [ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
_pread.restype = ctypes.c_int64

_INT32 = ir.IntType(32)
_INTS = ir.VectorType(_INT32, LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


def _step(bits: int) -> Any:
    """A numba function of (source, target, shift, factor): normalize 16 values from one address to another.

    The target is a multiple of 64. float16 (``bits`` 16), none of it negative, becomes float32 by its bits (see
    :data:`pneumo_fast.dataset.npy.HALF_SHIFT`).
    """
    stored = ir.VectorType(ir.IntType(bits), LANES)

    @intrinsic
    def step(_typing: Any, source: Any, target: Any, shift: Any, factor: Any) -> Any:
        del source, target, shift, factor  # types; the signature gives them

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            source, target, shift, factor = arguments
            values = builder.zext(builder.load(builder.inttoptr(source, stored.as_pointer()), align=1), _INTS)
            if bits == 16:  # a float16
                single = builder.bitcast(builder.shl(values, ir.Constant(_INTS, [HALF_SHIFT] * LANES)), _FLOATS)
                single = builder.fmul(single, ir.Constant(_FLOATS, [HALF_FACTOR] * LANES))
            else:
                single = builder.uitofp(values, _FLOATS)
            shifted = builder.fsub(single, _repeat(builder, shift))
            address = builder.inttoptr(target, _FLOATS.as_pointer())
            store = builder.store(builder.fmul(shifted, _repeat(builder, factor)), address, align=64)
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT32, 1)]))
            return context.get_dummy_value()

        return void(intp, intp, float32, float32), generate

    return step


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


def _kernels(stored: Any, value: Any, step: Any) -> tuple[Any, Any]:
    """Compile (stream, gather) for images whose stored values have one type."""

    @njit(void(stored[::1], float32[::1], float32, float32), **_compiled)
    def normalize(image: Any, out: Any, shift: Any, factor: Any) -> None:
        source, target, whole = image.ctypes.data, out.ctypes.data, image.size // LANES
        if target % 64 == 0:
            for i in range(whole):
                step(source + i * LANES * image.itemsize, target + i * 64, shift, factor)
        else:
            whole = 0
        for i in range(whole * LANES, image.size):
            out[i] = (value(image[i]) - shift) * factor

    @njit(int64(int32[::1], int64[::1], stored[::1], float32[:, ::1], float32, float32), **_compiled)
    def stream(descriptors: Any, offsets: Any, scratch: Any, out: Any, shift: Any, factor: Any) -> Any:
        wanted = scratch.size * scratch.itemsize
        for i in range(descriptors.size):
            if _pread(descriptors[i], scratch.ctypes.data, wanted, offsets[i]) != wanted:
                _fence()
                return i
            normalize(scratch, out[i], shift, factor)
        _fence()
        return descriptors.size

    @njit(void(stored[:, ::1], int64[::1], float32[:, ::1], float32, float32), **_compiled)
    def gather(images: Any, rows: Any, out: Any, shift: Any, factor: Any) -> None:
        for i in range(rows.size):
            normalize(images[rows[i]], out[i], shift, factor)
        _fence()

    return stream, gather


@njit(float32(uint16), **_compiled)
def _half(bits: Any) -> Any:
    return np.uint32(np.uint32(bits) << HALF_SHIFT).view(np.float32) * np.float32(HALF_FACTOR)


@njit(float32(uint8), **_compiled)
def _byte(level: Any) -> Any:
    return np.float32(level)


stream_half, gather_half = _kernels(uint16, _half, _step(16))
stream_byte, gather_byte = _kernels(uint8, _byte, _step(8))
