"""A DICOMweb server that answers whatever a test wants, on the loopback interface, as long as the block lasts."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pydicom

JSON = "application/dicom+json"
MULTIPART = 'multipart/related; type="application/dicom"; boundary=xyz'


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request."""

    method: str
    path: str
    """From the server's root, without the query."""
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def offset(self) -> int:
        return int(self.query.get("offset", ["0"])[0])


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is answered to it."""

    status: int = 200
    content_type: str = JSON
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    blocks: Iterator[bytes] | None = None
    """In place of a body: sent one by one, until the connection is closed."""


@dataclass(frozen=True, kw_only=True)
class Stub:
    """A server that runs."""

    url: str
    asked: list[Asked]
    """Every request that came, in order."""

    def paths(self) -> list[str]:
        return [one.path for one in self.asked]


def as_json(matches: Sequence[dict[str, str]]) -> Answer:
    """An answer to a query: values by tag."""
    made = [{tag: {"vr": "UI", "Value": [value]} for tag, value in match.items()} for match in matches]
    return Answer(body=json.dumps(made).encode())


def as_part(data: bytes) -> Answer:
    """A file in a multipart message."""
    body = b"--xyz\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--xyz--\r\n"
    return Answer(content_type=MULTIPART, body=body)


def match(study: str, series: str, uid: str, modality: str = "CR") -> dict[str, str]:
    """What is said of an instance."""
    return {"0020000D": study, "0020000E": series, "00080018": uid, "00080060": modality}


@contextmanager
def stub_server(answer: Callable[[Asked], Answer], tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """Run a server that answers every request by a function; where ``tls`` is given, it speaks HTTPS."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            with suppress(OSError):  # who asked has gone
                super().handle_one_request()

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            one = Asked(
                method=self.command, path=parts.path, query=parse_qs(parts.query), headers=dict(self.headers), body=body
            )
            asked.append(one)
            self._send(answer(one))

        do_POST = do_GET  # noqa: N815  # as it is called

        def _send(self, given: Answer) -> None:
            self.send_response(given.status)
            self.send_header("Content-Type", given.content_type)
            for name, value in given.headers.items():
                self.send_header(name, value)
            if given.blocks is None:
                if "Content-Length" not in given.headers:
                    self.send_header("Content-Length", str(len(given.body)))
                self.end_headers()
                self.wfile.write(given.body)
                self.close_connection = "Content-Length" in given.headers
            else:
                self.close_connection = True
                self.end_headers()
                for block in given.blocks:
                    self.wfile.write(block)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    if tls:  # the handshake is left to the thread of the request, whose errors are suppressed
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Stub(url=f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/web", asked=asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Archive:
    """What a stub answers that has the files of a folder: all of them match every query."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files: dict[str, bytes] = {}
        self.matches: list[dict[str, str]] = []
        for path in files:
            known = pydicom.dcmread(path, stop_before_pixels=True)
            self.matches.append(
                match(known.StudyInstanceUID, known.SeriesInstanceUID, known.SOPInstanceUID, known.get("Modality", ""))
            )
            self.files[known.SOPInstanceUID] = path.read_bytes()

    def __call__(self, asked: Asked) -> Answer:
        if asked.method == "POST":
            return Answer(body=b"{}")
        if "/instances/" in asked.path:
            return as_part(self.files[asked.path.rpartition("/")[2]])
        if asked.path.endswith("/instances"):
            return as_json(self.matches[asked.offset :])
        return as_json([])
