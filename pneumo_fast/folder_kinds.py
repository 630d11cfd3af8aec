"""What a folder is, by the files in it: a dataset, a run, or neither."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pneumo_fast.errors import DatasetError, RunError

MANIFEST: Final = "manifest.json"
CONFIG: Final = "config.json"
BEST: Final = "best.pt"

Kind = Literal["dataset", "run"]
MARKS: Final[dict[Kind, tuple[str, ...]]] = {"dataset": (MANIFEST,), "run": (CONFIG, BEST, f"fold-1/{CONFIG}")}
"""Files of which each folder of a kind has at least one; the last is a cross-validation's."""


def is_of_kind(folder: Path, kind: Kind) -> bool:
    """Whether a folder is a dataset, or a run (a cross-validation included)."""
    return any((folder / name).is_file() for name in MARKS[kind])


def check_kind(folder: Path, kind: Kind) -> None:
    """Refuse a folder that does not exist, or that is a run where a dataset is wanted, or a dataset for a run.

    Raises
    ------
    DatasetError or RunError
        By the kind that is wanted.
    """
    other: Kind = "run" if kind == "dataset" else "dataset"
    if not folder.exists():
        wrong, command = f"{kind} {folder} does not exist", "convert" if kind == "dataset" else "train"
        remedy = f"name a {kind} folder, or run pneumo-fast {command} first"
    elif is_of_kind(folder, other) and not is_of_kind(folder, kind):
        wrong, remedy = f"{folder} is a {other}, not a {kind}", f"name a {kind} folder"
    else:
        return
    raise (DatasetError if kind == "dataset" else RunError)(f"{wrong}: {remedy}")
