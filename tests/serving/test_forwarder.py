"""Results go to a node that may refuse, be full, or not be there."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import EnhancedSRStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, evt

from pneumo_fast.pacs.node import Node, hushed
from pneumo_fast.serving import forwarder as forwarder_module
from pneumo_fast.serving.forwarder import KINDS, MOST_TRIES, Forwarder, is_stored
from pneumo_fast.serving.spool import Outcome, Quota, Spool, open_spool
from tests.support.orthanc import free_port
from tests.support.serving import journal, wait_until

Answer = Callable[[str], int | None]
"""Status by UID; None to end the association."""


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder_module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(forwarder_module, "LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(forwarder_module, "IDLE_S", 0.2)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with hushed(), open_spool(tmp_path / "spool", bytes(32), "model", Quota(objects=1000, bytes=1 << 30)) as opened:
        yield opened


def make_results(spool: Spool, *kinds: str) -> list[str]:
    """One instance with results of these SOP classes; their UIDs."""
    spool.accept(generate_uid(), b"1")
    results = []
    for kind in kinds:
        dataset: Any = pydicom.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = kind, generate_uid()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        results.append((str(dataset.SOPInstanceUID), buffer.getvalue()))
    spool.finish([Outcome(number=spool.fresh(1)[0], results=tuple(results))], forward=True)
    return [uid for uid, _ in results]


@contextmanager
def node(port: int, answer: Answer, kinds: tuple[str, ...] = KINDS) -> Iterator[list[str]]:
    """A node that answers as told; gives the UIDs of what it was sent."""
    came: list[str] = []

    def store(event: Any) -> int:
        came.append(str(event.request.AffectedSOPInstanceUID))
        status = answer(came[-1])
        if status is None:
            event.assoc.abort()
        return status or 0

    entity = AE("PACS")
    for kind in kinds:
        entity.add_supported_context(kind)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        yield came
    finally:
        entity.shutdown()


@contextmanager
def forwarding(spool: Spool, port: int) -> Iterator[Forwarder]:
    forwarder = Forwarder(spool, Node("PACS", "127.0.0.1", port), "PNEUMOFAST", 5.0)
    forwarder.start()
    try:
        yield forwarder
    finally:
        forwarder.stop()
    assert not forwarder.is_alive()


def states(tmp_path: Path) -> list[tuple[Any, ...]]:
    return journal(tmp_path / "spool", "SELECT state, tries, status FROM results ORDER BY number")


def test_statuses() -> None:
    assert [status for status in (0, 0xB000, 0xB007, 0xA700, 0xA900, 0xC000, 0x0122) if is_stored(status)] == [
        0, 0xB000, 0xB007,
    ]  # fmt: skip


def test_they_go_in_order_by_one_association(spool: Spool, tmp_path: Path) -> None:
    uids = make_results(spool, *KINDS) + make_results(spool, *KINDS)
    with node(port := free_port(), lambda _uid: 0xB000) as came, forwarding(spool, port):
        wait_until(lambda: spool.counts().results_sent == 4)
        uids += make_results(spool, *KINDS)
        wait_until(lambda: spool.counts().results_sent == 6)
    assert came == uids
    assert states(tmp_path) == [("sent", 1, 0xB000)] * 6


def test_one_that_is_refused_holds_up_no_other(spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad, *good = make_results(spool, *KINDS) + make_results(spool, *KINDS)
    with node(port := free_port(), lambda uid: 0xA900 if uid == bad else 0) as came, forwarding(spool, port):
        wait_until(lambda: spool.counts().results_sent == 3)
        wait_until(lambda: spool.counts().set_aside == 1)
    assert [uid for uid in came if uid != bad] == good
    assert came.count(bad) == MOST_TRIES
    assert states(tmp_path)[0] == ("set aside", MOST_TRIES, 0xA900)
    assert "refuses result 1 (0xa900): it is set aside until the next start" in caplog.text


def test_a_node_that_takes_one_kind_alone(spool: Spool, tmp_path: Path) -> None:
    make_results(spool, EnhancedSRStorage, SecondaryCaptureImageStorage)
    with node(port := free_port(), lambda _uid: 0, (SecondaryCaptureImageStorage,)), forwarding(spool, port):
        wait_until(lambda: spool.counts().results_sent == spool.counts().set_aside == 1)
    assert states(tmp_path) == [("set aside", MOST_TRIES, 0x0122), ("sent", 1, 0)]


def test_results_wait_for_a_node_that_is_not_there(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_results(spool, *KINDS)
    with forwarding(spool, port := free_port()):
        wait_until(lambda: "results wait, the next try is in" in caplog.text)
        assert states(tmp_path) == [("waiting", 0, None)] * 2
        with node(port, lambda _uid: 0):
            wait_until(lambda: spool.counts().results_sent == 2)


def test_a_node_without_room_is_not_the_fault_of_a_result(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_results(spool, *KINDS)
    full = [True]
    with node(port := free_port(), lambda _uid: 0xA700 if full[0] else 0) as came, forwarding(spool, port):
        wait_until(lambda: len(came) > MOST_TRIES)
        assert states(tmp_path) == [("waiting", 0, None)] * 2
        full.clear()
        full.append(False)
        wait_until(lambda: spool.counts().results_sent == 2)
    assert "has no room (0xa700)" in caplog.text


def test_one_without_an_answer_holds_up_no_other(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that ends the association at one result: tries count where it answers another one afterwards."""
    bad, *good = make_results(spool, *KINDS) + make_results(spool, *KINDS)
    with node(port := free_port(), lambda uid: None if uid == bad else 0) as came, forwarding(spool, port):
        wait_until(lambda: spool.counts().results_sent == 3)
        assert [uid for uid in came if uid != bad] == good
        wait_until(lambda: came.count(bad) > MOST_TRIES + 1)
        assert spool.counts().set_aside == 0
        while not spool.counts().set_aside:
            make_results(spool, *KINDS)
            wait_until(lambda: spool.counts().results_sent == spool.counts().results - 1)
    assert states(tmp_path)[0] == ("set aside", MOST_TRIES, None)
    assert "refuses result 1 (no answer, while it answers others): it is set aside" in caplog.text


def test_a_node_that_answers_nothing_gets_everything_later(spool: Spool, tmp_path: Path) -> None:
    make_results(spool, *KINDS)
    broken = [True]
    with node(port := free_port(), lambda _uid: None if broken else 0) as came, forwarding(spool, port):
        wait_until(lambda: len(came) > 2 * MOST_TRIES)
        assert states(tmp_path) == [("waiting", 0, None)] * 2
        assert len(set(came)) == 2
        broken.clear()
        wait_until(lambda: spool.counts().results_sent == 2)


def test_a_damaged_spool_ends_it(spool: Spool) -> None:
    with spool.base.transaction() as base:
        base.execute("INSERT INTO results VALUES (1, 1, 'uid', 'waiting', 0, 0, 0, 0, 0)")
    with forwarding(spool, 1) as forwarder:
        wait_until(lambda: forwarder.fault)
    assert "is damaged (a row is missing): move it away" in str(forwarder.fault)
