"""The server is killed again and again: nothing that was acknowledged is lost, and nothing is done twice."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pydicom
import pytest

from pneumo_fast.dataset.pseudonyms import load_key
from pneumo_fast.dicom_out.objects import Finding, derived_uid
from pneumo_fast.dicom_out.source import Source
from pneumo_fast.pacs.node import OUR_AET, hushed
from pneumo_fast.prediction.model import open_model
from tests.support.orthanc import Orthanc, free_port, running_orthanc
from tests.support.serving import SENDER, association, copies, journal, send, wait_until

SENDERS = 4
PATIENCE_S = 900.0
_log = logging.getLogger(__name__)


@dataclass
class Campaign:
    """What is sent, and how that goes."""

    port: int
    retries: int = 0
    acknowledged: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send_all(self, datasets: list[pydicom.Dataset]) -> None:
        """Send until everything is acknowledged, some by each association, as a modality does."""
        left = list(datasets)
        while left:
            with association(self.port) as made:
                for dataset in left[:10]:
                    status = send(made, dataset)
                    with self.lock:
                        self.retries += status != 0
                        if status == 0:
                            self.acknowledged.add(str(dataset.SOPInstanceUID))
                            left.remove(dataset)
                    if status is None:
                        time.sleep(0.2)
                        break

    @contextmanager
    def senders(self, datasets: list[pydicom.Dataset]) -> Iterator[None]:
        threads = [threading.Thread(target=self.send_all, args=(datasets[start::SENDERS],)) for start in range(SENDERS)]
        with hushed():
            for thread in threads:
                thread.start()
            yield
            for thread in threads:
                thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads)


@dataclass
class Process:
    """``serve`` in a process of its own, which may be killed and started again."""

    arguments: list[str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log.txt").open("ab") as log, (self.folder / "out.json").open("wb") as out:
            command = [sys.executable, "-m", "pneumo_fast", "serve", *self.arguments, "--json"]
            self.process = subprocess.Popen(command, stdout=out, stderr=log)

    def end(self, number: int) -> int:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log.txt").read_text()
        self.process.send_signal(number)
        return self.process.wait(60)


def has(spool: Path, table: str, count: float) -> bool:
    """Whether the journal has so many instances, or so many results that were sent."""
    if not (spool / "spool.sqlite3").exists() or not journal(spool, "SELECT 1 FROM sqlite_master WHERE name='results'"):
        return False
    query = f"SELECT count(*) FROM {table}" + (" WHERE state = 'sent'" if table == "results" else "")  # noqa: S608
    return int(journal(spool, query)[0][0]) >= count


def expected_results(run: Path, datasets: list[pydicom.Dataset]) -> set[str]:
    """The UIDs of all results, from the sources, the model and the key."""
    scorer = open_model([run], "cpu").digest(0.5)
    finding = Finding(probability=0, calibrated=None, threshold=0, model="", checksums=(), scorer=scorer)
    sources = [Source(dataset=dataset, notes=()) for dataset in datasets]
    return {derived_uid(load_key(), kind, source, finding) for source in sources for kind in ("capture", "report")}


def kill_and_count(run: Path, phantom: Path, folder: Path, count: int, kills: int) -> None:
    port, spool, begin = free_port(), folder / "spool", time.monotonic()
    datasets = copies(phantom, count)
    with running_orthanc(folder / "pacs", peers={OUR_AET: port}) as pacs:
        options = ["--port", port, "--allow", SENDER, "--forward", pacs.node, "--spool", spool, "--workers", 1]
        server = Process([str(word) for word in (run, *options, "--device", "cpu")], folder)
        campaign = Campaign(port)
        server.start()
        with campaign.senders(datasets):
            for number in range(kills):
                some = (number + 1) * count / (kills + 1)
                wait_until(partial(has, spool, "instances", some), PATIENCE_S)
                if number:  # the first while instances arrive, the others also while results are sent
                    wait_until(partial(has, spool, "results", some), PATIENCE_S)
                assert server.end(signal.SIGKILL) == -signal.SIGKILL
                server.start()
        sent_s = time.monotonic() - begin
        wait_until(partial(has, spool, "results", 2 * count), PATIENCE_S)
        code = server.end(signal.SIGTERM)
        check(pacs, spool, datasets, expected_results(run, datasets))
    summary = json.loads((folder / "out.json").read_text())
    assert (code, summary["signal"]) == (143, signal.SIGTERM)
    assert summary["counts"]["received"] == summary["counts"]["scored"] == count == len(campaign.acknowledged)
    tries = journal(spool, "SELECT sum(tries) FROM results")[0][0]
    _log.warning(
        "%d instances, %d kills: all acknowledged after %.0f s and %d retries, all stored after %.0f s by %d attempts",
        count, kills, sent_s, campaign.retries, time.monotonic() - begin, tries,
    )  # fmt: skip


def check(pacs: Orthanc, spool: Path, datasets: list[pydicom.Dataset], expected: set[str]) -> None:
    """By the journal, and by what the other side has."""
    count = len(datasets)
    assert journal(spool, "SELECT state, count(*) FROM instances GROUP BY 1") == [("scored", count)]
    assert journal(spool, "SELECT state, count(*) FROM results GROUP BY 1") == [("sent", 2 * count)]
    per_instance = journal(spool, "SELECT DISTINCT n FROM (SELECT count(*) AS n FROM results GROUP BY instance)")
    assert per_instance == [(2,)]
    assert {uid for (uid,) in journal(spool, "SELECT uid FROM results")} == expected
    stored = [tags["SOPInstanceUID"] for tags in pacs.tags()]
    assert len(stored) == len(set(stored)) == 2 * count
    assert set(stored) == expected
    studies = {str(dataset.StudyInstanceUID) for dataset in datasets}
    assert {study["MainDicomTags"]["StudyInstanceUID"] for study in pacs.get("/studies?expand")} == studies


def test_a_kill_loses_nothing(run: Path, phantom: Path, tmp_path: Path) -> None:
    kill_and_count(run, phantom, tmp_path, count=8, kills=1)


@pytest.mark.slow
def test_a_thousand_instances_and_three_kills(run: Path, phantom: Path, tmp_path: Path) -> None:
    kill_and_count(run, phantom, tmp_path, count=1000, kills=3)
