"""Conversion: this project against the reference approach and against the ceiling that the JPEG decoder sets."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import JPEGBaseline8Bit

from benchmarks.measure import Contender, Result, Stage, Turn, race, ratio, without_start_up
from benchmarks.rivals import chosen_plugin, run_rivals
from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.conversion.supervisor import ONE_THREAD
from pneumo_fast.errors import ConfigError
from pneumo_fast.vocabulary import Decode

CEILING, FAST, EXACT = "ceiling: libjpeg-turbo alone", "pneumo-fast, fast", "pneumo-fast, exact"
ALONE = "pneumo-fast, fast, a single image"


@dataclass(frozen=True, kw_only=True, slots=True)
class Radiographs:
    """DICOM files under new ids, with a label table."""

    images: Path
    """Folder of links."""
    labels: Path
    """Label table (CSV)."""
    paths: tuple[str, ...]
    about: dict[str, Any]
    """How many files they are links to, and what these are like."""


def replicate(source: Path, folder: Path, count: int) -> Radiographs:
    """Link the DICOM files of a folder under ``count`` new ids, again and again if need be, and label them.

    Raises
    ------
    ConfigError
        If there are none, or the first is not JPEG Baseline, which the bare decoder is measured on.
    """
    files = sorted(source.glob("*.dcm"))
    if not files:
        raise ConfigError(f"{source} holds no *.dcm files: give a folder that does, or none at all")
    header = pydicom.dcmread(files[0], stop_before_pixels=True)
    if header.file_meta.TransferSyntaxUID != JPEGBaseline8Bit:
        raise ConfigError(f"{files[0]} is {header.file_meta.TransferSyntaxUID.name}: give JPEG Baseline files")
    images = folder / "images"
    images.mkdir(parents=True)
    paths = [images / f"image{number:07d}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        link(files[number % len(files)], path)
    rows = [f"{path.stem},{number % 4 == 0:d}" for number, path in enumerate(paths)]
    labels = folder / "labels.csv"
    labels.write_text("\n".join(["patientId,Target", *rows]) + "\n")
    used = files[:count]
    about = {
        "from": f"{len(used)} files" + (" (replicated)" if count > len(used) else ""),
        "of": f"{header.Rows} x {header.Columns}",
        "kB each": round(sum(file.stat().st_size for file in used) / len(used) / 1000),
    }
    return Radiographs(images=images, labels=labels, paths=tuple(map(str, paths)), about=about)


def link(source: Path, target: Path) -> None:
    """Hard link, or a symbolic one across file systems."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        target.symlink_to(source.resolve())


def convert_stage(source: Path, folder: Path, *, count: int, size: int, workers: int, runs: int) -> Stage:
    """Race the converter, the bare decoder, and the reference approach with each of pydicom's plugins."""
    radiographs, single = replicate(source, folder, count), replicate(source, folder / "single", 1)

    def ours(number: int, decode: Decode = "fast", what: Radiographs = radiographs) -> Contender:
        return _ours(what, folder, size=size, workers=number, decode=decode)

    contenders = {
        CEILING: _rival(["decode"], radiographs, workers),
        FAST: ours(workers),
        EXACT: ours(workers, "exact"),
        ALONE: ours(workers, what=single),
    }
    for number in (n for n in (1, 2) if n < workers):
        contenders[_with(CEILING, number, workers)] = _rival(["decode"], radiographs, number)
        contenders[_with(FAST, number, workers)] = ours(number)
    references = _references(radiographs, folder, size=size, workers=workers)
    results = race(contenders | references, runs)
    results += _steady(results)
    return Stage(
        name="convert",
        conditions={"images": count} | radiographs.about | {"to": f"{size} x {size}", "workers": workers},
        results=results,
        ratios=_ratios(results, list(references), workers),
    )


def _with(name: str, number: int, workers: int) -> str:
    """A contender's name, which tells its number of processes where that is not the one asked for."""
    return name if number == workers else f"{name}, {number} worker{'s' * (number > 1)}"


def _ours(radiographs: Radiographs, folder: Path, *, size: int, workers: int, decode: Decode) -> Contender:
    """The whole conversion: planning, starting the workers, checksums, flushing to disk."""

    def turn() -> Turn:
        with tempfile.TemporaryDirectory(dir=folder) as out:  # gone before the next turn, which finds nothing to flush
            config = ConvertConfig(
                images=radiographs.images,
                labels=radiographs.labels,
                out=Path(out, "dataset"),
                size=size,
                workers=workers,
                decode=decode,
            )
            begin = time.perf_counter()
            summary = convert(config)
            return Turn(images=summary.images, seconds=time.perf_counter() - begin)

    return turn


def _rival(work: Sequence[str], radiographs: Radiographs, processes: int) -> Contender:
    """Work that :mod:`benchmarks.rivals` does, one thread in each process, as in our workers."""
    paths = radiographs.paths

    def turn() -> Turn:
        return Turn(images=len(paths), seconds=run_rivals(work, paths, processes, os.environ | ONE_THREAD))

    return turn


def _references(radiographs: Radiographs, folder: Path, *, size: int, workers: int) -> dict[str, Contender]:
    """The reference approach with pydicom's own choice of plugin, and with Pillow, which is the fastest it knows."""
    chosen = chosen_plugin(Path(radiographs.paths[0]))
    plugins: dict[str, list[str]] = {f"reference, pydicom's choice: {chosen}": []}
    if chosen != "pillow":
        plugins["reference, told to use pillow"] = ["pillow"]

    def contender(plugin: list[str]) -> Contender:
        def turn() -> Turn:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                return _rival(["reference", out, str(size), *plugin], radiographs, workers)()

        return turn

    return {name: contender(plugin) for name, plugin in plugins.items()}


def _steady(results: list[Result]) -> list[Result]:
    """Our results once more with the start-up taken off, where there are images enough to tell."""
    by_name = {result.name: result for result in results}
    ours = [result for name, result in by_name.items() if name.startswith("pneumo-fast") and name != ALONE]
    steady = [without_start_up(result, by_name[ALONE]) for result in ours]
    return [result for result in steady if result is not None]


def _ratios(results: list[Result], references: list[str], workers: int) -> dict[str, float]:
    """What is asked of the converter, with and without its start-up, and how far this machine scales at all."""
    names = {result.name for result in results}
    alone = next(result for result in results if result.name == ALONE)
    ratios = {"start-up: seconds to convert a single image": 1 / alone.median}
    many = sorted({number for number in (2, workers) if 1 < number <= workers})
    for kind, tail in (("end to end", ""), ("steady", ", steady")):
        pairs = {"fast / ceiling": (FAST + tail, CEILING), "exact / ceiling": (EXACT + tail, CEILING)}
        pairs |= {f"fast / {name}": (FAST + tail, name) for name in references}
        for n in many:
            pairs[f"fast, {n} workers / 1"] = (_with(FAST, n, workers) + tail, _with(FAST, 1, workers) + tail)
        ratios |= {f"{key}, {kind}": ratio(results, *pair) for key, pair in pairs.items() if names.issuperset(pair)}
    scaling = {f"ceiling, {n} workers / 1": (_with(CEILING, n, workers), _with(CEILING, 1, workers)) for n in many}
    return ratios | {key: ratio(results, *pair) for key, pair in scaling.items()}
