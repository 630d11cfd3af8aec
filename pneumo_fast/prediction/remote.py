"""The instances of a DICOMweb server as files: each there while it is read and scored, and then no more.

A part's files are retrieved in a thread of their own, while the parts before it are read and scored. They lie in
``OUT/.predict/retrieved``, which nobody else can open, and which goes when the prediction ends, however it ends; what a
killed process left there goes when the prediction is resumed.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo_fast.conversion.executors import Submit
from pneumo_fast.conversion.supervisor import Outcome
from pneumo_fast.conversion.task import Task
from pneumo_fast.errors import PacsError, PredictError, RejectedImageError
from pneumo_fast.extras import PACS
from pneumo_fast.pacs.address import parse_query
from pneumo_fast.pacs.credentials import load_credentials
from pneumo_fast.prediction.files import File
from pneumo_fast.prediction.folder import ARGUMENTS, INSTANCES, RETRIEVED, WORK
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.prediction.reading import AHEAD
from pneumo_fast.prediction.scoring import Scoring, reading_processes, workers_for
from pneumo_fast.prediction.table import Row
from pneumo_fast.radiograph.header import BYTES_PER_PIXEL
from pneumo_fast.records import Fault, build, parse_file

if TYPE_CHECKING:  # the extra pacs
    from pneumo_fast.pacs.dicomweb import DicomWeb
    from pneumo_fast.pacs.search import Instance


@contextmanager
def retrieving(config: PredictConfig) -> Iterator[Retrieval | None]:
    """The instances that match the query, to be scored in the block; None where no server is named.

    Where a prediction is resumed they are those that it was begun with, whatever the server has by now.

    Raises
    ------
    PacsError
        If dicomweb-client is not installed, or the server refuses, does not answer, or answers with what it must not.
    PredictError
        If nothing matches, or the list of what is resumed is damaged.
    ConfigError
        If the credentials cannot be used.
    """
    if config.dicomweb is None:
        yield None
        return
    try:
        from pneumo_fast.pacs.dicomweb import connected  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise PacsError(PACS.needed_by("--dicomweb", "dicomweb-client")) from error
    with connected(config.dicomweb, load_credentials(config.credentials), config.network_timeout_s) as server:
        kept = config.out / WORK / INSTANCES
        begun = config.resume and (config.out / WORK / ARGUMENTS).exists()  # written after the list
        instances = _read(kept) if begun and kept.exists() else server.search(parse_query(config.query))
        if not instances:
            raise PredictError(f"no instance on {server.host} matches the query: see its keywords, values and ranges")
        yield Retrieval(server, instances, config)


def _read(kept: Path) -> list[Instance]:
    from pneumo_fast.pacs.search import Instance  # noqa: PLC0415  # an extra

    try:
        return build(parse_file(kept), list[Instance])
    except (OSError, Fault) as error:
        raise PredictError(f"{kept} cannot be read ({error}): give --overwrite to begin again") from error


class Retrieval:
    """Instances that are retrieved when their turn comes."""

    def __init__(self, server: DicomWeb, instances: Sequence[Instance], config: PredictConfig) -> None:
        self.server = server
        self.told = json.dumps([asdict(one) for one in instances])
        """What the server has said of them, to go on with."""
        self._instances, self._folder = instances, config.out / WORK / RETRIEVED
        self.files = [
            File(str(self._folder), f"{one.study}/{one.series}/{one.uid}.dcm", _id(one, config)) for one in instances
        ]
        self._rejects: dict[int, RejectedImageError] = {}
        self._lock, self._open = threading.Lock(), True

    def tables(self, scoring: Scoring, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Row]]]:
        """The rows of each part, as :meth:`Scoring.tables` gives it.

        Raises
        ------
        PacsError
            If the server refuses, or has gone.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        if not tasks:
            return
        self._folder.mkdir(mode=0o700)
        count = min(reading_processes(scoring.model, scoring.options), len(tasks))
        # these threads are left behind where they wait for an answer when all is over
        with ThreadPool(AHEAD * count) as threads, workers_for(scoring.model, count) as submit:
            try:
                for task, rows in scoring.tables_by(partial(self._submit, threads, submit, scoring), tasks):
                    self._finish(task, rows)
                    yield task, rows
            finally:
                with self._lock:
                    self._open = False
                    shutil.rmtree(self._folder, ignore_errors=True)

    def _submit(
        self, threads: ThreadPool, submit: Submit, scoring: Scoring, task: Task, timeout_s: float
    ) -> Future[Outcome]:
        """Have a part retrieved, and then read."""
        done: Future[Outcome] = Future()

        def work() -> Outcome:
            for source in task.sources:
                self._retrieve(int(source.image_id), scoring)
            return submit(task, timeout_s).result()

        threads.apply_async(work, callback=done.set_result, error_callback=done.set_exception)
        return done

    def _retrieve(self, number: int, scoring: Scoring) -> None:
        """Write the file of an instance, or keep why there is none."""
        instance, path = self._instances[number], Path(self.files[number].full)
        try:
            if instance.is_result:
                raise RejectedImageError("own_result", "made by this package")
            scoring.selection.check({"Modality": instance.modality})
            content = self.server.retrieve(instance, BYTES_PER_PIXEL * scoring.model.input.preprocessing.max_pixels)
        except RejectedImageError as error:
            self._rejects[number] = error
            return
        with self._lock:
            if self._open:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def _finish(self, task: Task, rows: Sequence[Row]) -> None:
        """Remove a part's files; say in its rows why some were not there."""
        for row, source in zip(rows, task.sources, strict=True):
            Path(source.path).unlink(missing_ok=True)
            if error := self._rejects.pop(int(source.image_id), None):
                row |= {"reject": error.reason, "detail": error.detail}


def _id(instance: Instance, config: PredictConfig) -> str:
    """What the option says that an image's id is."""
    return {"StudyInstanceUID": instance.study, "AccessionNumber": instance.accession}.get(config.match, instance.uid)
