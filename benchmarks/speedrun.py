"""From a folder of DICOM files to a judged classifier, by the clock: the rules are in ``benchmarks/records/README.md``.

    python benchmarks/speedrun.py cpu --data DIR                         5 runs, mean AUROC against the target
    python benchmarks/speedrun.py cpu --data DIR --record NAME           keeps a log in benchmarks/records/DATE_NAME
    python benchmarks/speedrun.py phantom --runs 1                       on radiographs it makes

DIR holds the challenge's tables and ``stage_2_train_images``. Each run is a process of its own, from nothing but the
files: the clock starts before it and ends when it has written its metrics.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.labels import labels_of
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.splits import assign_splits
from pneumo_fast.errors import PneumoError
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.phantoms.make import make_phantoms
from pneumo_fast.phantoms.options import PhantomConfig
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.vocabulary import counted

TrackName = Literal["cpu", "gpu", "phantom"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a record may change, here and in the package; whatever is not named is an option's default."""

    augment: str = "light"
    epochs: int = 3
    batch_size: int = 64
    optimizer: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.02
    schedule: str = "onecycle"
    ema: float | None = 0.999
    amp: bool = True
    monitor: str = "loss"
    val_fraction: float = 0.1
    """Of the images that are not judged on; the best epoch is chosen by them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """What is the same for every record: the data, who is judged on, and the target."""

    size: int
    target: float
    """AUROC that the mean over runs has to reach."""
    device: str = "auto"
    left_out: bool = True
    """Whether patients of the recipes' final table are left out altogether."""


TRACKS: Final[dict[TrackName, Track]] = {
    "cpu": Track(size=64, target=0.86, device="cpu"),
    "gpu": Track(size=224, target=0.88, device="cuda"),
    "phantom": Track(size=64, target=0.9, left_out=False),
}
FIFTH: Final = 0.2
LEAST_RUNS: Final = 5
"""Of a record."""
PHANTOMS: Final = 1000
IMAGES, LABELS = "stage_2_train_images", "stage_2_train_labels.csv"
CLASSES, GROUPS = "stage_2_detailed_class_info.csv", "mappings.json"
CACHES: Final = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
"""Where things are kept from one use to the next, which would be a warm start."""
RECORDS: Final = Path(__file__).parent / "records"


def main() -> None:
    """Run as often as asked, judge the mean, and keep a record where one has a name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("track", choices=list(TRACKS), help="data and target")
    parser.add_argument("--data", type=Path, help="folder with the challenge's tables and images")
    parser.add_argument("--runs", type=int, default=5, help="runs, of seeds 0, 1 and so on (5)")
    parser.add_argument("--record", metavar="NAME", help="keep the log as a record")
    parser.add_argument("--once", type=int, metavar="SEED", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    track = TRACKS[arguments.track]
    if arguments.once is not None:
        print(json.dumps(run_once(track, arguments.data, arguments.work, arguments.once)))
        return
    if (arguments.data is None) != (arguments.track == "phantom"):
        parser.error("--data DIR is needed, but for the track phantom, which makes its own")
    if arguments.record and arguments.runs < LEAST_RUNS:
        parser.error(f"--record with --runs {arguments.runs}: at least {LEAST_RUNS} expected")
    try:
        found = repeat(arguments)
    except PneumoError as error:
        sys.exit(f"speedrun.py: {error}")
    print(verdict(track, found))
    if arguments.record:
        if not found["reached"]:
            sys.exit("speedrun.py: no record is kept")
        keep(arguments.record, arguments.track, found)


def repeat(arguments: argparse.Namespace) -> dict[str, Any]:
    """All runs, a line each as it ends, and what they came to."""
    track = TRACKS[arguments.track]
    with tempfile.TemporaryDirectory(prefix="pneumo-fast-speedrun-") as temporary:
        data = Path(temporary) / "data"
        prepare(track, arguments.data, data)
        runs = []
        for seed in range(arguments.runs):
            runs.append(start(arguments.track, data, seed))
            print(line(runs[-1]), flush=True)
    return summary(track, runs)


def prepare(track: Track, source: Path | None, data: Path) -> None:
    """Off the clock: link the files, and write the label table without the patients that recipes are judged on."""
    if source is None:
        make_phantoms(PhantomConfig(out=data, count=PHANTOMS, size_px=256))
        return
    data.mkdir()
    for name in (IMAGES, CLASSES, GROUPS):
        (data / name).symlink_to((source / name).resolve())
    known = labels_of(ConvertConfig(images=source / IMAGES, labels=source / LABELS, groups=source / GROUPS)).images
    table = pd.read_csv(source / LABELS, dtype=str)
    if track.left_out:
        judged = known[assign_splits(known, val_fraction=0.1, test_fraction=FIFTH, seed=0) == "test"]
        table = table[~table["patientId"].isin(judged["image_id"])]
    table.to_csv(data / LABELS, index=False)


def start(track: TrackName, data: Path, seed: int) -> dict[str, float]:
    """One run in a process of its own, with caches of its own; its figures, and its seconds in all."""
    with tempfile.TemporaryDirectory(prefix="pneumo-fast-speedrun-") as work:
        own = {name: f"{work}/{name}" for name in CACHES}
        command = [sys.executable, __file__, track, "--data", str(data), "--work", work, "--once", str(seed)]
        begin = time.perf_counter()
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"speedrun.py: the run with seed {seed} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    parts = sum(value for name, value in found.items() if name.endswith("_s"))
    return {"seconds": seconds, "start_up_s": seconds - parts, **found}


def run_once(track: Track, data: Path, work: Path, seed: int, settings: Settings = Settings()) -> dict[str, float]:
    """Convert, train and evaluate; seconds of each part but start-up, which is what remains, and the AUROC."""
    dataset, run = work / "dataset", work / "run"
    test = FIFTH / (1 - FIFTH) if track.left_out else FIFTH
    options = asdict(settings)
    val = options.pop("val_fraction") * (1 - test)
    marks = [time.perf_counter()]
    converting = ConvertConfig(
        images=data / IMAGES, labels=data / LABELS, class_info=data / CLASSES, groups=data / GROUPS, out=dataset,
        size=track.size, seed=1, test_fraction=test, val_fraction=val, keep_ids=True,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as thread:
        converted = thread.submit(convert, converting)
        # five seconds of imports, while worker processes convert
        from pneumo_fast.evaluation.evaluate import evaluate  # noqa: PLC0415
        from pneumo_fast.training.train import train  # noqa: PLC0415

        converted.result()
    marks.append(time.perf_counter())
    trained = train(TrainConfig(datasets=(dataset,), out=run, seed=seed, device=track.device, **options))
    marks.append(time.perf_counter())
    ranking = evaluate(EvaluateConfig(run=run, split="test", resamples=100)).figures.ranking
    marks.append(time.perf_counter())
    epochs = sum(record["train_seconds"] + record["val_seconds"] for record in trained.history)
    conversion, training, judging = (late - early for early, late in itertools.pairwise(marks))
    return {
        "convert_s": conversion, "prepare_s": training - epochs, "train_s": epochs, "evaluate_s": judging,
        "best_epoch": trained.best_epoch, "auroc": ranking.auroc.value or 0.0,
    }  # fmt: skip


def line(run: dict[str, float]) -> str:
    """One run in a line."""
    parts = ", ".join(f"{name[:-2].replace('_', '-')} {run[name]:.1f}" for name in run if name.endswith("_s"))
    return f"{run['seconds']:6.1f} s  AUROC {run['auroc']:.4f}  ({parts})"


def summary(track: Track, runs: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and spread of seconds and AUROC, and whether the mean reached the target."""
    found: dict[str, Any] = {"runs": runs, "target": track.target}
    for name in runs[0]:
        values = [run[name] for run in runs]
        found[name] = {"mean": statistics.fmean(values), "lowest": min(values), "highest": max(values)}
    return found | {"reached": found["auroc"]["mean"] >= track.target}


def verdict(track: Track, found: dict[str, Any]) -> str:
    """What came out, in a sentence."""
    seconds, auroc, runs = found["seconds"], found["auroc"], counted(len(found["runs"]), "run")
    return (
        f"{seconds['mean']:.1f} s ({seconds['lowest']:.1f} to {seconds['highest']:.1f}), AUROC {auroc['mean']:.4f} "
        f"({auroc['lowest']:.4f} to {auroc['highest']:.4f}), mean of {runs}: target {track.target} "
        + ("reached" if found["reached"] else "NOT reached")
    )


def keep(name: str, track: TrackName, found: dict[str, Any]) -> None:
    """Write the record: each run and what they came to, versions and hardware as JSON, and this very file."""
    from benchmarks.measure import surroundings  # noqa: PLC0415  # it imports all whose version it tells

    folder = RECORDS / f"{datetime.now(timezone.utc).date().isoformat()}_{name}"
    folder.mkdir(parents=True)
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    content = {"track": track, "commit": commit, "surroundings": surroundings(), **found}
    (folder / "record.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = [line(run) for run in found["runs"]] + [verdict(TRACKS[track], found), "", Path(__file__).read_text()]
    (folder / "log.txt").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
