"""Checkpoints: what a run needs to be judged, or to resume exactly where it stopped."""

from __future__ import annotations

import io
import logging
import math
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch

from pneumo_fast.errors import RunError, memory_ran_out
from pneumo_fast.files import open_regular, write_atomic
from pneumo_fast.metrics.catalogue import MONITORED
from pneumo_fast.records import Fault, build, plain
from pneumo_fast.run.layout import CHECKPOINT_FORMAT, FORMER_FORMAT, LAST, PREVIOUS
from pneumo_fast.run.model_input import ModelInput

logger = logging.getLogger(__name__)

_BAD_FILE = (
    OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError,
    AssertionError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zipfile and torch's restricted unpickler raise for files that are damaged or no checkpoints."""

EpochRecord = dict[str, float | int]
"""What is known of one finished epoch; ``docs/format.md`` lists the keys."""


@dataclass(kw_only=True, slots=True)
class Trained:
    """A model as some epochs left it, and what judging it needs."""

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
    prior_shift: float | None = None
    """Natural logarithm of how many times higher the odds of a positive were to the loss than among the images; None
    where that is not one known number."""
    dataset_identity: str
    """SHA-256 of the training dataset's manifest."""
    input: ModelInput | None = None
    """How files become such images; None where the dataset did not say, or an earlier release wrote the checkpoint."""
    epoch: int
    """Finished epochs."""
    best: float
    """Best figure of the validation so far; see ``monitor``."""
    best_epoch: int
    """Epoch (from 1) of the best figure; 0 before the first."""
    monitor: str
    """Which figure it is: ``auroc``, ``ap``, ``loss`` or ``accuracy``."""
    history: list[EpochRecord]
    settings: dict[str, Any]
    """The options that shape the result; resuming with others is refused."""
    model: dict[str, Any]
    """State of the model; in ``best.pt`` that which was validated, the average where there is one."""

    def __post_init__(self) -> None:
        """Check the values; ValueError where one is impossible."""
        if not (self.size > 0 and self.std > 0 and self.pos_weight > 0 and 0 <= self.best_epoch <= self.epoch):
            raise ValueError("a size, deviation or weight above 0 and a best epoch up to the last expected")
        if not all(map(math.isfinite, (self.mean, self.std, self.pos_weight, self.prior_shift or 0.0))):
            raise ValueError("a finite mean, deviation, weight and shift expected")
        if not all(value is None or isinstance(value, str | int | float | list) for value in self.settings.values()):
            raise ValueError("settings that an option can have expected")
        if self.monitor not in MONITORED:
            raise ValueError(f"monitor {self.monitor!r} is unknown")


@dataclass(kw_only=True, slots=True)
class Resumable:
    """A run between two steps: what is trained so far, and the states of all that goes on from there."""

    trained: Trained
    learner: dict[str, Any]
    """State of the :class:`~pneumo_fast.training.learner.Learner`, but the model, which is that of ``trained``."""
    loader: dict[str, Any]
    """Which batch comes next, within an epoch that has begun; empty between epochs."""
    session: dict[str, Any]
    """State of the :class:`~pneumo_fast.training.session.Session`."""


STATES = ("learner", "loader", "session")
"""What a checkpoint has beside the fields of :class:`Trained`, if training can resume from it."""


def save_checkpoint(checkpoint: Trained | Resumable, path: Path) -> None:
    """Write a checkpoint atomically; the one that was there before stays beside it, if it is ``last.pt``."""
    trained = checkpoint.trained if isinstance(checkpoint, Resumable) else checkpoint
    content = {f.name: getattr(trained, f.name) for f in fields(trained)}
    content["input"] = trained.input and plain(trained.input)
    if isinstance(checkpoint, Resumable):
        content |= {name: getattr(checkpoint, name) for name in STATES}
    buffer = io.BytesIO()
    torch.save({"format": CHECKPOINT_FORMAT, **content}, buffer)
    write_atomic(path, buffer.getvalue(), keep=path.with_name(PREVIOUS) if path.name == LAST else None)


def load_trained(path: Path) -> Trained:
    """Read what judging needs from a checkpoint, without running any code it may hold (``weights_only=True``).

    Raises
    ------
    RunError
        If the file is missing, damaged, or no checkpoint of this package.
    """
    content = _read_ours(path)
    with _checked(path):
        return build({name: value for name, value in content.items() if name not in STATES}, Trained, closed=True)


def load_resumable(path: Path) -> Resumable:
    """Read a checkpoint from which training can resume, without running any code it may hold.

    Raises
    ------
    RunError
        If the file is missing, damaged, or no such checkpoint.
    """
    content = _read_ours(path)
    states = {name: content.pop(name) for name in STATES if name in content}
    with _checked(path):
        return build({"trained": content, **states}, Resumable, closed=True)


def _read_ours(path: Path) -> dict[str, Any]:
    """Content of a checkpoint of this package, in today's format."""
    content = _read(path)
    found = content.pop("format", None) if isinstance(content, dict) else None
    if found == FORMER_FORMAT:
        with _checked(path):
            return _from_former(content)
    if found != CHECKPOINT_FORMAT:
        raise RunError(f"{path} is not a checkpoint of this release ({CHECKPOINT_FORMAT!r} is expected): train again")
    return cast("dict[str, Any]", content)


def _from_former(content: dict[str, Any]) -> dict[str, Any]:
    """Today's content from that of the format before, in which the states were 11 fields beside the others."""
    before, skipped = content.pop("skipped")
    guard = {"buffers": content.pop("buffers"), "skipped": skipped}
    learner = {name: content.pop(name) for name in ("optimizer", "scaler", "ema")}
    session = {name: content.pop(name) for name in ("sums", "random", "machine")}
    return content | {
        "learner": {**learner, "guard": guard, "steps_done": content.pop("step")},
        "session": {**session, "skipped_before": before},
    }


@contextmanager
def _checked(path: Path) -> Iterator[None]:
    try:
        yield
    except Fault as error:
        raise RunError(f"checkpoint {path} is damaged ({error}): train again") from error
    except (LookupError, TypeError) as error:  # of the former format
        raise RunError(f"checkpoint {path} lacks a field ({error}): train again") from error


def read_weights(path: Path) -> tuple[dict[str, Any], int | None]:
    """The state of a model: of one of our checkpoints, or of a plain state dictionary.

    Returns
    -------
    state : dict
    size : int or None
        Height and width in pixels of the images that it was trained on; None where the file does not say.

    Raises
    ------
    RunError
        If the file is missing, damaged, or holds neither.
    """
    content = _read(path)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise RunError(f"{path} holds no weights: give a checkpoint or a state dictionary")
    size = content.get("size")
    return state, size if isinstance(size, int) else None


def _read(path: Path) -> Any:
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive, warnings.catch_warnings():
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed, as no checkpoint is: it could fill the memory")
            if archive.testzip() is not None:  # torch does not look at the checksums
                raise ValueError("a checksum differs")
            warnings.simplefilter("ignore")  # about foreign pickles; the error below says enough
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"no checkpoint {path}: run pneumo-fast train first") from error
    except _BAD_FILE as error:
        if memory_ran_out(error):
            raise
        raise RunError(
            f"checkpoint {path} is damaged or not a checkpoint ({type(error).__name__}): train again"
        ) from error


def load_last(run: Path) -> Resumable | None:
    """The newest checkpoint of a run that is whole; None where there is none at all.

    Raises
    ------
    RunError
        If there are checkpoints, and all are damaged.
    """
    paths = [path for path in (run / LAST, run / PREVIOUS) if path.exists()]
    for path in paths[:-1]:
        try:
            return load_resumable(path)
        except RunError as error:
            reason = str(error).rsplit(":", 1)[0]
            logger.warning("%s; resuming from %s, which was written before", reason, paths[-1].name)
    return load_resumable(paths[-1]) if paths else None
