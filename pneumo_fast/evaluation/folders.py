"""Which folder of a run an evaluation is in: one for each data and split, so that none replaces another."""

from __future__ import annotations

from pathlib import Path

from pneumo_fast.errors import RunError
from pneumo_fast.evaluation.identity import DatasetIdentity
from pneumo_fast.evaluation.results import read_metrics
from pneumo_fast.folder_kinds import check_kind
from pneumo_fast.formatting import shell_command
from pneumo_fast.run.layout import EVAL, METRICS, evaluation_name


def folder_for(run: Path, dataset: DatasetIdentity, split: str) -> Path:
    """Where an evaluation belongs; other data of the same name keep their folder."""
    folder = run / EVAL / evaluation_name(dataset.name, split)
    try:
        other = read_metrics(folder).dataset.identity != dataset.identity
    except RunError:
        other = False
    return folder.with_name(f"{folder.name}-{dataset.identity[:8]}") if other else folder


def evaluations_of(run: Path) -> list[Path]:
    """The folders of a run's evaluations; one that an earlier release wrote comes last."""
    found = sorted(path.parent for path in (run / EVAL).glob(f"*/{METRICS}") if not path.parent.name.startswith("."))
    return [*found, *([run / EVAL] if (run / EVAL / METRICS).exists() else [])]


def is_reported(folder: Path, run: Path) -> bool:
    """Whether a report shows this evaluation where none is named."""
    try:
        return find_evaluation(run) == folder
    except RunError:
        return False


def find_evaluation(run: Path, name: str | None = None) -> Path:
    """The folder of an evaluation: by its name, or the run's own (on the test split, else validation, else training).

    Raises
    ------
    RunError
        If it is not there, or the only one is damaged or of another version.
    """
    there = evaluations_of(run)
    if not there:
        check_kind(run, "run")
        raise RunError(f"run {run} was not evaluated (no {EVAL}/*/{METRICS}): run {shell_command('evaluate', run)}")
    names = ", ".join(folder.name for folder in there)
    if name is not None:
        if run / EVAL / name not in there:
            raise RunError(f"run {run} has no evaluation {name!r}: use one of {names}")
        return run / EVAL / name
    own = {}
    for folder in sorted(there, key=lambda each: (each / METRICS).stat().st_mtime_ns):
        try:
            metrics = read_metrics(folder)
        except RunError:
            if len(there) == 1:
                raise
            continue
        if metrics.dataset.trained_on:
            own[metrics.split] = folder  # of several, for instance after the data were moved, the newest
    if not own and len(there) > 1:
        raise RunError(f"run {run} was not evaluated on its own data: evaluate it, or name one of {names}")
    return next((own[split] for split in ("test", "val", "train") if split in own), there[0])
