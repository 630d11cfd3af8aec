"""What memory and bus allow at most, measured in the same run as the loaders."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from pneumo_fast.loading.engines.fused import Normalizer
from pneumo_fast.resources import usable_cores

BYTES = 64 << 20  # of each copy: far more than the caches hold
REPEATS = 12


def memory_limits(pixels: int, runs: int) -> dict[str, float]:
    """Bytes per second of copying on all cores, and images per second that the writes alone would allow.

    A float16 image is read (2 bytes a pixel) and written as float32 (4): at the speed of a plain copy, which moves each
    byte in and out, that is three bytes a pixel copied.
    """
    threads = usable_cores()
    source = np.ones((threads, BYTES), dtype=np.uint8)
    target = np.empty_like(source)
    copied = _best(lambda thread: np.copyto(target[thread], source[thread]), threads, runs) * BYTES
    return {"memory copy, GB/s": copied / 1e9, "images/s at the speed of a copy": copied / (3 * pixels)}


def kernel_limit(pixels: int, batch_size: int, runs: int) -> float:
    """Images per second that our kernel gathers and normalizes from memory, all cores, nothing else to do."""
    threads = usable_cores()
    normalizer = Normalizer(np.dtype("float16"), 0.4, 0.25).wait_for_kernels()
    rng = np.random.default_rng(0)
    stored = np.empty((16 * batch_size, pixels), dtype=np.float16)  # far more than the caches hold
    stored[:] = rng.random(pixels, dtype=np.float32)
    batches = rng.permutation(len(stored)).reshape(16, batch_size)
    rings = torch.empty(threads, 3, batch_size, pixels).numpy()
    turns = itertools.count()

    def gather(thread: int) -> None:
        turn = next(turns)
        normalizer.gather(stored, batches[turn % 16], rings[thread, turn % 3])

    return _best(gather, threads, runs) * batch_size


def bus_limits() -> dict[str, float]:
    """GB/s from pinned memory to the GPU, and of copies on it; empty without one."""
    if not torch.cuda.is_available():
        return {}
    host = torch.empty(BYTES * 4, dtype=torch.uint8, pin_memory=True)
    device, other = (torch.empty(BYTES * 4, dtype=torch.uint8, device="cuda") for _ in range(2))
    pairs = {"pinned host to device, GB/s": (device, host), "device copy, GB/s": (device, other)}
    limits = {}
    for name, (target, source) in pairs.items():
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(REPEATS):
            target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        limits[name] = REPEATS * host.numel() / (time.perf_counter() - begin) / 1e9
    return limits


def _best(work: Callable[[int], object], threads: int, runs: int) -> float:
    """Median over runs of how often per second the work is done, on so many threads together."""
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(runs + 1):
            begin = time.perf_counter()
            list(pool.map(lambda thread: [work(thread) for _ in range(REPEATS)], range(threads)))
            rates.append(threads * REPEATS / (time.perf_counter() - begin))
    return float(np.median(rates[1:]))
