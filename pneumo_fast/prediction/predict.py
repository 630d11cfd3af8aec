"""Scores new files and writes one table of them.

Each part of the files becomes a part of the table in ``OUT/.predict``; at the end they are joined. Memory does not
grow with the number of files, but for their paths.
"""

from __future__ import annotations

import csv
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pneumo_fast import __version__
from pneumo_fast.conversion.options import most_rejects
from pneumo_fast.conversion.task import Task
from pneumo_fast.dataset.pseudonyms import load_key
from pneumo_fast.errors import PredictError
from pneumo_fast.files import atomic_file, open_regular, sync_filesystem, write_atomic
from pneumo_fast.folders import locked
from pneumo_fast.pacs.address import check_address
from pneumo_fast.prediction.dicom_results import NOT_STORED, STORED, WRITTEN, check_results, warn_of_identities
from pneumo_fast.prediction.files import find
from pneumo_fast.prediction.folder import (
    FORMAT,
    FORMAT_VERSION,
    OVERLAYS,
    READING,
    SUMMARY,
    TABLE,
    WORK,
    Arguments,
    claim,
)
from pneumo_fast.prediction.judging import Judgement, Judging, read_table
from pneumo_fast.prediction.model import Model, open_model
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.prediction.remote import Retrieval, retrieving
from pneumo_fast.prediction.scoring import Outputs, Scoring
from pneumo_fast.prediction.table import Row, from_csv, is_whole, to_csv
from pneumo_fast.progress import OnProgress, silent
from pneumo_fast.radiograph.rejection import SKIPPED
from pneumo_fast.records import plain
from pneumo_fast.vocabulary import NOT_CLINICAL, counted

_log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Counts:
    """What is in a table."""

    files: int = 0
    scored: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    """Files by the reason why they were not scored."""
    warnings: Counter[str] = field(default_factory=Counter)
    """Scored images by the kind of warning."""
    positives: Counter[str] = field(default_factory=Counter)
    """Scored images that are positive, by the column that says so."""
    results: Counter[str] = field(default_factory=Counter)
    """Scored images by what became of their DICOM objects: written, stored, not_stored."""

    def add(self, rows: Sequence[Row]) -> None:
        """Count the rows of a part."""
        scored = [row for row in rows if not row["reject"]]
        self.files += len(rows)
        self.scored += len(scored)
        self.rejects.update(row["reject"] for row in rows if row["reject"])
        self.warnings.update(word.partition("=")[0] for row in scored for word in row["warnings"].split())
        words = (word for row in scored for word in row.get("dicom", "").split())
        self.results.update(word for word in words if word in {WRITTEN, STORED, NOT_STORED})
        for name in (name for name in rows[0] if name.startswith("class")):
            self.positives[name] += sum(row[name] == "1" for row in scored)

    @property
    def faults(self) -> int:
        """Files that were rejected for a fault, and not skipped as other objects than are wanted."""
        return sum(count for reason, count in self.rejects.items() if reason not in SKIPPED)

    @property
    def all_failed(self) -> bool:
        """Whether files were rejected for a fault, and none was scored."""
        return self.faults > 0 and not self.scored


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictSummary:
    """What was predicted."""

    out: Path
    counts: Counts
    seconds: float
    now: int
    """Files that were read now; fewer than all when resuming."""
    model: Model
    judgement: Judgement | None
    """How the scores fit the labels; None where none are given, or no scored image has one."""
    notes: tuple[str, ...]
    """What a reader has to know, one sentence each."""


def predict(config: PredictConfig, on_progress: OnProgress = silent) -> PredictSummary:
    """Score files or a server's instances by the best checkpoint of a run, or by the mean logit of several.

    A file becomes the image that it would be in the dataset that the model was trained on, through the same code;
    files of other kinds are skipped as there. All are in one table.

    Parameters
    ----------
    on_progress : callable, optional
        Called as (files done, files) after each part.

    Raises
    ------
    RunError
        If a run is missing or damaged, or takes other images than the others.
    PredictError
        If there is nothing to score, too many files were rejected, or the folder is taken or cannot be written.
    LabelError
        If a table cannot be used.
    PacsError
        If a server refuses, does not answer, or answers with what it must not.
    ConvertError
        If a folder cannot be read, or worker processes keep dying.
    """
    begin = time.perf_counter()
    model = open_model(config.runs, config.device)
    key = load_key(config.hash_key, make=True)
    judging = read_table(config, key)
    check_results(config)
    with retrieving(config) as remote:
        written = [config.out, *([config.dicom_out] if config.dicom_out else [])]
        files, repeated = (remote.files, 0) if remote else find(config.paths, config.path_column, written)
        arguments = Arguments.of(config, model, files, key)
        outputs = Outputs(
            save=partial(_save, config.out / OVERLAYS) if config.explain else None,
            dicom_out=config.dicom_out,
            store=remote.server.store if remote and config.store else None,
        )
        _warn(config)
        with _writing(config.out), locked(config.out), _objects_locked(config):
            claim(config, arguments, remote.told if remote else "")
            work = config.out / WORK / READING
            scoring = Scoring.of(model, config.scoring, files, work, key, outputs, keep_ids=config.keep_ids)
            counts, now = _score(scoring, remote, config, on_progress)
            _join(scoring, config, judging)
            judgement = judging.judge(config, model.operating_point) if judging else None
            notes = tuple(_notes(config, model, repeated, counts, judgement))
            _write_summary(config, model, counts, judgement, notes)
            shutil.rmtree(config.out / WORK)
    if counts.all_failed:
        perhaps_list = "not_dicom" in counts.rejects and any(map(Path.is_file, config.paths))
        hint = "; a list of paths has to end in .csv" if perhaps_list else ""
        _log.warning("no file could be scored: %s says why%s", config.out / TABLE, hint)
    return PredictSummary(
        out=config.out, counts=counts, seconds=time.perf_counter() - begin, now=now, model=model, judgement=judgement,
        notes=notes,
    )  # fmt: skip


def _warn(config: PredictConfig) -> None:
    """Say loudly what names patients, and where it goes."""
    if config.keep_ids:
        _log.warning("ids and paths are written AS THEY ARE (--keep-ids): they must not name a patient")
    if config.dicom_out:
        warn_of_identities(config.dicom_out)
    if config.store and config.dicomweb:
        host = check_address(config.dicomweb).netloc
        _log.warning("results are SENT to %s (--store), into the studies of their sources' PATIENTS", host)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError as error:
        raise PredictError(
            f"{error.filename}: another process writes there: wait for its end, or name another folder"
        ) from error
    except OSError as error:
        raise PredictError(
            f"{out} cannot be written ({error.strerror or error}): fix that, then resume with --resume"
        ) from error


def _objects_locked(config: PredictConfig) -> AbstractContextManager[None]:
    """Be the only one that writes DICOM objects, which are named by their rows; the folder is for its owner alone."""
    folder = config.dicom_out
    return locked(folder, 0o700) if folder and folder.resolve() != config.out.resolve() else nullcontext()


def _save(folder: Path, name: str, png: bytes) -> None:
    folder.mkdir(exist_ok=True)
    write_atomic(folder / name, png, sync=False)


def _part(config: PredictConfig, task: Task) -> Path:
    return config.out / WORK / f"{task.name}.csv"


def _read_part(path: Path) -> str:
    with open_regular(path) as file:
        return file.read().decode()


def _rows_done(config: PredictConfig, task: Task, names: Sequence[str]) -> list[Row] | None:
    """The rows of a part that is done; None where it is not, or where a power cut has left a piece of it."""
    try:
        text = _read_part(_part(config, task))
        rows = from_csv(text) if text.endswith("\n") else []
    except (FileNotFoundError, UnicodeDecodeError, csv.Error):
        return None
    return rows if len(rows) == len(task.sources) and all(is_whole(row, names) for row in rows) else None


def _score(
    scoring: Scoring, remote: Retrieval | None, config: PredictConfig, on_progress: OnProgress
) -> tuple[Counts, int]:
    """Write the parts that are not done yet; stop as soon as too much is rejected.

    Returns what is in all parts, and how many files were read now.
    """
    names = scoring.columns
    total, counts = len(scoring.files), Counts()
    limit = most_rejects(config.max_rejects, total)
    left = []
    for task in scoring.tasks:
        if rows := _rows_done(config, task, names):
            counts.add(rows)
        else:
            left.append(task)
    before = counts.files
    _check_rejects(counts, limit, config)
    for task, rows in remote.tables(scoring, left) if remote else scoring.tables(left):
        _flush(config)
        write_atomic(_part(config, task), to_csv(rows, names), sync=False)
        counts.add(rows)
        on_progress(counts.files, total)
        _check_rejects(counts, limit, config)
    return counts, counts.files - before


def _flush(config: PredictConfig) -> None:
    """Have overlays and DICOM objects on disk before a table says that they are there."""
    for folder in (config.out if config.explain else None, config.dicom_out):
        if folder:
            sync_filesystem(folder)


def _check_rejects(counts: Counts, limit: int, config: PredictConfig) -> None:
    if counts.faults > limit:
        told = ", ".join(f"{reason} {count}" for reason, count in counts.rejects.most_common() if reason not in SKIPPED)
        raise PredictError(
            f"{counts.faults} of the first {counts.files} files were rejected, {limit} are allowed ({told}): fix them, "
            f"or raise --max-rejects and resume with --resume; {config.out / WORK} says which"
        )


def _join(scoring: Scoring, config: PredictConfig, judging: Judging | None) -> None:
    """Join the parts into the table."""
    with atomic_file(config.out / TABLE) as out:
        for number, task in enumerate(scoring.tasks):
            text = _read_part(_part(config, task))
            header, _, rows = text.partition("\n")
            out.write((rows if number else f"{header}\n{rows}").encode())
            if judging:
                judging.add([row for row in from_csv(text) if not row["reject"]])


def _notes(
    config: PredictConfig, model: Model, repeated: int, counts: Counts, judgement: Judgement | None
) -> Iterator[str]:
    if repeated:
        yield f"{counted(repeated, 'path')} named a file again: each file is scored once."
    if failed := counts.results[NOT_STORED]:
        yield f"The server did not take the results of {counted(failed, 'image')}: see the column dicom."
    if not model.calibrated:
        yield "No calibrated probability: not every run was evaluated on the data it was trained on."
    if len(model.members) > 1:
        yield "No operating threshold: none was chosen for the mean of several runs."
    if config.labels and judgement is None:
        yield "No scored image has a label: see --match, --id-column and --label-column."
    if judgement:
        yield "It was not checked whether these images or their patients were in the training data."


def _write_summary(
    config: PredictConfig, model: Model, counts: Counts, judgement: Judgement | None, notes: tuple[str, ...]
) -> None:
    point = model.operating_point
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "created_by": f"pneumo-fast {__version__}",
        "notice": NOT_CLINICAL,
        "ids": "kept" if config.keep_ids else "pseudonyms",
        "runs": [plain(member.identity) for member in model.members],
        "input": {"size": model.size, **plain(model.input)},
        "operating_point": plain(point) if point else None,
        "thresholds": list(config.thresholds),
        "refuse": list(config.refuse),
        "counts": plain(counts),
        "judgement": plain(judgement) if judgement else None,
        "notes": list(notes),
    }
    write_atomic(config.out / SUMMARY, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
