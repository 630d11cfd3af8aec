"""DALI's pipeline against its dynamic mode: the same batches, from memory, cast and normalized, or augmented as well.

    python benchmarks/dali_modes.py [--device cuda --size 224 --batch-size 256 --out FILE.json]

Both are given float16 images that lie in memory and deliver normalized float32 tensors; that they deliver the same is
checked before anything is timed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import nvidia.dali.experimental.dynamic as ndd
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from torch.utils.dlpack import from_dlpack

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Contender, Stage, Turn, as_json, race, ratio, report
from pneumo_fast.loading.augment import Augmentation

Pair = tuple[NDArray[np.float16], NDArray[np.float32]]
"""Images (N, 1, size, size), and the matrix of each (N, 2, 3)."""
MEAN, STD = 0.5, 0.25
BATCHES: Final = 8
DEPTH: Final = 2


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--size", type=int, default=224, help="pixels (224)")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--least-seconds", type=float, default=2.0, help="that a turn takes")
    parser.add_argument("--runs", type=int, default=5, help="turns that count (5)")
    parser.add_argument("--out", type=Path, help="file for the raw values (JSON)")
    arguments = parser.parse_args()
    device = torch.device("cuda", 0) if arguments.device == "cuda" else torch.device("cpu")
    batches = list(make_batches(arguments.batch_size, arguments.size, device))
    sources = {
        f"{mode}, {'augmented' if augmented else 'normalized'}": make(batches, device, augmented=augmented)
        for augmented in (False, True)
        for mode, make in (("pipeline", by_pipeline), ("dynamic mode", by_dynamic_mode))
    }
    for work in ("normalized", "augmented"):
        both = [sources[f"{mode}, {work}"]() for mode in ("pipeline", "dynamic mode")]
        torch.testing.assert_close(*both, atol=1e-3, rtol=1e-3)
    contenders = {name: turns(source, device, arguments) for name, source in sources.items()}
    results = race(contenders, arguments.runs)
    ratios = {
        f"dynamic mode / pipeline, {work}": ratio(results, f"dynamic mode, {work}", f"pipeline, {work}")
        for work in ("normalized", "augmented")
    }
    conditions = {"size": arguments.size, "batch": arguments.batch_size, "stored": "float16", "device": str(device)}
    stages = [Stage(name="DALI's modes", conditions=conditions, results=results, ratios=ratios)]
    print(report(stages))
    if arguments.out:
        arguments.out.write_text(as_json(stages) + "\n")


def make_batches(count: int, size: int, device: torch.device) -> Iterator[Pair]:
    """Random images, pinned where they go to a GPU, with what strong augmentation draws for them."""
    rng = np.random.default_rng(0)
    for number in range(BATCHES):
        held = torch.empty(count, 1, size, size, dtype=torch.float16, pin_memory=device.type == "cuda")
        images = held.numpy()
        images[...] = rng.random(images.shape, dtype=np.float32)
        drawn = Augmentation(strength="strong").draw(number, np.arange(count, dtype=np.int64), size)
        yield images, drawn.matrix.astype(np.float32)


def by_pipeline(batches: list[Pair], device: torch.device, *, augmented: bool) -> Callable[[], torch.Tensor]:
    """The pipeline with ``external_source``, as the engine ``dali`` uses it."""
    endless, size, on_gpu = itertools.cycle(batches), batches[0][0].shape[-1], device.type == "cuda"
    given = 2 if augmented else 1

    def define() -> Any:
        images, *matrix = fn.external_source(
            source=lambda: next(endless)[:given], num_outputs=given, batch=True, no_copy=True,
            dtype=[types.FLOAT16, types.FLOAT][:given], ndim=[3, 2][:given], layout=["CHW", ""][:given],
        )  # fmt: skip
        images = images.gpu() if on_gpu else images
        if augmented:
            images = fn.reshape(fn.cast(images, dtype=types.FLOAT), shape=[size, size, 1], layout="HWC")
            images = fn.warp_affine(images, matrix=matrix[0], dtype=types.FLOAT, fill_value=0.0)
        return fn.crop_mirror_normalize(images, dtype=types.FLOAT, mean=[MEAN], std=[STD], output_layout="CHW")

    decorate = pipeline_def(
        batch_size=len(batches[0][0]), device_id=0 if on_gpu else None, num_threads=2, prefetch_queue_depth=DEPTH
    )
    pipeline = decorate(define)()
    pipeline.build()

    def deliver() -> torch.Tensor:
        (images,) = pipeline.run()
        return from_dlpack(images.as_tensor())

    return deliver


def by_dynamic_mode(batches: list[Pair], device: torch.device, *, augmented: bool) -> Callable[[], torch.Tensor]:
    """The same operators, called from Python."""
    endless, size = itertools.cycle(batches), batches[0][0].shape[-1]
    ndd.set_num_threads(2)

    def deliver() -> torch.Tensor:
        stored, matrix = next(endless)
        images = ndd.as_batch(stored, layout="CHW")
        images = images.gpu() if device.type == "cuda" else images
        if augmented:
            images = ndd.reshape(ndd.cast(images, dtype=ndd.float32), shape=[size, size, 1], layout="HWC")
            images = ndd.warp_affine(images, matrix=ndd.as_batch(matrix), dtype=ndd.float32, fill_value=0.0)
        done = ndd.crop_mirror_normalize(images, dtype=ndd.float32, mean=[MEAN], std=[STD], output_layout="CHW")
        tensor: torch.Tensor = done.torch()
        return tensor

    return deliver


def turns(deliver: Callable[[], torch.Tensor], device: torch.device, arguments: argparse.Namespace) -> Contender:
    """Whole batches for a while, one after the other, each waited for."""

    def turn() -> Turn:
        begin, images = time.perf_counter(), 0
        while (seconds := time.perf_counter() - begin) < arguments.least_seconds:
            images += len(deliver())
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return Turn(images=images, seconds=seconds)

    return turn


if __name__ == "__main__":
    main()
