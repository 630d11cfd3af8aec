"""A server's instances are scored as files are, results go back once, and nothing that was retrieved stays."""

from __future__ import annotations

import io
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pydicom
import pytest

from pneumo_fast.errors import ConfigError, PacsError, PredictError
from pneumo_fast.pacs import session
from pneumo_fast.prediction.folder import INSTANCES, RETRIEVED, WORK
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.prediction.predict import predict
from tests.support.dicomweb_stub import Answer, Archive, Asked, as_json, stub_server
from tests.support.orthanc import PASSWORD, USER, running_orthanc

pytestmark = pytest.mark.usefixtures("shared_worker")
Options = Callable[..., PredictConfig]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(session, "WAITS_S", (0.0,))


@pytest.fixture
def remote(options: Options, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Options that score what a server has by the first run."""
    monkeypatch.setenv("PNEUMO_FAST_DICOMWEB_USER", USER)
    monkeypatch.setenv("PNEUMO_FAST_DICOMWEB_PASSWORD", PASSWORD)

    def make(url: str, **values: Any) -> PredictConfig:
        fixed = {"inputs": options().runs, "dicomweb": url, "query": ("Modality=CR",), "batch_size": 1}
        return options(**fixed | values)

    return make


@pytest.fixture
def archive(some: Path) -> Archive:
    return Archive(sorted(some.iterdir()))


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)


def by_uid(found: pd.DataFrame, files: list[Path]) -> pd.DataFrame:
    """A table of files as it is of instances: with their UIDs as ids, and in the order of those."""
    known = {path.stem: pydicom.dcmread(path, stop_before_pixels=True) for path in files}
    order = sorted(known, key=lambda name: (known[name].StudyInstanceUID, known[name].SeriesInstanceUID))
    found = found.set_index("image_id").loc[order].reset_index()
    return found.assign(image_id=[known[name].SOPInstanceUID for name in order])


def nothing_stays(out: Path) -> bool:
    return not list(out.rglob(RETRIEVED)) and not list(out.rglob("*.dcm"))


@pytest.mark.parametrize("sample", ["phantoms", "rsna_sample", "rsna16"])
def test_instances_are_scored_as_files_are(
    sample: str, remote: Options, some: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    real = sample != "phantoms"
    folder = request.getfixturevalue("shared_data") / sample / "stage_2_train_images" if real else some
    files = sorted(folder.iterdir())[:20]
    with running_orthanc(tmp_path / "pacs") as pacs:
        pacs.store(*files)
        predict(config := remote(pacs.dicomweb))
    inputs = (*config.runs, *files)
    predict(replace(config, dicomweb=None, query=(), inputs=inputs, out=tmp_path / "local"))

    found, expected = table(tmp_path / "out"), by_uid(table(tmp_path / "local"), files)
    assert len(found) == len(files)
    assert set(found["reject"]) == {""}
    pd.testing.assert_frame_equal(found.drop(columns="path"), expected.drop(columns="path"))
    assert found["path"].str.fullmatch(r"[\d.]+/[\d.]+/[\d.]+\.dcm").all()
    assert nothing_stays(tmp_path / "out")


def test_results_are_stored_once(remote: Options, some: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = sorted(some.iterdir())[:3]
    with running_orthanc(tmp_path / "pacs") as pacs:
        pacs.store(*files)
        before = set(pacs.get("/instances"))
        first = predict(remote(pacs.dicomweb, store=True, dicom_out=tmp_path / "results"))
        made = {instance: pacs.file(instance) for instance in set(pacs.get("/instances")) - before}
        everything = ("PatientID=SYNTH*",)
        again = predict(remote(pacs.dicomweb, store=True, query=everything, out=tmp_path / "again"))
        assert set(pacs.get("/instances")) == before | made.keys()

    assert first.counts.results == {"written": 3, "stored": 3}
    assert sorted(made.values()) == sorted(path.read_bytes() for path in (tmp_path / "results").iterdir())
    studies = {pydicom.dcmread(path).StudyInstanceUID for path in files}
    assert {pydicom.dcmread(io.BytesIO(data)).StudyInstanceUID for data in made.values()} == studies
    assert again.counts.results == {"stored": 3}
    assert again.counts.rejects == {"own_result": 6}
    assert again.counts.faults == 0
    assert "SENT to 127.0.0.1" in caplog.text
    assert "PATIENTS" in caplog.text
    assert nothing_stays(tmp_path / "again")


def test_what_does_not_come_is_rejected(remote: Options, archive: Archive, tmp_path: Path) -> None:
    uids = sorted(archive.files)
    half = archive.files[uids[1]]

    def answer(asked: Asked) -> Answer:
        name = asked.path.rpartition("/")[2]
        if name == uids[0]:
            return Answer(status=404)
        if name == uids[1]:
            return Answer(content_type="multipart/related; boundary=x", body=b"--x\r\n\r\n" + half[: len(half) // 2])
        if name == uids[2]:
            return Answer(status=500)
        return archive(asked)

    with stub_server(answer) as stub:
        predict(remote(stub.url))
        with pytest.raises(PredictError, match=r"3 of the first \d+ files were rejected, 2 are allowed"):
            predict(remote(stub.url, out=tmp_path / "strict", max_rejects=2))
    found = table(tmp_path / "out").set_index("image_id")
    assert list(found.loc[uids[:3], "reject"]) == ["not_retrieved"] * 3
    assert found.loc[uids[0], "detail"] == "HTTP status 404"
    assert set(found.loc[uids[3:], "reject"]) == {""}
    assert nothing_stays(tmp_path / "strict")


@pytest.mark.parametrize("status", [401, 503])
def test_a_server_that_goes_is_gone_on_with(status: int, remote: Options, archive: Archive, tmp_path: Path) -> None:
    fails = gone = False
    late = sorted(match["0020000D"] for match in archive.matches)[16:]

    def answer(asked: Asked) -> Answer:
        nonlocal gone
        gone |= fails and any(study in asked.path for study in late)
        return Answer(status=status) if gone else archive(asked)

    with stub_server(answer) as stub:
        predict(remote(stub.url, out=tmp_path / "whole"))
        fails = True
        with pytest.raises(PacsError, match=f"HTTP status {status}"):
            predict(remote(stub.url))
        assert (tmp_path / "out" / WORK).exists()
        assert nothing_stays(tmp_path / "out")
        fails = gone = False
        asked = len(stub.asked)
        assert predict(remote(stub.url, resume=True)).now == 4
        assert sum("/instances/" in one.path for one in stub.asked[asked:]) == 4
    for name in ("predictions.csv", "predictions.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_it_is_resumed_with_the_same_instances(remote: Options, archive: Archive, tmp_path: Path) -> None:
    """Whatever the server has by now."""
    first = archive.matches.pop(0)  # the first of the table as well, were it asked again
    archive.files[archive.matches[0]["00080018"]] = b"no DICOM"
    kept = tmp_path / "out" / WORK / INSTANCES
    with stub_server(archive) as stub:
        with pytest.raises(PredictError, match="were rejected, 0 are allowed"):
            predict(remote(stub.url, max_rejects=0))
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        archive.matches.insert(0, first)
        with pytest.raises(PredictError, match="what differs: the files, the query or the hash key"):
            predict(remote(stub.url, query=("Modality=DX",), resume=True))
        asked = len(stub.asked)
        assert predict(remote(stub.url, resume=True)).counts.files == 19
        assert {one.path.rpartition("/")[0].endswith("/instances") for one in stub.asked[asked:]} == {True}
    assert not kept.exists()


def test_a_damaged_list_of_instances_is_told(remote: Options, archive: Archive, tmp_path: Path) -> None:
    archive.files[archive.matches[0]["00080018"]] = b"no DICOM"
    kept = tmp_path / "out" / WORK / INSTANCES
    with stub_server(archive) as stub:
        with pytest.raises(PredictError, match="were rejected"):
            predict(remote(stub.url, max_rejects=0))
        whole = kept.read_text()
        kept.write_text(whole[:99])
        with pytest.raises(PredictError, match=r"instances.json cannot be read .*: give --overwrite to begin again"):
            predict(remote(stub.url, resume=True))
        kept.write_text(whole.replace(archive.matches[-1]["00080018"], "../../x"))
        with pytest.raises(PredictError, match="what differs: the files"):
            predict(remote(stub.url, resume=True))


def test_what_decides_the_rows_is_kept_without_names(remote: Options, archive: Archive, tmp_path: Path) -> None:
    archive.files[archive.matches[0]["00080018"]] = b"no DICOM"
    named = {"query": ("PatientName=zxqname",), "dicom_out": tmp_path / "zxqresults"}
    with stub_server(archive) as stub:
        with pytest.raises(PredictError, match="were rejected"):
            predict(remote(stub.url, max_rejects=0, **named))
        kept = (tmp_path / "out" / WORK / "arguments.json").read_text()
        assert [word for word in ("zxq", stub.url, "127.0.0.1", PASSWORD, USER) if word in kept] == []
        with pytest.raises(PredictError, match=r"what differs: dicom-out\."):
            predict(remote(stub.url, resume=True, **named | {"dicom_out": tmp_path / "other"}))
        predict(remote(stub.url, resume=True, **named))


def test_files_lie_where_nobody_else_looks_while_they_are_read(
    remote: Options, archive: Archive, tmp_path: Path
) -> None:
    folder, modes, most = tmp_path / "out" / WORK / RETRIEVED, set(), 0

    def answer(asked: Asked) -> Answer:
        nonlocal most
        if "/instances/" in asked.path:
            modes.add(stat.S_IMODE(folder.stat().st_mode))
            most = max(most, len(list(folder.rglob("*.dcm"))))
        return archive(asked)

    folder.mkdir(parents=True)
    (folder / "left.dcm").write_text("by a process that was killed")
    with stub_server(answer) as stub:
        predict(remote(stub.url, resume=True))
    assert modes == {0o700}
    assert 0 < most < 20
    assert nothing_stays(tmp_path / "out")


def test_other_modalities_are_not_retrieved(remote: Options, archive: Archive) -> None:
    for match in archive.matches[:5]:
        match["00080060"] = "CT"
    with stub_server(archive) as stub:
        summary = predict(remote(stub.url))
        assert summary.counts.rejects == {"other_modality": 5}
        assert summary.counts.faults == 0
        assert sum("/instances/" in path for path in stub.paths()) == 15


@pytest.mark.parametrize(("match", "tag"), [("AccessionNumber", "00080050"), ("StudyInstanceUID", "0020000D")])
def test_ids_are_what_the_server_says(match: str, tag: str, remote: Options, archive: Archive, tmp_path: Path) -> None:
    del archive.matches[3:]
    for number, known in enumerate(archive.matches):
        known["00080050"] = f"A{number}"
    with stub_server(archive) as stub:
        predict(remote(stub.url, match=match))
        predict(remote(stub.url, match=match, keep_ids=False, out=tmp_path / "hidden"))
    ids = {known[tag] for known in archive.matches}
    assert set(table(tmp_path / "out")["image_id"]) == ids
    hidden = table(tmp_path / "hidden")
    assert hidden["image_id"].str.fullmatch("[0-9a-f]{16}").all()
    assert hidden["path"].str.fullmatch("[0-9a-f]{16}").all()


@pytest.mark.parametrize(
    ("status", "body", "told"), [(409, b"{}", "not_stored"), (202, b"no JSON", "not_stored"), (200, b"", "stored")]
)
def test_results_that_the_server_does_not_take_are_told(
    status: int, body: bytes, told: str, remote: Options, archive: Archive, tmp_path: Path
) -> None:
    del archive.matches[2:]

    def answer(asked: Asked) -> Answer:
        return Answer(status=status, body=body) if asked.method == "POST" else archive(asked)

    with stub_server(answer) as stub:
        summary = predict(remote(stub.url, store=True))
    assert [words.split()[0] for words in table(tmp_path / "out")["dicom"]] == [told] * 2
    assert ("did not take the results of 2 images" in " ".join(summary.notes)) == (told == "not_stored")


def test_nothing_matches(remote: Options, tmp_path: Path) -> None:
    with (
        stub_server(lambda _asked: as_json([])) as stub,
        pytest.raises(PredictError, match=r"no instance on 127.0.0.1:\d+ matches the query"),
    ):
        predict(remote(stub.url))
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named_with_its_command(remote: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pneumo_fast.pacs.dicomweb", None)
    with pytest.raises(PacsError, match="--dicomweb needs dicomweb-client, which is not installed: pip install dicomw"):
        predict(remote("http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"dicomweb": "http://127.0.0.1:1"}, "exclude each other"),
        ({"query": ("Modality=CR",)}, "query is for a server: name one with --dicomweb"),
        ({"store": True}, "store is for a server"),
        ({"credentials": Path("x")}, "credentials is for a server"),
    ],
)
def test_paths_and_a_server_exclude_each_other(values: dict[str, Any], told: str, options: Options) -> None:
    with pytest.raises(ConfigError, match=told):
        options(**values)


def test_a_server_without_a_query_is_refused(remote: Options) -> None:
    with pytest.raises(ConfigError, match="without a query: say what to score"):
        remote("http://127.0.0.1:1", query=())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whoever_is_stopped_while_a_server_keeps_silent_ends_at_once(
    number: signal.Signals, remote: Options, archive: Archive, tmp_path: Path
) -> None:
    silent, reached, served = threading.Event(), threading.Event(), 0

    def answer(asked: Asked) -> Answer:
        nonlocal served
        served += "/instances/" in asked.path
        if served > 12:
            reached.set()
            silent.wait(60)
        return archive(asked)

    with stub_server(answer) as stub:
        config = remote(stub.url)
        words = [*map(str, config.runs), "--dicomweb", stub.url, "--query", "Modality=CR", "--workers", "1"]
        words += ["--out", str(tmp_path / "out"), "--device", "cpu"]
        command = [sys.executable, "-m", "pneumo_fast", "predict", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert reached.wait(60)
        begin = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=20)
        silent.set()
        assert time.monotonic() - begin < 5
        assert nothing_stays(tmp_path / "out") == (number == signal.SIGTERM)
        assert subprocess.run([*command, "--resume"], check=False, capture_output=True).returncode == 0
    assert len(table(tmp_path / "out")) == 20
    assert nothing_stays(tmp_path / "out")
