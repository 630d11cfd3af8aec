"""What is asked of a DICOMweb server and what is made of its answers, whatever these are."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from pneumo_fast.errors import PacsError, RejectedImageError
from pneumo_fast.pacs import search, session
from pneumo_fast.pacs.credentials import Credentials
from pneumo_fast.pacs.dicomweb import DicomWeb, connected, only_part
from pneumo_fast.pacs.search import Instance
from tests.support.dicomweb_stub import Answer, Asked, as_json, as_part, match, stub_server
from tests.support.orthanc import PASSWORD, USER, running_orthanc

FILE = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
ONE = Instance(study="1.2", series="1.2.3", uid="1.2.3.4", modality="CR", accession="", is_result=False)
QUERY = {"PatientName": "Zxqsecret"}
MOST = 1 << 20


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(session, "WAITS_S", (0.0, 0.01))


@contextmanager
def server(
    answer: Callable[[Asked], Answer], timeout_s: float = 5.0, **known: Any
) -> Iterator[tuple[DicomWeb, list[Asked]]]:
    with stub_server(answer) as stub, connected(stub.url, Credentials(**known), timeout_s) as found:
        yield found, stub.asked


def answering_in_turn(*answers: Answer) -> Callable[[Asked], Answer]:
    left = iter(answers)
    return lambda _asked: next(left)


def uids(found: Sequence[Instance]) -> list[str]:
    return [one.uid for one in found]


def numbered(numbers: range) -> list[dict[str, str]]:
    return [match("1.2", "1.2.3", f"1.2.3.{number}") for number in numbers]


def test_matches_come_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PAGE", 4)
    matches = numbered(range(10))
    with server(lambda asked: as_json(matches[asked.offset :][:4])) as (pacs, asked):
        found = pacs.search(QUERY)
    assert sorted(uids(found)) == sorted(one["00080018"] for one in matches)
    assert [one.offset for one in asked] == [0, 4, 8, 10]
    assert {one.path for one in asked} == {"/web/instances"}
    assert asked[0].query["PatientName"] == ["Zxqsecret"]


@pytest.mark.parametrize("count", [3, 9])
def test_a_server_without_pages_is_asked_twice(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PAGE", 4)
    with server(lambda _asked: as_json(numbered(range(count)))) as (pacs, asked):
        assert len(pacs.search(QUERY)) == count
    assert len(asked) == 2


def test_a_page_that_comes_again_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PAGE", 4)
    with (
        server(lambda _asked: as_json(numbered(range(4)))) as (pacs, _),
        pytest.raises(PacsError, match="gives its first 4 matches again"),
    ):
        pacs.search(QUERY)


def test_matches_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_INSTANCES", 100)
    endless = itertools.count()
    with (
        server(lambda _asked: as_json(numbered(range(n := 10 * next(endless), n + 10)))) as (pacs, asked),
        pytest.raises(PacsError, match="more than 100 matches: narrow the query"),
    ):
        pacs.search(QUERY)
    assert len(asked) == 11


def test_a_server_that_searches_in_series_alone_is_asked_downwards() -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path == "/web/instances":
            return Answer(status=400)
        known = match("1.2", "1.2.3", "1.2.3.4", "DX")
        tags = {"studies": ["0020000D"], "series": ["0020000E", "00080060"], "instances": ["00080018"]}
        return as_json([{tag: known[tag] for tag in tags[asked.path.rpartition("/")[2]]}])

    with server(answer) as (pacs, asked):
        found = pacs.search({"PatientID": "a", "Modality": "DX", "InstanceNumber": "1"})
    assert found == [Instance(study="1.2", series="1.2.3", uid="1.2.3.4", modality="DX", accession="", is_result=False)]
    at = {one.path: one.query.keys() & {"PatientID", "Modality", "InstanceNumber"} for one in asked[1:]}
    assert at == {
        "/web/studies": {"PatientID"},
        "/web/studies/1.2/series": {"Modality"},
        "/web/studies/1.2/series/1.2.3/instances": {"InstanceNumber"},
    }


@pytest.mark.parametrize(
    "uid", ["../../x", "..", "1..2", "/etc/passwd", "1.2\n", "", "1" * 65, "1.2/../3", "zxqsecret", "\u0661.\u0662"]
)
@pytest.mark.parametrize("tag", ["0020000D", "0020000E", "00080018"])
def test_a_uid_that_is_none_becomes_no_path(tag: str, uid: str) -> None:
    with (
        server(lambda _asked: as_json([match("1.2", "1.2.3", "1.2.3.4") | {tag: uid}])) as (pacs, _),
        pytest.raises(PacsError, match="a UID that is none") as error,
    ):
        pacs.search(QUERY)
    assert "zxqsecret" not in str(error.value)


@pytest.mark.parametrize(
    "body",
    [b"{", b"zxqsecret", b"[1]", b'["zxqsecret"]', b"5", b"[" * 100_000, b"\xff\xfe", b'{"00080018": 5}', b"[{}]",
     b'[{"00080018": {"Value": {}}}]', b'[{"00080018": {"Value": [["1.2"]]}}]'],
)  # fmt: skip
def test_what_is_no_dicom_json_is_told(body: bytes) -> None:
    with (
        server(lambda _asked: Answer(body=body)) as (pacs, _),
        pytest.raises(PacsError, match=r"what is no DICOM JSON|a UID that is none") as error,
    ):
        pacs.search(QUERY)
    assert "zxqsecret" not in str(error.value).lower()


def test_nothing_matches() -> None:
    with server(answering_in_turn(Answer(status=204), Answer(body=b"[]"))) as (pacs, _):
        assert pacs.search(QUERY) == []
        assert pacs.search(QUERY) == []


@pytest.mark.parametrize(
    ("status", "told"),
    [(401, "refuses us"), (403, "refuses us"), (302, "redirects to another"), (404, "refuses the query"),
     (413, "refuses the query"), (500, "no answer in 3 attempts"), (503, "no answer in 3 attempts"),
     (501, "refuses the query")],
)  # fmt: skip
def test_a_server_that_says_no_is_one_line(status: int, told: str) -> None:
    refusal = Answer(status=status, body=b"zxqsecret", headers={"Location": "http://127.0.0.1:1/zxqsecret"})
    with (
        server(lambda _asked: refusal) as (pacs, asked),
        pytest.raises(PacsError, match=rf"^127.0.0.1:\d+ .*{told}.*") as error,
    ):
        pacs.search(QUERY)
    assert f"HTTP status {status}" in str(error.value)
    assert "\n" not in str(error.value)
    assert "zxqsecret" not in str(error.value).lower()
    assert {one.path for one in asked} <= {"/web/instances", "/web/studies"}


def test_what_fails_is_tried_again() -> None:
    with server(answering_in_turn(Answer(status=503), Answer(status=429), as_part(FILE))) as (pacs, asked):
        assert pacs.retrieve(ONE, MOST) == FILE
    assert len(asked) == 3


def test_nobody_is_there() -> None:
    with (
        connected("http://127.0.0.1:1/web", Credentials(), 1.0) as pacs,
        pytest.raises(PacsError, match=r"127.0.0.1:1 gave no answer in 3 attempts \(Connection refused\)"),
    ):
        pacs.search(QUERY)


def test_an_instance_is_asked_for_as_it_is_stored() -> None:
    with server(lambda _asked: as_part(FILE)) as (pacs, asked):
        assert pacs.retrieve(ONE, MOST) == FILE
    assert asked[0].path == "/web/studies/1.2/series/1.2.3/instances/1.2.3.4"
    assert asked[0].headers["Accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'


CUT = as_part(FILE)
SEVERAL = CUT.body[: -len(b"--xyz--\r\n")] + CUT.body


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(status=404), "HTTP status 404"),
        (Answer(status=410), "HTTP status 410"),
        (Answer(status=406), "HTTP status 406"),
        (Answer(content_type=CUT.content_type, body=CUT.body[: len(FILE) // 2]), "cut off"),
        (Answer(content_type=CUT.content_type, body=CUT.body[:-6]), "cut off"),
        (Answer(content_type=CUT.content_type, body=CUT.body[:20]), "cut off"),
        (Answer(content_type=CUT.content_type, body=b"--xyz--\r\n"), "cut off"),
        (Answer(content_type=CUT.content_type, body=b""), "cut off"),
        (Answer(content_type=CUT.content_type, body=SEVERAL), "several parts"),
        (as_part(b"zxqsecret" * 100), "no DICOM file"),
        (as_part(b""), "no DICOM file"),
        (Answer(content_type="text/html", body=b"zxqsecret"), "no multipart message"),
        (Answer(content_type="multipart/related", body=CUT.body), "no multipart message"),
        (Answer(content_type="application/dicom", body=b"zxqsecret"), "no DICOM file"),
        (Answer(status=500), "gives no answer"),
        (Answer(content_type=CUT.content_type, body=CUT.body[:-200], headers={"Content-Length": str(len(CUT.body))}),
         "gives no answer"),
        (as_part(b"0" * (MOST + 1)), "gives no answer, or too long a one"),
    ],
)  # fmt: skip
def test_an_instance_that_does_not_come_is_rejected(answer: Answer, told: str) -> None:
    with (
        server(lambda asked: answer if "/instances/" in asked.path else as_json([])) as (pacs, _),
        pytest.raises(RejectedImageError, match=told) as error,
    ):
        pacs.retrieve(ONE, MOST)
    assert error.value.reason == "not_retrieved"
    assert "zxqsecret" not in error.value.detail


def test_a_file_without_a_multipart_message_is_taken() -> None:
    assert only_part(FILE, "application/dicom; transfer-syntax=1.2.840.10008.1.2.1") == FILE
    assert only_part(CUT.body.replace(b"xyz", b"a b"), 'Multipart/Related; boundary="a b"; type=x') == FILE
    assert only_part(b"preamble\r\n" + CUT.body + b"epilogue", CUT.content_type) == FILE


@pytest.mark.parametrize(
    ("answer", "told"),
    [(Answer(status=401), "refuses us"), (Answer(status=403), "refuses us"), (Answer(status=503), "no answer")],
)
def test_a_server_that_has_gone_is_no_rejection(answer: Answer, told: str) -> None:
    with server(lambda _asked: answer) as (pacs, _), pytest.raises(PacsError, match=told):
        pacs.retrieve(ONE, MOST)


def test_an_answer_without_end_is_cut_off() -> None:
    sent = 0

    def blocks() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield bytes(1 << 16)

    def answer(asked: Asked) -> Answer:
        return Answer(content_type=CUT.content_type, blocks=blocks()) if "/instances/" in asked.path else as_json([])

    with server(answer) as (pacs, _), pytest.raises(RejectedImageError, match="too long a one"):
        pacs.retrieve(ONE, MOST)
    assert sent < 32 * MOST  # what the sockets hold besides


@pytest.mark.parametrize("pause_s", [3.0, 0.05])
def test_a_slow_answer_is_given_up(pause_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says nothing, and one that says a byte now and then."""
    monkeypatch.setattr(session, "WAITS_S", ())

    def blocks() -> Iterator[bytes]:
        while True:
            time.sleep(pause_s)
            yield b" "

    begin = time.monotonic()
    with (
        server(lambda _asked: Answer(blocks=blocks()), timeout_s=0.1) as (pacs, _),
        pytest.raises(PacsError, match="no answer within the time limit"),
    ):
        pacs.search(QUERY)
    assert time.monotonic() - begin < 2.5


@pytest.mark.parametrize(
    ("known", "sent"),
    [
        ({"user": "ä", "password": "ü"}, "Basic " + base64.b64encode("ä:ü".encode()).decode()),
        ({"token": "abc"}, "Bearer abc"),
        ({}, None),
    ],
)
def test_credentials_are_sent(known: dict[str, Any], sent: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with server(lambda _asked: as_json([]), **known) as (pacs, asked):
        pacs.search(QUERY)
    assert [one.headers.get("Authorization") for one in asked] == [sent]


def test_credentials_do_not_pass_a_network_unencrypted(caplog: pytest.LogCaptureFixture) -> None:
    secret: dict[str, Any] = {"user": "a", "password": "zxqsecret"}
    with (
        pytest.raises(PacsError, match="unencrypted: use an address with https"),
        connected("http://pacs.example/web", Credentials(**secret), 1.0),
    ):
        pass
    with (
        caplog.at_level(logging.WARNING),
        connected("http://pacs.example/web", Credentials(**secret, allow_http=True), 1.0),
    ):
        assert "pacs.example is spoken to by http" in caplog.text
    caplog.clear()
    with connected("https://pacs.example/web", Credentials(**secret), 1.0):
        assert not caplog.text


def test_nothing_of_a_query_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        server(lambda _asked: as_json([match("1.2", "1.2.3", "1.2.3.4")])) as (pacs, _),
    ):
        pacs.search(QUERY)
    assert "Zxqsecret" not in caplog.text


def failing(*reasons: Any) -> bytes:
    items = [{"00081197": {"vr": "US", "Value": [reason]}} for reason in reasons]
    return json.dumps({"00081198": {"vr": "SQ", "Value": items}}).encode()


def warned(count: int) -> bytes:
    """Stored, with a coercion of data elements (Warning Reason B000) told of each."""
    item = {"00081155": {"vr": "UI", "Value": ["1.2"]}, "00081196": {"vr": "US", "Value": [0xB000]}}
    return json.dumps({"00081199": {"vr": "SQ", "Value": [item] * count}}).encode()


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b""), (200, b"{}"), (200, b'{"00081198": {"vr": "SQ"}}'), (200, b"<xml/>"), (409, failing(0x0111)),
     (202, failing(0x0111, 0x0111)), (202, warned(2)), (200, warned(2))],
)  # fmt: skip
def test_what_is_stored_or_was_is_stored(status: int, body: bytes) -> None:
    with server(lambda _asked: Answer(status=status, body=body)) as (pacs, asked):
        pacs.store([b"one", b"two"])
    assert asked[0].path == "/web/studies"
    assert asked[0].body.count(b"Content-Type: application/dicom\r\n\r\n") == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [(409, failing(0x0110)), (202, failing(0x0111, 0x0122)), (200, failing(0xC000)), (409, b"{}"), (409, b"{"),
     (400, b"zxqsecret"), (202, b"[]"), (200, failing("x")), (200, b'{"00081198": {"Value": ["x"]}}'),
     (202, warned(0)), (409, warned(1))],
)  # fmt: skip
def test_what_is_not_stored_is_told(status: int, body: bytes) -> None:
    with (
        server(lambda _asked: Answer(status=status, body=body)) as (pacs, _),
        pytest.raises(RejectedImageError, match=f"not_stored: HTTP status {status}"),
    ):
        pacs.store([b"one"])


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(status=404), r"stores nothing \(HTTP status 404\)"),
        (Answer(status=403), "refuses us"),
        (Answer(status=409, body=failing(0xA700)), "out of space"),
        (Answer(status=503), "no answer in 3 attempts"),
    ],
)
def test_a_server_that_stores_nothing_is_one_line(answer: Answer, told: str) -> None:
    with server(lambda _asked: answer) as (pacs, _), pytest.raises(PacsError, match=told):
        pacs.store([b"one"])


def test_a_real_server_gives_what_was_stored(tmp_path: Path) -> None:
    with running_orthanc(tmp_path / "pacs") as pacs:
        files = [Path(str(get_testdata_file(name))) for name in ("CT_small.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm")]
        pacs.store(*files)
        with connected(pacs.dicomweb, Credentials(user=USER, password=PASSWORD), 20.0) as found:
            instances = found.search({"PatientName": "*"})
            assert sorted(found.retrieve(one, MOST) for one in instances) == sorted(path.read_bytes() for path in files)
            assert uids(found.search({"Modality": "CT"})) == uids(found.search({"ModalitiesInStudy": "CT"})) != []
            found.store([files[0].read_bytes()])
            assert len(pacs.tags()) == 3
            with pytest.raises(RejectedImageError, match="HTTP status 404"):
                found.retrieve(ONE, MOST)
            with pytest.raises(RejectedImageError, match="HTTP status 400"):
                found.store([b"no DICOM"])
        with (
            connected(pacs.dicomweb, Credentials(user=USER, password=f"no {PASSWORD}"), 20.0) as stranger,
            pytest.raises(PacsError, match=r"refuses us \(HTTP status 401\)"),
        ):
            stranger.search({"Modality": "CT"})
