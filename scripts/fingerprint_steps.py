"""The commands that ``fingerprints.py`` runs on either side, in their order; later ones use what earlier ones wrote.

All paths are below the side's own folder, but for the real radiographs.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final, Literal

Way = Literal["plain", "two processes", "stopped", "refused", "written", "damaged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One command, and which files it is judged by."""

    name: str
    """What is compared, for people."""
    arguments: tuple[str, ...] = ()
    """Of ``python -m pneumo_fast``."""
    results: tuple[str, ...] = ()
    """Files, and folders with all that lies in them."""
    way: Way = "plain"
    """``stopped`` ends it by SIGTERM once it has saved, and resumes it; ``refused`` expects an error; ``written`` and
    ``damaged`` run nothing: :func:`write_inputs` and :func:`write_damaged` write what later steps read."""
    quick: bool = False
    """Whether it is part of the short form."""


COUNT, SOURCE_PX, STORED_PX, SEED = 120, 192, 48, 3
IMAGES: Final = "phantoms/stage_2_train_images"
LABELS: Final = "labels.csv"
TABLES: Final = ("--class-info", "phantoms/stage_2_detailed_class_info.csv", "--groups", "phantoms/mappings.json")
CONVERT: Final = ("--workers", "1", "--hash-key", "hash.key", "--max-rejects", "9", "--val-fraction", "0.3")
SMALL: Final = ("--model", "shufflenet_v2_x0_5")
TRAIN: Final = ("--epochs", "2", "--batch-size", "16", "--lr", "0.001", "--seed", "7", "--device", "cpu")
JUDGE: Final = ("--resamples", "200", "--device", "cpu")
RECIPE: Final = (
    "--label-smoothing", "0.1", "--schedule", "onecycle", "--clip-norm", "1", "--optimizer", "adamw",
    "--weight-decay", "0.01",
)  # fmt: skip
FLOATS, BYTES = "shards-float16-fast", "folder-uint8-exact-hashed"
TRAININGS: Final[dict[str, tuple[str, tuple[str, ...], bool]]] = {
    "plain": (FLOATS, (), True),
    "bytes": (BYTES, SMALL, True),
    "all": (FLOATS, ("--augment", "light", "--flip", "--ema", "0.9", "--accumulate", "2", *RECIPE), True),
    "augmented": (BYTES, (*SMALL, "--augment", "strong", "--loader", "resident"), False),
    "averaged": (FLOATS, (*SMALL, "--ema", "0.9", "--monitor", "loss"), False),
    "accumulated": (FLOATS, (*SMALL, "--accumulate", "3"), False),
    "weighted": (FLOATS, (*SMALL, "--order", "weighted", "--balance", "view"), False),
    "windowed": ("shards-uint8-fast", (*SMALL, "--order", "windowed", "--window", "2"), False),
    "recipe": (FLOATS, (*SMALL, *RECIPE), False),
    "fold": (BYTES, (*SMALL, "--folds", "3", "--fold", "2", "--schedule", "cosine", "--warmup-epochs", "1"), False),
    "dali": ("shards-uint8-fast", (*SMALL, "--loader", "dali", "--pos-weight", "2"), False),
}
"""By run folder: dataset, options, and whether it is part of the short form."""
REFUSED: Final[tuple[tuple[tuple[str, ...], bool], ...]] = (
    (("nonsense",), True),
    (("convert", "nothing", LABELS, "x"), True),
    (("convert", IMAGES, "nothing.csv", "x"), True),
    (("convert", IMAGES, LABELS, FLOATS), True),
    (("convert", IMAGES, LABELS, "x", "--size", "3"), True),
    (("convert", IMAGES, LABELS, "x", "--dtype", "float64"), False),
    (("convert", IMAGES, LABELS, "x", "--val-fraction", "1"), False),
    (("convert", IMAGES, LABELS, "x", "--max-rejects", "2.5"), False),
    (("convert", IMAGES, LABELS, "x", "--max-rejects", "many"), False),
    (("convert", IMAGES, LABELS, "x", "--timeout-s", "0"), False),
    (("convert", IMAGES, LABELS, "x", "--resume", "--overwrite"), False),
    (("convert", IMAGES, LABELS, "x", "--id-column", "who"), False),
    (("convert", IMAGES, LABELS, "no-key", "--hash-key", LABELS), False),
    (("convert", IMAGES, LABELS, "no-rejects", "--hash-key", "hash.key", "--max-rejects", "0"), False),
    (("phantom", "x", "--size", "8"), False),
    (("verify", "nothing"), True),
    (("verify", "damaged"), True),
    (("show", FLOATS, "--count", "0"), False),
    (("train", "nothing"), True),
    (("train", FLOATS, "--optimizer", "sgd"), False),
    (("train", FLOATS, "--ema", "2"), False),
    (("train", FLOATS, "--out", "plain"), True),
    (("train", FLOATS, "--out", "plain", *TRAIN, "--resume", "--clip-norm", "1"), False),
    (("train", FLOATS, "--out", "no-model", "--model", "nonsense"), False),
    (("train", FLOATS, "--out", "no-batch", "--batch-size", "1000", "--device", "cpu"), False),
    (("evaluate", "nothing"), True),
    (("evaluate", "plain", "--threshold", "2"), False),
    (("explain", "plain", "--id", "nobody", *JUDGE), False),
    (("report", "bytes"), False),
)
"""Arguments of commands that have to fail, and whether each is part of the short form."""


def steps(real: Path | None, *, quick: bool) -> list[Step]:
    """All that is run, or its short form; ``real`` is the folder of the real radiographs, where there is one."""
    found = [
        *_phantoms(),
        *_conversions(),
        *(_real_conversions(real) if real else ()),
        *(_training(run, data, options, quick=quick) for run, (data, options, quick) in TRAININGS.items()),
        *_other_trainings(),
        *_judgements(),
        *(_real_judgements() if real else ()),
        *_refusals(),
    ]
    return [step for step in found if step.quick or not quick]


def _phantoms() -> list[Step]:
    size = ("--count", str(COUNT), "--size", str(SOURCE_PX), "--seed", str(SEED))
    return [
        Step(name="phantom", arguments=("phantom", "phantoms", *size), results=("phantoms",), quick=True),
        Step(name="tables and damaged files", results=(LABELS, IMAGES), way="written", quick=True),
    ]


def _convert(name: str, images: str, labels: str, *options: str, quick: bool = False) -> Step:
    arguments = ("convert", images, labels, name, *CONVERT, *options)
    return Step(name=f"convert {name}", arguments=arguments, results=(name,), quick=quick)


def _conversions() -> list[Step]:
    """Every layout, data type and way to decode, with and without pseudonyms, and a few options more."""
    found = []
    for layout, dtype, decode, hashed in product(("shards", "folder"), ("float16", "uint8"), ("fast", "exact"), (0, 1)):
        name = "-".join([layout, dtype, decode, *(["hashed"] if hashed else [])])
        options = ("--layout", layout, "--dtype", dtype, "--decode", decode, *([] if hashed else ["--keep-ids"]))
        quick = name in {FLOATS, BYTES, "shards-uint8-exact", "folder-float16-fast-hashed"}
        found.append(_convert(name, IMAGES, LABELS, *TABLES, "--size", str(STORED_PX), *options, quick=quick))
    others = ("--test-fraction", "0.2", "--seed", "5", "--shard-size", "7", "--ungrouped", "drop", "--size", "50")
    return [
        *found,
        _convert("options", IMAGES, LABELS, *TABLES, *others),
        _convert("paths", "phantoms", "paths.csv", "--path-column", "file", "--group-column", "who", "--size", "33"),
    ]


def _real_conversions(real: Path) -> list[Step]:
    def rsna(name: str, folder: str, *options: str, quick: bool = False) -> Step:
        base = real / folder
        classes = ("--class-info", str(base / "stage_2_detailed_class_info.csv"))
        images, labels = base / "stage_2_train_images", base / "stage_2_train_labels.csv"
        return _convert(name, str(images), str(labels), *classes, *options, quick=quick)

    groups = ("--groups", str(real / "rsna_sample" / "mappings.json"))
    small, variants = ("--size", str(STORED_PX)), ("variants.csv", "--size", "96")
    return [
        rsna("rsna16-fast", "rsna16", "--size", "224", quick=True),
        rsna("rsna16-exact", "rsna16", *small, "--decode", "exact", "--dtype", "uint8"),
        rsna("sample", "rsna_sample", *groups, *small, "--dtype", "uint8", quick=True),
        rsna("sample-large", "rsna_sample", *groups, "--size", "128", "--layout", "folder"),
        _convert("variants-fast", str(real / "variants"), *variants, quick=True),
        _convert("variants-exact", str(real / "variants"), *variants, "--decode", "exact", "--window", "none"),
    ]


def _training(run: str, dataset: str, options: tuple[str, ...], *, quick: bool = False, way: Way = "plain") -> Step:
    arguments = ("train", dataset, "--out", run, *TRAIN, *options)
    return Step(name=f"train {run}", arguments=arguments, results=(run,), way=way, quick=quick)


def _other_trainings() -> list[Step]:
    often = ("--checkpoint-minutes", "0.000001", "--augment", "light", "--ema", "0.9")
    shares = (BYTES, "--share", "0.5", "--share", "1")
    return [
        _training(
            "two-processes", FLOATS, (*SMALL, "--accumulate", "2", "--ema", "0.9"), quick=True, way="two processes"
        ),
        _training("stopped", FLOATS, (*SMALL, *often), way="stopped"),
        _training("two-datasets", "shards-uint8-fast", (*shares, *SMALL)),
    ]


def _evaluate(name: str, *arguments: str, results: tuple[str, ...], quick: bool = False) -> Step:
    return Step(name=f"evaluate {name}", arguments=("evaluate", *arguments, *JUDGE), results=results, quick=quick)


def _explain(run: str, *options: str, quick: bool = False) -> Step:
    arguments = ("explain", run, "--count", "2", *options, *JUDGE)
    return Step(name=f"explain {run}", arguments=arguments, results=(f"{run}/explain",), quick=quick)


def _judgements() -> list[Step]:
    more = ("--cost-ratio", "4", "--prevalence", "0.1", "--threshold", "0.3", "--threshold", "0.6")
    return [
        _evaluate("val", "plain", results=("plain/eval", "plain/operating.json"), quick=True),
        _explain("plain", quick=True),
        Step(name="report plain", arguments=("report", "plain"), results=("plain/report.html", "plain/model_card.md")),
        _evaluate("train", "plain", "--split", "train", *more, results=("plain/eval",)),
        _evaluate("two runs", "plain", "all", results=("plain/eval", "all/eval", "all/operating.json"), quick=True),
        _explain("all", "--method", "hirescam", "--split", "train"),
        Step(name="show", arguments=("show", FLOATS, "--flip", "--augment", "strong"), results=("contact.png",)),
    ]


def _real_judgements() -> list[Step]:
    return [
        _evaluate("other data", "plain", "--dataset", "sample", results=("plain/eval",)),
        _training("radiographs", "sample-large", ("--limit-images", "64")),
        _evaluate("radiographs", "radiographs", results=("radiographs/eval", "radiographs/operating.json")),
        _explain("radiographs", "--method", "gradcam++"),
    ]


def _refusals() -> list[Step]:
    damaged = Step(name="damaged dataset", results=("damaged",), way="damaged", quick=True)
    return [
        damaged,
        *(Step(name=f"refuse {' '.join(one)}", arguments=one, way="refused", quick=quick) for one, quick in REFUSED),
    ]


def write_inputs(work: Path, real: Path | None) -> None:
    """Damaged files, an image that is there twice, and the tables that name them."""
    images = work / IMAGES
    first, *_ = sorted(images.iterdir())
    (images / "cut-short.dcm").write_bytes(first.read_bytes()[:900])
    (images / "no-dicom.dcm").write_text("no DICOM\n")
    shutil.copy(first, images / "twice.dcm")
    names = ("cut-short", "no-dicom", "twice", "without-file")
    labels = (work / "phantoms" / "stage_2_train_labels.csv").read_text()
    (work / LABELS).write_text(labels + "".join(f"{name},,,,,0\n" for name in names))
    with (work / "paths.csv").open("w", newline="") as file:
        rows = [(f"stage_2_train_images/{path.name}", path.name[:2], path.name < "4") for path in images.iterdir()]
        csv.writer(file).writerows([("file", "who", "Target"), *((*head, int(ill)) for *head, ill in sorted(rows))])
    if real:
        rows_of = [f"{path.stem},{number % 2}\n" for number, path in enumerate(sorted((real / "variants").glob("*")))]
        (work / "variants.csv").write_text("patientId,Target\n" + "".join(rows_of))


def write_damaged(work: Path) -> None:
    """A dataset with one byte changed."""
    shutil.copytree(work / FLOATS, work / "damaged")
    shard = work / "damaged" / "train-00000.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
