"""A real PACS for one test: Orthanc with its own ports, configuration and storage, for this machine alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
AET = "ORTHANC"
USER, PASSWORD = "reader", "secret of the test"  # of a server that lives for one test
START_S = 30.0


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass(frozen=True, kw_only=True)
class Orthanc:
    """A server that runs."""

    port: int
    """For C-STORE and C-ECHO."""
    http_port: int
    process: subprocess.Popen[bytes]

    @property
    def dicomweb(self) -> str:
        """Root of QIDO-RS, WADO-RS and STOW-RS."""
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    @property
    def node(self) -> str:
        """For DIMSE, as ``AET@HOST:PORT``."""
        return f"{AET}@127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        """What its REST interface answers."""
        return json.loads(self._ask(path))

    def file(self, instance: str) -> bytes:
        """A stored instance, by Orthanc's own id."""
        return self._ask(f"/instances/{instance}/file")

    def store(self, *files: Path) -> None:
        """Put files there, by its REST interface."""
        for file in files:
            self._ask("/instances", file.read_bytes())

    def tags(self) -> list[dict[str, Any]]:
        """The main attributes of every instance, by keyword."""
        return [one["MainDicomTags"] for one in self.get("/instances?expand")]

    def _ask(self, path: str, data: bytes | None = None) -> bytes:
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(  # our own address
            f"http://127.0.0.1:{self.http_port}{path}", data, {"Authorization": f"Basic {token}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            content: bytes = answer.read()
            return content


@contextmanager
def running_orthanc(folder: Path, peers: dict[str, int] | None = None) -> Iterator[Orthanc]:
    """Start Orthanc and stop it at the end; skip the test where it is not installed or does not start.

    Parameters
    ----------
    folder : Path
        For its configuration and storage.
    peers : dict, optional
        AE titles that may call it, with the port that each listens on, on this machine.
    """
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None or not PLUGIN.exists():
        pytest.skip("Orthanc and its DICOMweb plugin are not installed")
    port, http_port = free_port(), free_port()
    configuration = {
        "Name": "test", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
        "HttpPort": http_port, "RemoteAccessAllowed": False, "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD}, "DicomPort": port, "DicomAet": AET, "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True, "DicomAlwaysAllowStore": False, "DicomAlwaysAllowEcho": False,
        "DicomModalities": {aet: [aet, "127.0.0.1", number] for aet, number in (peers or {}).items()},
        "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "orthanc.json")], stdout=log, stderr=log, env={**os.environ, "LC_ALL": "C.UTF-8"}
        )
        try:
            server = Orthanc(port=port, http_port=http_port, process=process)
            _wait(server, folder)
            yield server
        finally:
            process.terminate()
            process.wait(20)


def _wait(server: Orthanc, folder: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            server.get("/system")
        except OSError:
            if server.process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return
    pytest.skip(f"Orthanc did not start: {(folder / 'orthanc.log').read_text()[-500:]}")
