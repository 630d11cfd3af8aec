"""Images per second of convert, load and train, beside the reference approach in the same run.

    python benchmarks/throughput.py                                  makes its own radiographs
    python benchmarks/throughput.py --dicoms DIR --out FILE.json     uses real ones and keeps the raw values

Prints a table for people and, as its last line, everything as JSON for programs. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `python benchmarks/throughput.py` works anywhere

from benchmarks.convert_stage import convert_stage, replicate
from benchmarks.load_stage import load_stage
from benchmarks.measure import Stage, as_json, report
from benchmarks.train_stage import train_stage
from pneumo_fast.convert import convert
from pneumo_fast.options import ConvertConfig
from pneumo_fast.phantom import PhantomConfig, make_phantoms
from pneumo_fast.shards import Dataset

STAGES = ("convert", "load", "train")


def main() -> None:
    """Measure what the command line asks for."""
    arguments = _parse()
    with tempfile.TemporaryDirectory(prefix="pneumo-fast-bench-") as temporary:
        work = Path(temporary)
        os.environ["XDG_CONFIG_HOME"] = str(work / "config")  # a hash key of its own
        source = arguments.dicoms or make_phantoms(PhantomConfig(out=work / "phantoms", count=16, size_px=1024)).images
        stages = [_measure(name, source, work, arguments) for name in arguments.stage]
    print(report(stages))
    text = as_json(stages)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


def _parse() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", action="append", choices=STAGES, help="may be repeated; all by default")
    parser.add_argument("--dicoms", type=Path, help="folder of DICOM files; 16 phantoms of 1024 pixels by default")
    parser.add_argument("--images", type=int, default=2000, help="images to convert and to load (files are replicated)")
    parser.add_argument("--size", type=int, default=224, help="stored size in pixels, for loading")
    parser.add_argument("--train-size", type=int, default=64, help="stored size in pixels, for training")
    parser.add_argument("--batch-size", type=int, default=256, help="for loading; training uses 32")
    parser.add_argument("--steps", type=int, default=8, help="training steps in a run")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes, for converting")
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each contender, after one to warm up")
    parser.add_argument("--out", type=Path, help="file for the raw values (JSON)")
    arguments = parser.parse_args()
    arguments.stage = arguments.stage or list(STAGES)
    return arguments


def _measure(name: str, source: Path, work: Path, arguments: Any) -> Stage:
    folder = work / name
    if name == "convert":
        return convert_stage(source, folder, count=arguments.images, workers=arguments.workers, runs=arguments.runs)
    images, labels = replicate(source, folder, arguments.images)
    size = arguments.size if name == "load" else arguments.train_size
    shards = _dataset(images, labels, folder / "float16", size=size)
    layout = _dataset(images, labels, folder / "folder", size=size, layout="folder")
    if name == "train":
        return train_stage(shards, layout, batch_size=32, steps=arguments.steps, runs=arguments.runs)
    datasets = {"float16": shards, "uint8": _dataset(images, labels, folder / "uint8", size=size, dtype="uint8")}
    return load_stage(datasets, layout, batch_size=arguments.batch_size, runs=arguments.runs)


def _dataset(images: Path, labels: Path, out: Path, **options: Any) -> Dataset:
    convert(ConvertConfig(images=images, labels=labels, out=out, val_fraction=0.02, **options))
    return Dataset.open(out)


if __name__ == "__main__":
    main()
