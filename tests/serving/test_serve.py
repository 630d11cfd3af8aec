"""From C-STORE to results in a PACS."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import EnhancedSRStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from pneumo_fast.cli.results import show_serving
from pneumo_fast.configuration import arguments_of
from pneumo_fast.errors import ConvertError, DeviceError, PacsError, PredictError
from pneumo_fast.pacs.node import OUR_AET, Node, echo
from pneumo_fast.phantoms.dicom_file import write_dicom
from pneumo_fast.prediction.overlays import Overlays
from pneumo_fast.prediction.scoring import Scoring
from pneumo_fast.serving import scorer as scorer_module
from pneumo_fast.serving import serve as serve_module
from pneumo_fast.serving.database import Database, SpoolFullError
from pneumo_fast.serving.options import ServeConfig
from pneumo_fast.serving.scorer import Scorer
from pneumo_fast.serving.spool import FILE, Counts
from pneumo_fast.signals import StopRequest
from tests.support.orthanc import Orthanc, free_port, running_orthanc
from tests.support.serving import SENDER, Server, copies, journal, served, store, wait_until

Options = Callable[..., ServeConfig]
Pair = tuple[Server, Orthanc]


@pytest.fixture(scope="module")
def pair(make_options: Options, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A server, and the Orthanc that it forwards to."""
    folder = tmp_path_factory.mktemp("server")
    with ExitStack() as stack:
        pacs = stack.enter_context(running_orthanc(folder / "pacs", peers={OUR_AET: free_port()}))
        options = make_options(folder, forward=pacs.node, dicom_out=folder / "results")
        yield stack.enter_context(served(options)), pacs


def done(server: Server, count: int) -> Callable[[], bool]:
    query = "SELECT count(*) FROM instances WHERE state IN ('scored', 'rejected')"
    return lambda: journal(server.config.spool, query) == [(count,)]


def states(config: ServeConfig) -> list[tuple[Any, ...]]:
    return journal(config.spool, "SELECT state, reason FROM instances ORDER BY number")


def test_results_are_in_the_pacs_beside_their_source(pair: Pair, phantom: Path, tmp_path: Path) -> None:
    server, pacs = pair
    source, *_ = copies(phantom, 1)
    assert store(server.port, source, source) == [0, 0]
    if program := shutil.which("storescu"):
        path = tmp_path / "again.dcm"
        source.save_as(path)
        command = [program, "-xy", "-aet", SENDER, "-aec", OUR_AET, "127.0.0.1", str(server.port), str(path)]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    wait_until(lambda: len(pacs.get("/instances")) == 2)

    made = {dataset.SOPClassUID: dataset for dataset in stored(pacs)}
    assert set(made) == {SecondaryCaptureImageStorage, EnhancedSRStorage}
    for dataset in made.values():
        assert (dataset.StudyInstanceUID, dataset.PatientID) == (source.StudyInstanceUID, source.PatientID)
        assert dataset.SOPInstanceUID.startswith("2.25.")
    (reference,) = made[SecondaryCaptureImageStorage].SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    written = {path.stem for path in server.config.dicom_out.iterdir()} if server.config.dicom_out else set()
    assert written == {dataset.SOPInstanceUID for dataset in made.values()}
    (probability,) = journal(server.config.spool, "SELECT probability FROM instances WHERE state = 'scored'")
    assert 0 < probability[0] < 1
    assert not list((server.config.spool / scorer_module.WORK).iterdir())


def stored(pacs: Orthanc) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(io.BytesIO(pacs.file(instance))) for instance in pacs.get("/instances")]


def test_what_cannot_be_scored_is_journalled(pair: Pair, phantom: Path, tmp_path: Path) -> None:
    server, _ = pair
    before = len(states(server.config))
    broken, lateral, small = (copies(phantom, 5 + number)[-1] for number in range(3))
    broken.PixelData = broken.PixelData[:20]
    lateral.ViewPosition = "LL"
    write_dicom(tmp_path / "small.dcm", np.zeros((8, 8), np.uint8), transfer_syntax=ExplicitVRLittleEndian)
    small = pydicom.dcmread(tmp_path / "small.dcm")
    assert store(server.port, broken, lateral, small) == [0, 0, 0]
    wait_until(done(server, before + 3))
    found = states(server.config)[before:]
    assert {state for state, _ in found} == {"rejected"}
    assert {reason for _, reason in found} == {"corrupt", "other_view", "bad_size"}


def test_it_answers_echo(pair: Pair) -> None:
    server, _ = pair
    echo(Node(OUR_AET, "127.0.0.1", server.port), SENDER)


def test_nothing_of_a_patient_stays(pair: Pair, phantom: Path) -> None:
    server, _ = pair
    planted, before = copies(phantom, 12)[-1], len(states(server.config))
    planted.PatientName, planted.PatientID, planted.AccessionNumber = "Zxqplanted^Wilhelmine", "9876501234", "19470229"
    assert store(server.port, planted) == [0]
    wait_until(done(server, before + 1))
    marks = (b"zxqplanted", b"wilhelmine", b"9876501234", b"19470229", planted.SOPInstanceUID.encode())

    def is_clean() -> bool:
        files = [path for path in server.config.spool.rglob("*") if path.is_file()]
        assert {FILE, f"{FILE}-wal"} <= {path.name for path in files}
        return not any(mark in path.read_bytes().lower() for path in files for mark in marks)

    wait_until(is_clean, 20)  # once results are sent, and nothing happens


def test_a_second_server_gets_neither_spool_nor_port(pair: Pair, make_options: Options, tmp_path: Path) -> None:
    server, _ = pair
    with pytest.raises(PacsError, match="another process serves this spool"), served(server.config):
        pass
    with pytest.raises(PacsError, match="Address already in use"), served(make_options(tmp_path, port=server.port)):
        pass


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[int, Exception]:
    """What happens when an instance is scored, by its number; empty at first."""
    errors: dict[int, Exception] = {}
    score = Scorer._outcomes

    def outcomes(scorer: Scorer, numbers: list[int], work: Path) -> Iterator[Any]:
        for number in numbers:
            if number in errors:
                raise errors[number]
        return score(scorer, numbers, work)

    monkeypatch.setattr(Scorer, "_outcomes", outcomes)
    monkeypatch.setattr(scorer_module, "PAUSE_S", 0.0)
    monkeypatch.setattr(serve_module, "FULL_S", 0.05)
    return errors


def test_one_that_fails_holds_up_no_other(
    make_options: Options, phantom: Path, tmp_path: Path, failing: dict[int, Exception]
) -> None:
    config, failing[2] = make_options(tmp_path), ConvertError("workers keep dying")
    with served(config) as server:
        assert store(server.port, *copies(phantom, 3)) == [0, 0, 0]
        wait_until(lambda: states(config) == [("scored", None), ("set aside", "ConvertError"), ("scored", None)])
    assert server.ended[0].counts.waiting == server.ended[0].counts.set_aside == 1
    failing.clear()
    with served(config):
        wait_until(lambda: states(config) == [("scored", None)] * 3)


def test_a_run_that_is_moved_is_served_on(make_options: Options, phantom: Path, tmp_path: Path, run: Path) -> None:
    """Its model is in memory."""
    mine = Path(shutil.copytree(run, tmp_path / "run"))
    config = make_options(tmp_path, runs=(mine,))
    with served(config) as server:
        mine.rename(tmp_path / "moved")
        assert store(server.port, *copies(phantom, 1)) == [0]
        wait_until(lambda: states(config) != [("waiting", None)])
        assert states(config) == [("scored", None)]


def test_a_full_disk_is_waited_for(
    make_options: Options, phantom: Path, tmp_path: Path, failing: dict[int, Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    config, failing[1] = make_options(tmp_path, max_waiting=2), SpoolFullError("no room")
    with served(config) as server:
        assert store(server.port, *copies(phantom, 4)) == [0, 0, 0xA700, 0xA700]
        assert caplog.text.count("nothing is accepted") == 1
        failing.clear()
        wait_until(lambda: states(config) == [("scored", None)] * 2)
        assert store(server.port, *copies(phantom, 3)) == [0, 0, 0]
    assert journal(config.spool, "SELECT max(attempts) FROM instances") == [(0,)]


def test_tidying_makes_way_for_what_arrives_and_for_the_end(
    make_options: Options, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, begun = make_options(tmp_path), list[bool]()

    def tidy(_base: Database, interrupted: Callable[[], object] | None = None) -> None:
        if interrupted:
            begun.append(True)
            wait_until(interrupted, 20)

    monkeypatch.setattr(Database, "tidy", tidy)
    with served(config) as server:
        wait_until(lambda: len(begun) == 1, 20)
        assert store(server.port, *copies(phantom, 1)) == [0]
        wait_until(lambda: len(begun) == 2, 20)
    assert states(config) == [("scored", None)]


def test_a_disk_without_room_for_tidying_ends_no_server(
    make_options: Options, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at the start, nor when nothing happens, nor at the end; the space is given back once there is room."""
    config, tried, tidy, full = make_options(tmp_path), list[bool](), Database.tidy, [True]

    def tidy_or_not(base: Database, *arguments: Any) -> None:
        tried.append(bool(full))
        if full:
            with base.reading():
                raise sqlite3.OperationalError("database or disk is full")
        tidy(base, *arguments)

    monkeypatch.setattr(Database, "tidy", tidy_or_not)
    monkeypatch.setattr(serve_module, "FULL_S", 0.05)
    with served(config) as server:
        wait_until(lambda: len(tried) > 1, 20)
        assert store(server.port, *copies(phantom, 1)) == [0]
        wait_until(lambda: states(config) == [("scored", None)], 20)
        full.clear()
        wait_until(lambda: tried.count(False) == 1, 20)
        full.append(True)
    assert server.ended[0].exit_code == 143
    assert tried[-1]


@pytest.mark.parametrize(
    ("number", "left"),
    [(errno.ENOSPC, [("scored", None)] * 2), (errno.EACCES, [("set aside", "PredictError")] * 2)],
)
def test_a_file_that_cannot_be_written_costs_no_instance(
    make_options: Options, phantom: Path, tmp_path: Path, failing: dict[int, Exception],
    monkeypatch: pytest.MonkeyPatch, number: int, left: list[tuple[str, str | None]],
) -> None:  # fmt: skip
    """Of a full disk, when there is room again; where the folder may not be written, at the next start."""
    assert not failing
    config, write, fails = make_options(tmp_path), Path.write_bytes, iter(range(12))

    def write_bytes(path: Path, data: bytes) -> int:
        if path.is_relative_to(config.spool) and (number == errno.EACCES or next(fails, None) is not None):
            raise OSError(number, os.strerror(number), str(path))
        return write(path, data)

    with monkeypatch.context() as patched, served(config) as server:
        patched.setattr(Path, "write_bytes", write_bytes)
        assert store(server.port, *copies(phantom, 2)) == [0, 0]
        wait_until(lambda: states(config) == left)
    assert journal(config.spool, "SELECT max(attempts) FROM instances") == [(0,)]
    with served(config):
        wait_until(lambda: states(config) == [("scored", None)] * 2)


@pytest.mark.parametrize(("column", "reason"), [("reject", "out_of_memory"), ("dicom", "not_readable")])
def test_what_is_no_fault_of_the_file_costs_no_instance(
    make_options: Options, phantom: Path, tmp_path: Path, failing: dict[int, Exception],
    monkeypatch: pytest.MonkeyPatch, column: str, reason: str,
) -> None:  # fmt: skip
    assert not failing
    config, tables_by = make_options(tmp_path), Scoring.tables_by

    def without_memory(*arguments: Any) -> Iterator[tuple[Any, list[dict[str, str]]]]:
        for task, rows in tables_by(*arguments):
            yield task, [row | {column: reason} for row in rows]

    with monkeypatch.context() as patched, served(config) as server:
        patched.setattr(Scoring, "tables_by", without_memory)
        assert store(server.port, *copies(phantom, 2)) == [0, 0]
        wait_until(lambda: states(config) == [("set aside", "PredictError")] * 2)
    with served(config):
        wait_until(lambda: states(config) == [("scored", None)] * 2)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_memory_that_runs_out_while_maps_are_drawn_costs_no_instance(
    make_options: Options, phantom: Path, tmp_path: Path, failing: dict[int, Exception],
    monkeypatch: pytest.MonkeyPatch, error: Exception,
) -> None:  # fmt: skip
    assert not failing
    config, draw = make_options(tmp_path), Overlays.draw

    def without_memory(overlays: Overlays, *arguments: Any) -> bytes:
        if short[0]:
            short[0] -= 1
            raise error
        return draw(overlays, *arguments)

    monkeypatch.setattr(Overlays, "draw", without_memory)
    short = [2]  # once in the batch, once alone
    with served(config) as server:
        assert store(server.port, *copies(phantom, 1)) == [0]
        wait_until(lambda: states(config) == [("scored", None)], 20)
        short[0] = 9
        assert store(server.port, *copies(phantom, 2)) == [0, 0]
        wait_until(lambda: states(config) == [("scored", None), ("set aside", "PredictError")], 20)
    assert journal(config.spool, "SELECT max(attempts) FROM instances") == [(0,)]


def test_a_spool_that_others_may_enter_is_refused(make_options: Options, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o755)
    with (
        pytest.raises(PacsError, match=r"spool is open to other users \(mode 0755\): chmod 700 it, or name a new"),
        served(make_options(tmp_path)),
    ):
        pass


def test_it_stops_between_parts(make_options: Options, phantom: Path, tmp_path: Path) -> None:
    config = make_options(tmp_path)
    with served(config) as server:
        assert store(server.port, *copies(phantom, 40)) == [0] * 40
    (summary,) = server.ended
    assert summary.exit_code == 143
    assert summary.counts.received == 40
    assert summary.counts.waiting > 0
    assert summary.counts.waiting + summary.counts.scored == 40
    assert not (config.spool / scorer_module.WORK).exists()
    assert journal(config.spool, "SELECT max(attempts) FROM instances") == [(0,)]


def test_what_is_missing_is_one_line(make_options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PredictError, match="is a file: name a folder with --dicom-out"):
        serve_module.serve(make_options(tmp_path, dicom_out=tmp_path / "file"), stop=StopRequest())
    with pytest.raises(DeviceError, match="cuda:99"):
        serve_module.serve(make_options(tmp_path, device="cuda:99"), stop=StopRequest())
    monkeypatch.setattr(serve_module, "find_spec", lambda _name: None)
    with pytest.raises(PredictError, match="serve needs highdicom, which is not installed: pip install highdicom"):
        serve_module.serve(make_options(tmp_path), stop=StopRequest())
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])  # noqa: S104
def test_that_others_can_reach_it_is_said(
    make_options: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str, warned: bool
) -> None:
    serve_module._tell_start(make_options(tmp_path, host=host), 1, 0)
    assert ("NEITHER ENCRYPTED NOR AUTHENTICATED" in caplog.text) == warned
    assert "carry the identity of their source's PATIENT" in caplog.text


def test_the_command_ends_by_a_signal(
    run_cli: Callable[..., Any], make_options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_options(tmp_path)
    words = ["serve", *arguments_of(config)]

    score = Scorer.round

    def stop(self: Scorer) -> bool:
        if self._config.spool == config.spool:  # other servers run beside it
            os.kill(os.getpid(), signal.SIGTERM)
        return score(self)

    monkeypatch.setattr(Scorer, "round", stop)
    ended = run_cli(*words)
    assert ended.code == 143
    assert re.search(r"received +0", ended.out)
    assert re.search(r"PNEUMOFAST listens at 127\.0\.0\.1:\d+; 0 instances wait", ended.err)
    ended = run_cli(*words, "--json", "-q")
    summary = json.loads(ended.out)
    assert (ended.code, summary["signal"], summary["counts"]["received"]) == (143, 15, 0)
    assert summary["spool"] == str(config.spool)


def test_what_waits_is_said(make_options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_options(tmp_path)
    counts = Counts(
        received=5, waiting=3, scored=1, rejected={"other_view": 1}, results=2, results_waiting=1, results_sent=1,
        set_aside=0,
    )  # fmt: skip
    show_serving(serve_module.ServeSummary(spool=config.spool, counts=counts, signal=15))
    assert f"3 instances and 1 result wait in {config.spool}" in capsys.readouterr().out
