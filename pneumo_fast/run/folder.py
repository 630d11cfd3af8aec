"""The run folder: found, locked and cleared; its configuration and history, each written whole or not at all."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pneumo_fast.errors import RunError
from pneumo_fast.files import PARTIALS, write_atomic
from pneumo_fast.folder_kinds import check_kind
from pneumo_fast.folders import LOCK, locked
from pneumo_fast.records import Fault, build, parse_file
from pneumo_fast.run.checkpoint import EpochRecord, Resumable, load_last
from pneumo_fast.run.layout import CONFIG, FOLD, FOLDERS, HISTORY, WRITTEN

_log = logging.getLogger(__name__)


def write_config(run: Path, content: dict[str, Any]) -> None:
    """Write ``config.json``."""
    write_atomic(run / CONFIG, json.dumps(content, indent=1, default=os.fspath) + "\n")


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
        check_kind(run, "run")
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
                values = before, value
                then, now = (f"of checksum {str(x)[:8]}" if name == "dataset" else repr(x) for x in values)
                raise RunError(
                    f"run {out} was trained with {name} {then}, now it is {now}: resume with the same, or name another "
                    "--out"
                )
        return checkpoint
    try:
        taken = bool(names_in(out))
        ours = (out / CONFIG).exists() and _is_run(out)
    except OSError as error:
        raise RunError(f"run folder {out} cannot be read ({error.strerror}): name another --out") from error
    if taken and not (ours and (overwrite or resume)):
        hint = "holds a run: give --resume to resume it, --overwrite to replace it, or" if ours else "is not empty:"
        raise RunError(f"{out} {hint} name another --out")
    return None


def names_in(out: Path) -> list[str]:
    """What is in a run folder, but for what processes leave there while they work; empty where there is no folder.

    Raises
    ------
    OSError
        If the folder cannot be read.
    """
    if not out.is_dir():
        return []
    return sorted(path.name for path in out.iterdir() if path.name != LOCK and not path.match(PARTIALS))


def _is_run(out: Path) -> bool:
    """Whether a folder's ``config.json`` is of a run of ours."""
    try:
        return "pneumo-fast" in read_config(out).versions
    except RunError:
        return False


def clear_run(out: Path, *, keep: bool) -> None:
    """Make the run folder; unless its run is to be kept, what an earlier one has written goes, and nothing else.

    Raises
    ------
    RunError
        If that cannot be done.
    """
    try:
        if not keep:
            _remove_run(out)
        out.mkdir(parents=True, exist_ok=True)
        for partial in out.glob(PARTIALS):  # not those below, where an evaluation may be writing
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"run folder {out} cannot be made ({error.strerror}): name another --out") from error


def _remove_run(out: Path) -> None:
    for pattern in WRITTEN:
        for path in out.glob(pattern):
            path.unlink()
    for pattern in FOLDERS:
        for folder in out.glob(pattern):
            with suppress(OSError):  # it holds other people's files, or is one
                folder.rmdir()
    if left := [name for name in names_in(out) if not FOLD.fullmatch(name)]:
        _log.warning("%s: left as it is, since no run wrote it: %s", out, ", ".join(left))


@contextmanager
def run_locked(out: Path) -> Iterator[None]:
    """Be the only training that writes into a run folder, which is made where it is missing.

    Raises
    ------
    RunError
        If another one does, or the folder cannot be made or written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(out))
        except BlockingIOError as error:
            raise RunError(f"{out}: another training writes there: wait for its end, or name another --out") from error
        except OSError as error:
            raise RunError(f"run folder {out} cannot be made ({error.strerror}): name another --out") from error
        yield


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
    except BlockingIOError as error:
        raise RunError(f"another process writes {path}: wait for its end, then run this again") from error
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror or error}): make room or allow writing") from error
