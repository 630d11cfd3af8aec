"""The run folder: configuration and history, each written whole or not at all.

::

    RUN/config.json     everything needed to repeat the run
    RUN/history.jsonl   one line per finished epoch
    RUN/learning_curves.png     the same, drawn
    RUN/best.pt         the checkpoint with the best validation figure
    RUN/last.pt         the newest checkpoint, from which training resumes
    RUN/previous.pt     the one before, for when the newest is damaged
    RUN/tensorboard/    event files, where asked for
    RUN/trace.json      a trace of a few steps, where asked for
    RUN/eval/           what ``evaluate`` wrote
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pneumo_fast.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, EpochRecord, load_last
from pneumo_fast.errors import RunError
from pneumo_fast.files import sweep_partials, write_atomic
from pneumo_fast.options import TrainConfig
from pneumo_fast.shards import Dataset

PACKAGES = ("pneumo-fast", "torch", "torchvision", "nvidia-dali-cuda120", "torchmetrics", "numpy", "pydicom", "pillow")
CONFIG, HISTORY, CURVES = "config.json", "history.jsonl", "learning_curves.png"
EVENTS, TRACE = "tensorboard", "trace.json"
JUDGED = ("report.html", "model_card.md", "operating.json")
JUDGED_FOLDERS = ("eval", "explain")
"""What evaluate, explain and report write; it goes when the run is replaced."""


def write_config(run: Path, content: dict[str, Any]) -> None:
    """Write ``config.json``."""
    write_atomic(run / CONFIG, json.dumps(content, indent=1, default=str) + "\n")


def read_config(run: Path) -> dict[str, Any]:
    """Read ``config.json``.

    Raises
    ------
    RunError
        If the folder is no run or the file is damaged.
    """
    path = run / CONFIG
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise RunError(f"{run} is no run: no {CONFIG} there; run pneumo-fast train first") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): train again") from error
    if not isinstance(content, dict) or "config" not in content:
        raise RunError(f"{path} is no run configuration: train again")
    return content


def write_history(run: Path, history: list[EpochRecord]) -> None:
    """Write ``history.jsonl``, one line per epoch."""
    write_atomic(run / HISTORY, "".join(json.dumps(record) + "\n" for record in history))


def write_curves(run: Path, history: list[EpochRecord], best_epoch: int) -> None:
    """Draw the history into ``learning_curves.png``."""
    from pneumo_fast.curves import draw_learning_curves  # noqa: PLC0415  # matplotlib takes a third of a second

    write_atomic(run / CURVES, draw_learning_curves(history, best_epoch))


def find_run(config: TrainConfig, settings: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint to go on from, if any; changes nothing.

    Parameters
    ----------
    settings : dict
        The options that shape the result.

    Raises
    ------
    RunError
        If the folder is taken, or the run in it was trained with other settings.
    """
    checkpoint = load_last(config.out) if config.resume else None
    if checkpoint is not None:
        for name, value in settings.items():
            if checkpoint.settings.get(name) != value:
                raise RunError(
                    f"run {config.out} was trained with {name} {checkpoint.settings.get(name)!r}, now it is {value!r}: "
                    "resume with the same, or name another --out"
                )
        return checkpoint
    try:
        taken = config.out.is_dir() and any(not path.match(".*.partial") for path in config.out.iterdir())
        ours = (config.out / CONFIG).exists()
    except OSError as error:
        raise RunError(f"run folder {config.out} cannot be read ({error.strerror}): name another --out") from error
    if taken and not (ours and (config.overwrite or config.resume)):
        hint = "holds a run: give --resume to go on, --overwrite to replace it, or" if ours else "is not empty:"
        raise RunError(f"{config.out} {hint} name another --out")
    return None


def clear_run(out: Path, *, keep: bool) -> None:
    """Make the run folder; unless its run is to be kept, the files of an earlier one go.

    Raises
    ------
    RunError
        If that cannot be done.
    """
    try:
        if not keep:
            for name in (LAST, PREVIOUS, BEST, *JUDGED, CURVES, HISTORY, TRACE, CONFIG):  # a rest is never gone on from
                (out / name).unlink(missing_ok=True)
            for name in (*JUDGED_FOLDERS, EVENTS):
                shutil.rmtree(out / name, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        sweep_partials(out)
    except OSError as error:
        raise RunError(f"run folder {out} cannot be made ({error.strerror}): name another --out") from error


def describe_run(config: TrainConfig, dataset: Dataset, resolved: dict[str, Any]) -> dict[str, Any]:
    """Everything needed to repeat the run: options, what was chosen for them, the dataset, and versions."""
    options = asdict(config) | {"datasets": [path.resolve() for path in config.datasets]}
    return {
        "config": options,
        "resolved": {**resolved, "threads": torch.get_num_threads()},
        "dataset": {"identity": dataset.identity, "counts": dataset.manifest.counts, "split": dataset.manifest.split},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
