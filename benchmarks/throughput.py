"""Images per second of each stage beside the reference approach in the same run, and the seconds that starting takes.

    python benchmarks/throughput.py                                  makes its own radiographs
    python benchmarks/throughput.py --dicoms DIR --out FILE.json     uses real ones and keeps the raw values
    python benchmarks/throughput.py --stage load --dataset DIR       uses a dataset that convert wrote
    python benchmarks/throughput.py --rehearse-scale --dataset DIR   loads more and more images

Prints a table for people and, as its last line, everything as JSON for programs. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from pneumo_fast.resources import usable_cores

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `python benchmarks/throughput.py` works anywhere

from benchmarks.convert_stage import convert_stage
from benchmarks.direct_stage import direct_stage
from benchmarks.inputs import convert_dicoms, store_dataset, store_numbered
from benchmarks.load_stage import load_stage
from benchmarks.measure import Stage, as_json, report
from benchmarks.predict_stage import predict_stage
from benchmarks.scale_stage import SIZES, scale_stage
from benchmarks.start_stage import start_stage
from benchmarks.train_stage import train_stage
from pneumo_fast.errors import PneumoError
from pneumo_fast.phantoms.make import IMAGES_FOLDER, make_phantoms
from pneumo_fast.phantoms.options import PhantomConfig

STAGES = ("convert", "direct", "load", "start", "train", "predict")
PHANTOMS, PHANTOM_PX = 16, 1024
NUMBERED = 2000  # images on which the quality of the shuffle is measured


def main() -> None:
    """Measure what the command line asks for."""
    arguments = _parse()
    with tempfile.TemporaryDirectory(prefix="pneumo-fast-bench-") as temporary:
        work = Path(temporary)
        os.environ["XDG_CONFIG_HOME"] = str(work / "config")  # a hash key of its own
        wanted = arguments.stage or ([] if arguments.rehearse_scale is not None else ["all"])
        names = [name for name in STAGES if name in wanted or "all" in wanted]
        names += ["scale"] if arguments.rehearse_scale is not None else []
        try:
            stages = [_measure(name, work, arguments) for name in names]
        except PneumoError as error:
            sys.exit(f"throughput.py: {error}")
    print(report(stages))
    text = as_json(stages)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


def _parse() -> Any:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", action="append", choices=(*STAGES, "all"), help="may be repeated; all by default")
    parser.add_argument("--dicoms", type=Path, help=f"folder of DICOM files; else {PHANTOMS} phantoms are made")
    parser.add_argument("--dataset", type=Path, help="dataset to load and train on; else the DICOM files are converted")
    parser.add_argument("--images", type=_positive, default=2000, help="how many to convert, to load, to train on")
    parser.add_argument("--size", type=_positive, default=224, help="pixels, stored size")
    parser.add_argument("--workers", type=_positive, default=usable_cores(), help="processes, to convert")
    parser.add_argument("--batch-size", type=_positive, default=256, help="for loading")
    parser.add_argument("--least-seconds", type=float, default=1.0, help="that a run of loading takes, in whole epochs")
    parser.add_argument("--only", action="append", metavar="TEXT", help="load: contenders named so; may be repeated")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="load: on this one alone; else on each there is")
    grow = f"load as the dataset grows, replicated to so many images: {' '.join(map(str, SIZES))} if none is given"
    parser.add_argument("--rehearse-scale", type=_positive, nargs="*", metavar="N", help=grow)
    parser.add_argument("--runs", type=_positive, default=5, help="that count, after one to warm up")
    parser.add_argument("--train-size", type=_positive, default=224 if gpu else 64, help="stored size, for training")
    parser.add_argument("--train-batch-size", type=_positive, default=256 if gpu else 32, help="for training")
    parser.add_argument("--steps", type=_positive, default=50 if gpu else 8, help="training steps in a run")
    parser.add_argument("--out", type=Path, help="file for the raw values (JSON)")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not gpu:
        parser.error("--device cuda: there is no CUDA device")
    return arguments


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value}: at least 1 expected")
    return value


def _measure(name: str, work: Path, arguments: Any) -> Stage:
    print(f"measuring {name} ...", file=sys.stderr, flush=True)
    if name == "convert":
        counts = {"count": arguments.images, "workers": arguments.workers, "runs": arguments.runs}
        return convert_stage(_dicoms(work, arguments), work / name, size=arguments.size, **counts)
    if name == "direct":
        counts = {"count": arguments.images, "workers": arguments.workers, "runs": arguments.runs}
        return direct_stage(_dicoms(work, arguments), work / name, size=arguments.size, **counts)
    if name == "predict":
        counts = {"count": arguments.images, "workers": arguments.workers, "runs": arguments.runs}
        return predict_stage(_dicoms(work, arguments), work / name, size=arguments.train_size, **counts)
    counts = {"batch_size": arguments.batch_size, "runs": arguments.runs}
    if name == "scale":
        sizes = tuple(arguments.rehearse_scale or SIZES)
        dataset, _ = _dataset(work, arguments.size, arguments)
        return scale_stage(dataset, work / name, sizes=sizes, **counts, least_s=arguments.least_seconds)
    if name == "start":
        return start_stage(_dataset(work, arguments.train_size, arguments)[0], runs=arguments.runs)
    if name == "load":
        dataset, source = _dataset(work, arguments.size, arguments)
        stored = store_dataset(dataset, work / name, arguments.images, source)
        numbered = store_numbered(dataset, work / "numbered", min(arguments.images, NUMBERED))
        only = tuple(arguments.only or ())
        return load_stage(stored, numbered, **counts, least_s=arguments.least_seconds, only=only, on=arguments.device)
    dataset, source = _dataset(work, arguments.train_size, arguments)
    stored = store_dataset(dataset, work / name, arguments.images, source)
    return train_stage(stored, batch_size=arguments.train_batch_size, steps=arguments.steps, runs=arguments.runs)


def _dicoms(work: Path, arguments: Any) -> Path:
    """The folder given, or one of phantoms, which is made when first needed."""
    if arguments.dicoms:
        return Path(arguments.dicoms)
    images = work / "phantoms" / IMAGES_FOLDER
    if not images.exists():
        make_phantoms(PhantomConfig(out=images.parent, count=min(PHANTOMS, arguments.images), size_px=PHANTOM_PX))
    return images


def _dataset(work: Path, size: int, arguments: Any) -> tuple[Path, str]:
    """The dataset given, or the radiographs converted, which is done when first needed; and where it comes from."""
    if arguments.dataset:
        return Path(arguments.dataset), "a dataset given"
    source, folder = _dicoms(work, arguments), work / f"converted-{size}"
    return convert_dicoms(source, folder, count=arguments.images, size=size, workers=arguments.workers)


if __name__ == "__main__":
    main()
