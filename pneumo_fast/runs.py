"""The run folder: configuration, history and checkpoints, each written whole or not at all.

::

    RUN/config.json     everything needed to repeat the run
    RUN/history.jsonl   one line per finished epoch
    RUN/best.pt         the checkpoint with the best validation AUROC
    RUN/last.pt         the newest checkpoint, from which training resumes
    RUN/eval/           what ``evaluate`` wrote
"""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from pneumo_fast.errors import RunError
from pneumo_fast.files import write_atomic

CHECKPOINT_FORMAT = "pneumo-fast checkpoint 1"

BEST, LAST, CONFIG, HISTORY = "best.pt", "last.pt", "config.json", "history.jsonl"


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
    history: list[dict[str, float | int]]
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
        content = torch.load(path, map_location=device or "cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"no checkpoint {path}: run pneumo-fast train first") from error
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
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


def write_history(run: Path, history: list[dict[str, float | int]]) -> None:
    """Write ``history.jsonl``, one line per epoch."""
    write_atomic(run / HISTORY, "".join(json.dumps(record) + "\n" for record in history))


def config_dict(config: Any) -> dict[str, Any]:
    """A configuration dataclass as plain JSON values."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}
