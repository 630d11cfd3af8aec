"""The run folder: configuration, history and checkpoints, each written whole or not at all.

::

    RUN/config.json     everything needed to repeat the run
    RUN/history.jsonl   one line per finished epoch
    RUN/best.pt         the checkpoint with the best validation AUROC
    RUN/last.pt         the newest checkpoint, from which training resumes
    RUN/eval/           what ``evaluate`` wrote
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import pickle
import platform
import shutil
import struct
import warnings
import zipfile
import zlib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from pneumo_fast.errors import RunError
from pneumo_fast.files import sweep_partials, write_atomic
from pneumo_fast.options import TrainConfig
from pneumo_fast.shards import Dataset

CHECKPOINT_FORMAT = "pneumo-fast checkpoint 1"
_BAD_FILE = (
    OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zipfile and torch's restricted unpickler raise for files that are damaged or no checkpoints."""

PACKAGES = ("pneumo-fast", "torch", "torchvision", "nvidia-dali-cuda120", "torchmetrics", "numpy", "pydicom", "pillow")
BEST, LAST, CONFIG, HISTORY = "best.pt", "last.pt", "config.json", "history.jsonl"

EpochRecord = dict[str, float | int]
"""What is known of one finished epoch; ``docs/format.md`` lists the keys."""


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """All that a run needs to go on, or to be judged."""

    arch: str
    """Name of the torchvision classifier."""
    size: int
    """Image height and width in pixels."""
    mean: float
    """Mean the images were normalized with, in [0, 1]."""
    std: float
    """Standard deviation the images were normalized with, in [0, 1]."""
    pos_weight: float
    """Weight of a positive image in the loss."""
    dataset_identity: str
    """SHA-256 of the training dataset's manifest."""
    epoch: int
    """Finished epochs."""
    best_auroc: float
    """Best validation AUROC so far; -1 before the first."""
    best_epoch: int
    """Epoch (from 1) of the best AUROC; 0 before the first."""
    history: list[EpochRecord]
    """One record per finished epoch."""
    model: dict[str, Any]
    """State of the model."""
    optimizer: dict[str, Any]
    """State of the optimizer."""
    scaler: dict[str, Any]
    """State of the gradient scaler; empty where none is used."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The options that shape the result; resuming with others is refused."""


def save_checkpoint(checkpoint: Checkpoint, *paths: Path) -> None:
    """Write a checkpoint to one or several paths, each atomically."""
    content = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}
    buffer = io.BytesIO()
    torch.save({"format": CHECKPOINT_FORMAT, **content}, buffer)
    for path in paths:
        write_atomic(path, buffer.getvalue())


def load_checkpoint(path: Path, device: torch.device | None = None) -> Checkpoint:
    """Read a checkpoint without running any code it may hold (``weights_only=True``).

    Raises
    ------
    RunError
        If the file is missing, damaged, or no checkpoint of this package.
    """
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            if archive.testzip() is not None:  # torch does not look at the checksums
                raise ValueError("a checksum differs")
            warnings.simplefilter("ignore")  # about foreign pickles; the error below says enough
            content = torch.load(path, map_location=device or "cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"no checkpoint {path}: run pneumo-fast train first") from error
    except _BAD_FILE as error:
        raise RunError(
            f"checkpoint {path} is damaged or no checkpoint ({type(error).__name__}): train again"
        ) from error
    if not isinstance(content, dict) or content.pop("format", None) != CHECKPOINT_FORMAT:
        raise RunError(f"{path} is no checkpoint of this release ({CHECKPOINT_FORMAT!r} is expected): train again")
    try:
        return Checkpoint(**content)
    except TypeError as error:
        raise RunError(f"checkpoint {path} lacks or has extra fields ({error}): train again") from error


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


def claim_run(config: TrainConfig, settings: dict[str, Any]) -> Checkpoint | None:
    """Make the run folder; return the checkpoint to go on from, if any.

    Parameters
    ----------
    settings : dict
        The options that shape the result.

    Raises
    ------
    RunError
        If the folder is taken, or the run in it was trained with other settings.
    """
    last = config.out / LAST
    if config.resume and last.exists():
        checkpoint = load_checkpoint(last)
        for name, value in settings.items():
            if checkpoint.settings.get(name) != value:
                raise RunError(
                    f"run {config.out} was trained with {name} {checkpoint.settings.get(name)!r}, now it is {value!r}: "
                    "resume with the same, or name another --out"
                )
        sweep_partials(config.out)
        return checkpoint
    try:
        taken = config.out.is_dir() and any(not path.match(".*.partial") for path in config.out.iterdir())
        ours = (config.out / CONFIG).exists()
        if taken and not (ours and (config.overwrite or config.resume)):
            hint = "holds a run: give --resume to go on, --overwrite to replace it, or" if ours else "is not empty:"
            raise RunError(f"{config.out} {hint} name another --out")
        for name in (LAST, BEST, HISTORY, CONFIG):  # the last first: what is left is never taken for a run to go on
            (config.out / name).unlink(missing_ok=True)
        shutil.rmtree(config.out / "eval", ignore_errors=True)
        config.out.mkdir(parents=True, exist_ok=True)
        sweep_partials(config.out)
    except OSError as error:
        raise RunError(f"run folder {config.out} cannot be made ({error.strerror}): name another --out") from error
    return None


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
