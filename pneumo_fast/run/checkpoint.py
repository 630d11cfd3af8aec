"""Checkpoints: all that a run needs to go on exactly where it stopped, or to be judged."""

from __future__ import annotations

import io
import logging
import pickle
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from pneumo_fast.errors import RunError
from pneumo_fast.files import write_atomic
from pneumo_fast.run.layout import CHECKPOINT_FORMAT, LAST, PREVIOUS

logger = logging.getLogger(__name__)

_BAD_FILE = (
    OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zipfile and torch's restricted unpickler raise for files that are damaged or no checkpoints."""

EpochRecord = dict[str, float | int]
"""What is known of one finished epoch; ``docs/format.md`` lists the keys."""


@dataclass(kw_only=True, slots=True)
class Checkpoint:
    """The state of a run between two steps."""

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
    best: float
    """Best figure of the validation so far; see ``monitor``."""
    best_epoch: int
    """Epoch (from 1) of the best figure; 0 before the first."""
    monitor: str
    """Which figure it is: ``auroc``, ``ap``, ``loss`` or ``accuracy``."""
    history: list[EpochRecord]
    """One record per finished epoch."""
    model: dict[str, Any]
    """State of the model; in ``best.pt`` that which was validated, the average where there is one."""
    loader: dict[str, Any] = field(default_factory=dict)
    """Which batch comes next, within an epoch that has begun; empty between epochs."""
    sums: list[float] = field(default_factory=list)
    """What that epoch has added up so far."""
    step: int = 0
    """Steps of the run so far."""
    skipped: list[int] = field(default_factory=lambda: [0, 0])
    """Steps left out of the run: before the epoch under way, and as of the last look."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """State of the optimizer; empty in ``best.pt``."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """State of the gradient scaler."""
    ema: dict[str, Any] = field(default_factory=dict)
    """The averaged model's state and the number of its updates; empty where none is kept."""
    buffers: list[torch.Tensor] = field(default_factory=list)
    """BatchNorm's statistics as of the last look that found no step left out."""
    random: list[torch.Tensor] = field(default_factory=list)
    """State of PyTorch's random numbers: of the CPU, and of the GPU where one is used."""
    machine: dict[str, Any] = field(default_factory=dict)
    """Threads, processes, device: with others a resumed run is no longer equal to the last bit."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The options that shape the result; resuming with others is refused."""


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically; the one that was there before stays beside it, if it is ``last.pt``."""
    content = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}
    buffer = io.BytesIO()
    torch.save({"format": CHECKPOINT_FORMAT, **content}, buffer)
    write_atomic(path, buffer.getvalue(), keep=path.with_name(PREVIOUS) if path.name == LAST else None)


def load_checkpoint(path: Path, device: torch.device | None = None) -> Checkpoint:
    """Read a checkpoint without running any code it may hold (``weights_only=True``).

    Raises
    ------
    RunError
        If the file is missing, damaged, or no checkpoint of this package.
    """
    content = _read(path, device)
    if not isinstance(content, dict) or content.pop("format", None) != CHECKPOINT_FORMAT:
        raise RunError(f"{path} is no checkpoint of this release ({CHECKPOINT_FORMAT!r} is expected): train again")
    try:
        return Checkpoint(**content)
    except TypeError as error:
        raise RunError(f"checkpoint {path} lacks or has extra fields ({error}): train again") from error


def read_weights(path: Path) -> dict[str, Any]:
    """The state of a model: of one of our checkpoints, or of a plain state dictionary.

    Raises
    ------
    RunError
        If the file is missing, damaged, or holds neither.
    """
    content = _read(path, None)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise RunError(f"{path} holds no weights: give a checkpoint or a state dictionary")
    return state


def trained_size(path: Path) -> int | None:
    """Height and width in pixels of the images that a checkpoint was trained on; None for files that do not say.

    Raises
    ------
    RunError
        If the file is missing or damaged.
    """
    content = _read(path, None)
    size = content.get("size") if isinstance(content, dict) else None
    return size if isinstance(size, int) else None


def _read(path: Path, device: torch.device | None) -> Any:
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            if archive.testzip() is not None:  # torch does not look at the checksums
                raise ValueError("a checksum differs")
            warnings.simplefilter("ignore")  # about foreign pickles; the error below says enough
            return torch.load(path, map_location=device or "cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"no checkpoint {path}: run pneumo-fast train first") from error
    except _BAD_FILE as error:
        raise RunError(
            f"checkpoint {path} is damaged or no checkpoint ({type(error).__name__}): train again"
        ) from error


def load_last(run: Path) -> Checkpoint | None:
    """The newest checkpoint of a run that is whole; None where there is none at all.

    Raises
    ------
    RunError
        If there are checkpoints, and all are damaged.
    """
    paths = [path for path in (run / LAST, run / PREVIOUS) if path.exists()]
    for path in paths[:-1]:
        try:
            return load_checkpoint(path)
        except RunError as error:
            reason = str(error).rsplit(":", 1)[0]
            logger.warning("%s; going on from %s, which was written before", reason, paths[-1].name)
    return load_checkpoint(paths[-1]) if paths else None
