"""The files of a run folder: every name, and the format that each one states.

::

    RUN/config.json             everything needed to repeat the run
    RUN/history.jsonl           one line per finished epoch
    RUN/learning_curves.png     the same, drawn
    RUN/best.pt                 the checkpoint with the best validation figure
    RUN/last.pt                 the newest checkpoint, from which training resumes
    RUN/previous.pt             the one before, for when the newest is damaged
    RUN/rejects.csv             source files that could not be read, where there were any
    RUN/tensorboard/            event files, where asked for
    RUN/trace.json              a trace of a few steps, where asked for
    RUN/operating.json          calibration and thresholds that ``evaluate`` fitted
    RUN/eval/DATA-SPLIT/        what else ``evaluate`` wrote, by the data and the split that were judged
    RUN/explain/                what ``explain`` wrote: ``explain.json`` and the images
    RUN/report.html             what ``report`` wrote
    RUN/model_card.md
    RUN/fold-1/, …              of a cross-validation: a run for each fold; beside them what judging them all wrote
    RUN/model.onnx              what ``export`` wrote, or model.pt2
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pneumo_fast import folder_kinds
from pneumo_fast.vocabulary import REJECTS, ExportFormat

BEST: Final = folder_kinds.BEST
LAST: Final = "last.pt"
PREVIOUS: Final = "previous.pt"
CHECKPOINT_FORMAT: Final = "pneumo-fast checkpoint 3"
FORMER_FORMAT: Final = "pneumo-fast checkpoint 2"
"""A format that is still read."""

CONFIG: Final = folder_kinds.CONFIG
HISTORY: Final = "history.jsonl"
CURVES: Final = "learning_curves.png"
TENSORBOARD: Final = "tensorboard"
TRACE: Final = "trace.json"

OPERATING: Final = "operating.json"
OPERATING_FORMAT: Final = "pneumo-fast operating points 2"

EVAL: Final = "eval"
"""Folder of the evaluations, each in a folder of its own; an earlier release wrote the one it kept into it directly."""
METRICS: Final = "metrics.json"
METRICS_FORMAT: Final = "pneumo-fast metrics"
METRICS_VERSION: Final = 3
PREDICTIONS: Final = "predictions.csv"
FIGURES: Final = ("roc.png", "precision_recall.png", "confusion.png")
COMPARISON: Final = "comparison.json"
COMPARISON_FORMAT: Final = "pneumo-fast comparison"
COMPARISON_VERSION: Final = 1
EVALUATED: Final = (METRICS, PREDICTIONS, *FIGURES, COMPARISON)
"""What is in the folder of an evaluation."""

EXPLAIN: Final = "explain"
"""Folder of ``explain.json`` and of the images, which are named as :func:`heat_map` says."""
EXPLANATION: Final = "explain.json"
EXPLANATION_FORMAT: Final = "pneumo-fast explanation"
EXPLANATION_VERSION: Final = 1
HEAT_MAPS: Final = "[TF][PN]-*.png"
EXPLAINED: Final = (EXPLANATION, HEAT_MAPS)
"""Patterns of what is in :data:`EXPLAIN`."""

REPORT: Final = "report.html"
MODEL_CARD: Final = "model_card.md"
EXPORTED: Final[dict[ExportFormat, str]] = {"onnx": "model.onnx", "torch": "model.pt2"}
"""The exported model, by its format."""

JUDGED: Final = (REPORT, MODEL_CARD, OPERATING, *EXPORTED.values())
JUDGED_FOLDERS: Final = (EVAL, EXPLAIN)
"""What evaluate, explain, report and export write."""

WRITTEN: Final = (
    LAST, PREVIOUS, BEST, *JUDGED, CURVES, HISTORY, TRACE, REJECTS,
    *(f"{folder}/{name}" for folder in (EVAL, f"{EVAL}/*") for name in EVALUATED),
    *(f"{EXPLAIN}/{name}" for name in EXPLAINED),
    f"{TENSORBOARD}/events.out.tfevents.*",
    CONFIG,
)  # fmt: skip
"""Patterns of what goes when a run is replaced, in this order: an incomplete run is never resumed."""
FOLDERS: Final = (f"{EVAL}/*", *JUDGED_FOLDERS, TENSORBOARD)
"""Patterns of the folders that go with it, where nothing else is in them."""


FOLD_PREFIX: Final = "fold-"
FOLD: Final = re.compile(f"{FOLD_PREFIX}[1-9][0-9]*")
"""Names of the folders of a cross-validation's folds."""


def fold_folder(run: Path, fold: int) -> Path:
    """Folder of the run of a cross-validation's fold, from 1."""
    return run / f"{FOLD_PREFIX}{fold}"


def evaluation_name(data: str, split: str) -> str:
    """Name of an evaluation's folder: the data, in letters that every file system takes, and the split."""
    return f"{re.sub(r'[^A-Za-z0-9_+.-]', '_', data).lstrip('.-')[:80] or 'data'}-{split}"


def heat_map(kind: str, number: int) -> str:
    """Name of an image's drawing in ``explain/``: its kind (TP, FP, FN or TN) and a number from 1 among that kind."""
    return f"{kind}-{number:02d}.png"
