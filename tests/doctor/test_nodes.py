"""DICOM nodes that are asked whether they are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pneumo_fast.doctor import machine as machine_module
from pneumo_fast.doctor.machine import Machine
from pneumo_fast.pacs import node as node_module
from tests.pacs.conftest import receiver_of
from tests.support.orthanc import free_port

Run = Callable[..., Any]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A bare machine, found at once."""
    bare = Machine(
        pneumo_fast="", python="", system="", cores=1, memory_bytes=None, free_memory_bytes=None, free_disk_bytes=0,
        cuda=None, device=None, gpus=(), decoders=(), parts=(),
    )  # fmt: skip
    monkeypatch.setattr(machine_module, "examine_machine", lambda: bare)
    return bare


@pytest.mark.usefixtures("machine")
def test_nodes_are_asked(run_cli: Run) -> None:
    silent = f"PACS@127.0.0.1:{free_port()}"
    with receiver_of(allowed=("DOCTOR",)) as receiver:
        node = f"PNEUMOFAST@127.0.0.1:{receiver.port}"
        ended = run_cli("doctor", "--echo", node, "--aet", "DOCTOR")
        assert (ended.code, f"{node}: answers C-ECHO" in ended.out) == (0, True)
        ended = run_cli("doctor", "--echo", node, "--echo", silent, "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["nodes"] == [
        {"node": node, "fault": "it does not know the calling AE title PNEUMOFAST: enter that there"},
        {"node": silent, "fault": "nothing listens there"},
    ]


@pytest.mark.usefixtures("machine")
def test_what_is_no_node_is_wrong_use(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run_cli("doctor", "--echo", "PACS")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: node 'PACS': AET@HOST:PORT expected, as ORTHANC@127.0.0.1:4242\n"
    monkeypatch.setattr(node_module, "find_spec", lambda _name: None)
    ended = run_cli("doctor", "--echo", "PACS@127.0.0.1:1")
    assert (ended.code, ended.out) == (1, "")
    assert "doctor --echo needs pynetdicom, which is not installed: pip install" in ended.err
