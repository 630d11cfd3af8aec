"""A DICOM node of ours for tests, in a thread or a process, and what sends to it."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import build_context
from pynetdicom.association import Association

from pneumo_fast.errors import PacsError
from pneumo_fast.pacs.node import OUR_AET, hushed, pause_reactor
from pneumo_fast.pacs.receiver import RADIOGRAPHS
from pneumo_fast.pacs.requestor import Requestor
from pneumo_fast.serving.options import ServeConfig
from pneumo_fast.serving.serve import ServeSummary, serve
from pneumo_fast.serving.spool import FILE
from pneumo_fast.signals import StopRequest

SENDER = "MODALITY"
WAIT_S = 60.0
ROOT = "1.2.826.0.1.3680043.8.498"
SYNTAXES = (ExplicitVRLittleEndian, JPEGBaseline8Bit)


@dataclass(kw_only=True)
class Server:
    """A server that runs in a thread."""

    port: int
    config: ServeConfig
    ended: list[ServeSummary] = field(default_factory=list)
    """Its summary, once it has ended."""


@contextmanager
def served(config: ServeConfig) -> Iterator[Server]:
    """Serve in a thread of this process while the block lasts."""
    ports: queue.Queue[int | BaseException] = queue.Queue()
    stop, ended = StopRequest(), list[ServeSummary]()

    def run() -> None:
        try:
            ended.append(serve(config, ports.put, stop))
        except (PacsError, OSError) as error:
            ports.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    port = ports.get(timeout=WAIT_S)
    if isinstance(port, BaseException):
        raise port
    try:
        yield Server(port=port, config=config, ended=ended)
    finally:
        stop.signal = 15
        thread.join(WAIT_S)
    assert not thread.is_alive()


@contextmanager
def association(
    port: int, calling: str = SENDER, called: str = OUR_AET, sop_classes: Sequence[str] = RADIOGRAPHS
) -> Iterator[Association]:
    """An association that may have been refused."""
    contexts = [build_context(sop_class, syntax) for sop_class in sop_classes for syntax in SYNTAXES]
    with hushed(), Requestor(calling) as entity:
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = 20
        made = entity.associate("127.0.0.1", port, contexts, ae_title=called)
        try:
            yield made
        finally:
            if made.is_established:
                made.release()
            made.join(20) if made.is_alive() else None


def send(made: Association, dataset: pydicom.Dataset) -> int | None:
    """Send by an association; the status, None where there was no answer."""
    if not made.is_established:
        return None
    pause_reactor(made)
    status: int | None = made.send_c_store(dataset).get("Status")
    if status is None:
        made.abort()
    return status


def store(port: int, *datasets: pydicom.Dataset) -> list[int | None]:
    """Send by one association; the status of each, None where there was no answer."""
    with association(port) as made:
        return [send(made, one) for one in datasets]


def copies(source: Path, count: int) -> list[pydicom.Dataset]:
    """A radiograph under so many SOP Instance UIDs, each in a series of its own."""
    made: list[Any] = [pydicom.dcmread(source) for _ in range(count)]
    for number, dataset in enumerate(made, start=1):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.7.{number}"
        dataset.SeriesInstanceUID = f"{ROOT}.8.{number}"
    return made


def journal(spool: Path, query: str) -> list[tuple[Any, ...]]:
    """What the journal answers, also while it is being written."""
    with closing(sqlite3.connect(f"file:{spool / FILE}?mode=ro", uri=True, timeout=20)) as base:
        return base.execute(query).fetchall()


def wait_until(true: Callable[[], Any], seconds: float = WAIT_S) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
