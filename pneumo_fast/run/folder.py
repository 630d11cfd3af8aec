"""The run folder: configuration and history, each written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pneumo_fast.errors import RunError
from pneumo_fast.files import sweep_partials, write_atomic
from pneumo_fast.records import Fault, build, parse_file
from pneumo_fast.run.checkpoint import EpochRecord, Resumable, load_last
from pneumo_fast.run.layout import CONFIG, FILES, FOLDERS, HISTORY


def write_config(run: Path, content: dict[str, Any]) -> None:
    """Write ``config.json``."""
    write_atomic(run / CONFIG, json.dumps(content, indent=1, default=str) + "\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDescription:
    """Content of ``config.json``; ``docs/format.md`` lists the keys."""

    config: dict[str, Any]
    """The options of ``train``."""
    resolved: dict[str, Any] = field(default_factory=dict)
    """What was chosen for them."""
    dataset: TrainedOn | None = None
    versions: dict[str, str] = field(default_factory=dict)
    """Of Python and of the packages that matter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedOn:
    """The dataset that a run was trained on; of several, all together."""

    identity: str
    """SHA-256 of its manifest."""
    counts: dict[str, dict[str, int]]
    """Images by split and label."""
    split: dict[str, Any]
    """How it was divided, as in its manifest."""


def read_config(run: Path) -> RunDescription:
    """Read ``config.json``.

    Raises
    ------
    RunError
        If the folder is not a run, or the file is damaged.
    """
    path = run / CONFIG
    try:
        return build(parse_file(path, finite=False), RunDescription)
    except OSError as error:
        raise RunError(f"{run} is not a run: it has no {CONFIG}; run pneumo-fast train first") from error
    except Fault as error:
        raise RunError(f"{path} is damaged ({error}): train again") from error


def write_history(run: Path, history: list[EpochRecord]) -> None:
    """Write ``history.jsonl``, one line per epoch."""
    write_atomic(run / HISTORY, "".join(json.dumps(record) + "\n" for record in history))


def find_run(out: Path, settings: dict[str, Any], *, resume: bool, overwrite: bool) -> Resumable | None:
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
    checkpoint = load_last(out) if resume else None
    if checkpoint is not None:
        for name, value in settings.items():
            if (before := checkpoint.trained.settings.get(name)) != value:
                raise RunError(
                    f"run {out} was trained with {name} {before!r}, now it is {value!r}: resume with the same, or name "
                    "another --out"
                )
        return checkpoint
    try:
        taken = out.is_dir() and any(not path.match(".*.partial") for path in out.iterdir())
        ours = (out / CONFIG).exists()
    except OSError as error:
        raise RunError(f"run folder {out} cannot be read ({error.strerror}): name another --out") from error
    if taken and not (ours and (overwrite or resume)):
        hint = "holds a run: give --resume to resume it, --overwrite to replace it, or" if ours else "is not empty:"
        raise RunError(f"{out} {hint} name another --out")
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
            for name in FILES:
                (out / name).unlink(missing_ok=True)
            for name in FOLDERS:
                shutil.rmtree(out / name, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        sweep_partials(out)
    except OSError as error:
        raise RunError(f"run folder {out} cannot be made ({error.strerror}): name another --out") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what to do where a file or folder of a run cannot be written.

    Raises
    ------
    RunError
        For any OSError in the block.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror or error}): make room or allow writing") from error
