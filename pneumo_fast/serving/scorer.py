"""Scores instances of the spool, by the code of ``predict``, and puts their results into their place."""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pydicom

from pneumo_fast.conversion.executors import Submit
from pneumo_fast.errors import PacsError, PneumoError, PredictError, memory_ran_out
from pneumo_fast.files import write_atomic
from pneumo_fast.prediction.dicom_results import NAMES, WRITTEN
from pneumo_fast.prediction.files import File
from pneumo_fast.prediction.model import Model
from pneumo_fast.prediction.scoring import Outputs, Scoring
from pneumo_fast.prediction.table import Row
from pneumo_fast.radiograph.rejection import OUT_OF_MEMORY, REASONS
from pneumo_fast.serving.database import SpoolFullError
from pneumo_fast.serving.options import ServeConfig
from pneumo_fast.serving.spool import Outcome, Spool

WORK: Final = "work"
"""Folder in the spool's; empty between two batches."""
READING, RESULTS = "reading", "results"
"""Folders of a batch: what worker processes write, and the DICOM objects."""
BATCH: Final = 64
"""Instances that are scored together, at most."""
SINGLES: Final = 8
"""Instances that are scored one by one before the next batch, at most."""
MOST_FAILURES: Final = 3
"""Times that an instance may fail, alone, before it is set aside."""
PAUSE_S: Final = 1.0
NOT_FINAL: Final = frozenset({OUT_OF_MEMORY[0], "not_readable"})
"""Reasons of a rejection that are no fault of the file, which was written here."""

_log = logging.getLogger(__name__)


class Scorer:
    """Scores what waits.

    Parameters
    ----------
    work : Path
        That of :func:`work_folder`.
    submit : callable
        Hands files to worker processes.
    stopped : callable
        Whether to stop before the next part of a batch.
    """

    def __init__(
        self, config: ServeConfig, model: Model, key: bytes, spool: Spool, work: Path, submit: Submit,
        stopped: Callable[[], object],
    ) -> None:  # fmt: skip
        self._config, self._model, self._key, self._spool = config, model, key, spool
        self._work = work
        self._submit, self._stopped = submit, stopped
        self._failures: Counter[int] = Counter()

    def round(self) -> bool:
        """Score the next batch, and some of what has to be scored alone; whether there was anything.

        Raises
        ------
        SpoolFullError
            If there is no room for results; their instances wait on.
        """
        alone = list[int]()
        if batch := self._spool.fresh(BATCH):
            try:
                self._score(batch)
            except PacsError:  # of the spool
                raise
            except PneumoError as error:
                _log.warning("a batch could not be scored (%s): its images are scored one by one", error)
                alone += batch  # not in here, where the error keeps the batch's memory
        alone += self._spool.begun(SINGLES)
        for number in alone:
            self._score_alone(number)
        return bool(batch or alone)

    def _score_alone(self, number: int) -> None:
        if self._stopped() or not self._spool.waits(number):
            return
        try:
            self._score([number])
        except PacsError:
            raise
        except PneumoError as error:
            self._failures[number] += 1
            time.sleep(PAUSE_S)  # memory that ran out, say, may be there again
            if self._failures[number] >= MOST_FAILURES:
                _log.warning("instance %d is set aside until the next start: %s", number, error)
                self._spool.set_aside(number, type(error).__name__)

    def _score(self, numbers: Sequence[int]) -> None:
        # a folder for each batch: workers may be late with files of one that failed
        with (
            self._spool.begin(numbers),
            _failures_told(),
            TemporaryDirectory(dir=self._work, ignore_cleanup_errors=True) as folder,
        ):
            for outcomes in self._outcomes(numbers, Path(folder)):
                if self._config.dicom_out:
                    for uid, data in chain.from_iterable(one.results for one in outcomes):
                        write_atomic(self._config.dicom_out / f"{uid}.dcm", data)
                self._spool.finish(outcomes, forward=self._config.forward is not None)

    def _outcomes(self, numbers: Sequence[int], work: Path) -> Iterator[list[Outcome]]:
        """What became of the instances, part by part."""
        files = [File(str(work), f"{number}.dcm") for number in numbers]
        for file, number in zip(files, numbers, strict=True):
            Path(file.full).write_bytes(self._spool.object_of(number))
        options, outputs = self._config.scoring, Outputs(dicom_out=work / RESULTS)
        scoring = Scoring.of(self._model, options, files, work / READING, self._key, outputs)
        for task, rows in scoring.tables_by(self._submit, scoring.tasks):
            places = [int(source.image_id) for source in task.sources]
            yield [
                self._outcome(numbers[place], row, [work / RESULTS / name.format(place) for name in NAMES])
                for place, row in zip(places, rows, strict=True)
            ]
            if self._stopped():
                return

    def _outcome(self, number: int, row: Row, files: Sequence[Path]) -> Outcome:
        reason = row["reject"] or row["dicom"].split()[0]
        if reason in NOT_FINAL:
            raise PredictError(f"{reason}: {REASONS[reason]}")
        probability = float(row["probability"]) if row["probability"] else None
        if reason != WRITTEN:
            return Outcome(number=number, reason=reason, probability=probability)
        return Outcome(number=number, probability=probability, results=tuple(map(_read, files)))


@contextmanager
def _failures_told() -> Iterator[None]:
    """Tell a disk without room, which is waited for, from files that cannot be written, and from want of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not memory_ran_out(error):
            raise
        raise PredictError("there was not enough memory") from error
    except OSError as error:
        where = f" in {Path(error.filename).parent}" if isinstance(error.filename, str) else ""
        reason = error.strerror or type(error).__name__
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise SpoolFullError(
                f"a file{where} cannot be written ({reason}): free some space; what was accepted stands"
            ) from error
        raise PredictError(f"a file{where} cannot be read or written ({reason})") from error


@contextmanager
def work_folder(spool: Path) -> Iterator[Path]:
    """A folder for files of instances that are being scored; nothing is left of it, or of one of a killed process."""
    folder = spool / WORK
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> tuple[str, bytes]:
    uid = str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
    return uid, path.read_bytes()
