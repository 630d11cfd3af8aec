"""Conversion: this project against the reference approach and against the ceiling that the JPEG decoder sets."""

from __future__ import annotations

import io
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGBaseline8Bit

from benchmarks.measure import Contender, Stage, race, ratio
from pneumo_fast.convert import convert
from pneumo_fast.options import ConvertConfig

REFERENCE_SIZE = 224


def replicate(source: Path, folder: Path, count: int) -> tuple[Path, Path]:
    """Make ``count`` hard links to DICOM files under new ids, and a label table; (images, labels)."""
    files = sorted(source.glob("*.dcm"))
    images = folder / "images"
    images.mkdir(parents=True)
    rows = ["patientId,Target"]
    for number in range(count):
        link(files[number % len(files)], images / f"image{number:07d}.dcm")
        rows.append(f"image{number:07d},{number % 4 == 0:d}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return images, folder / "labels.csv"


def link(source: Path, target: Path) -> None:
    """Hard link, or a symbolic one across file systems."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        target.symlink_to(source.resolve())


def convert_stage(source: Path, folder: Path, *, count: int, workers: int, runs: int) -> Stage:
    """Race the converter, the reference approach with each of pydicom's plugins, and the bare decoder."""
    images, labels = replicate(source, folder, count)
    paths = [str(path) for path in sorted(images.iterdir())]
    one_image, one_label = replicate(source, folder / "one", 2)
    plugins = get_decoder(JPEGBaseline8Bit).available_plugins
    with _pool(workers) as pool:
        contenders: dict[str, Contender] = {
            "ceiling: libjpeg-turbo alone, in full": lambda: _rate(pool, _decode_frames, paths),
            "pneumo-fast, --decode fast": lambda: _ours(images, labels, folder / "out", workers, "fast"),
            "pneumo-fast, fast, 1 worker": lambda: _ours(images, labels, folder / "out", 1, "fast"),
            "pneumo-fast, --decode exact": lambda: _ours(images, labels, folder / "out", workers, "exact"),
        }
        for plugin in plugins:
            contenders[f"reference, pydicom with {plugin}"] = _reference(pool, folder / "reference", paths, plugin)
        results = race(contenders, runs)
    start_up_s = min(_seconds(one_image, one_label, folder / "out", 1, "fast") for _ in range(3))
    ratios = {
        "fast / ceiling": ratio(results, "pneumo-fast, --decode fast", "ceiling: libjpeg-turbo alone, in full"),
        "exact / ceiling": ratio(results, "pneumo-fast, --decode exact", "ceiling: libjpeg-turbo alone, in full"),
        f"{workers} workers / 1 worker": ratio(results, "pneumo-fast, --decode fast", "pneumo-fast, fast, 1 worker"),
        "seconds to convert two images (start-up)": start_up_s,
    }
    for plugin in plugins:
        name = f"reference, pydicom with {plugin}"
        ratios[f"fast / {name}"] = ratio(results, "pneumo-fast, --decode fast", name)
    conditions = {"images": count, "of": f"{len(sorted(source.glob('*.dcm')))} files (replicated)", "workers": workers}
    return Stage(name="convert", conditions=conditions, results=results, ratios=ratios)


def _ours(images: Path, labels: Path, out: Path, workers: int, decode: Literal["fast", "exact"]) -> float:
    """End to end, start-up and checksums and flushing to disk included."""
    return len(os.listdir(images)) / _seconds(images, labels, out, workers, decode)  # noqa: PTH208  # counts links


def _seconds(images: Path, labels: Path, out: Path, workers: int, decode: Literal["fast", "exact"]) -> float:
    begin = time.perf_counter()
    convert(
        ConvertConfig(
            images=images, labels=labels, out=out, val_fraction=0.5, workers=workers, decode=decode, overwrite=True
        )
    )
    return time.perf_counter() - begin


@contextmanager
def _pool(workers: int) -> Iterator[Pool]:
    """Worker processes that are already running when the clock starts, and use one thread each, as ours do."""
    saved = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield pool
    if saved is None:
        del os.environ["OPENBLAS_NUM_THREADS"]
    else:
        os.environ["OPENBLAS_NUM_THREADS"] = saved


def _rate(pool: Pool, work: Callable[[list[str]], float], paths: list[str]) -> float:
    """Images per second of all processes together, each timing its own part."""
    processes: int = pool._processes  # type: ignore[attr-defined]  # as it was made
    parts = [paths[start::processes] for start in range(processes)]
    seconds = pool.map(work, parts, chunksize=1)
    return len(paths) / max(seconds)


def _decode_frames(paths: list[str]) -> float:
    """Seconds to decode the frames, which are read into memory before the clock starts."""
    frames = [get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1) for path in paths]
    begin = time.perf_counter()
    for frame in frames:
        Image.open(io.BytesIO(frame), formats=["JPEG"]).load()
    return time.perf_counter() - begin


def _reference(pool: Pool, out: Path, paths: list[str], plugin: str) -> Contender:
    out.mkdir(exist_ok=True)
    return lambda: _rate(pool, _ReferenceWork(out, plugin), paths)


class _ReferenceWork:
    """What the common write-ups do: pydicom's array, over 255, resized, one ``.npy`` file per image."""

    def __init__(self, out: Path, plugin: str) -> None:
        self.out, self.plugin = out, plugin

    def __call__(self, paths: list[str]) -> float:
        begin = time.perf_counter()
        for path in paths:
            header = pydicom.dcmread(path)
            header.pixel_array_options(decoding_plugin=self.plugin)
            small = bilinear(header.pixel_array / 255.0, REFERENCE_SIZE)
            np.save(self.out / Path(path).stem, small.astype(np.float16))
        return time.perf_counter() - begin


def bilinear(image: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Plain bilinear resize, which looks at four input pixels for each output pixel and skips all others."""
    rows, columns = (_neighbours(length, size) for length in image.shape)
    top = image[rows[0][:, None], columns[0]] * (1 - columns[2]) + image[rows[0][:, None], columns[1]] * columns[2]
    low = image[rows[1][:, None], columns[0]] * (1 - columns[2]) + image[rows[1][:, None], columns[1]] * columns[2]
    mixed: NDArray[np.float64] = top * (1 - rows[2][:, None]) + low * rows[2][:, None]
    return mixed


def _neighbours(length: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The two input positions beside each output position, and the weight of the second."""
    centre = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    first = np.floor(centre).astype(np.int64)
    return first, np.minimum(first + 1, length - 1), centre - first
