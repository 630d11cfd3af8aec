"""Nodes elsewhere: how they are written, and what is said of those that do not answer."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from pneumo_fast.errors import ConfigError, PacsError
from pneumo_fast.pacs import node as node_module
from pneumo_fast.pacs.node import Node, Sender, associated, echo, require_pynetdicom
from pneumo_fast.phantoms.dicom_file import write_dicom
from tests.pacs.conftest import Receiver
from tests.support.orthanc import free_port, running_orthanc
from tests.support.serving import SENDER


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("PACS@127.0.0.1:104", Node("PACS", "127.0.0.1", 104)),
        ("MY PACS @pacs.example:4242", Node("MY PACS", "pacs.example", 4242)),
        ("A@[::1]:11112", Node("A", "::1", 11112)),
    ],
)
def test_nodes_are_read(text: str, node: Node) -> None:
    assert Node.parse(text) == node
    assert Node.parse(str(node)) == node


@pytest.mark.parametrize(
    "text",
    ["", "PACS", "PACS@host", "PACS@host:", "PACS@:104", "@host:104", "host:104", "PACS@host:0", "PACS@host:65536",
     "PACS@host:x", "PACS@host:-1", " @host:104", "A_TITLE_THAT_IS_LONG@host:104", "A\\B@host:104", "Ä@host:104"],
)  # fmt: skip
def test_what_is_no_node_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Node.parse(text)


def test_a_node_answers(receiver: Receiver) -> None:
    echo(Node("PNEUMOFAST", "127.0.0.1", receiver.port), SENDER)


def test_refusals_say_what_to_do(receiver: Receiver) -> None:
    with pytest.raises(PacsError, match="it does not know the calling AE title STRANGER: enter that there"):
        echo(Node("PNEUMOFAST", "127.0.0.1", receiver.port), "STRANGER")
    with pytest.raises(PacsError, match="it has another AE title than OTHER: correct what stands before the @"):
        echo(Node("OTHER", "127.0.0.1", receiver.port), SENDER)


def test_a_node_that_takes_nothing_of_the_kind(receiver: Receiver) -> None:
    node = Node("PNEUMOFAST", "127.0.0.1", receiver.port)
    with pytest.raises(PacsError, match="takes no object of these kinds"), associated(node, SENDER, ["1.2.3"], 5.0):
        pass


def test_an_association_that_is_lost_is_told(receiver: Receiver, tmp_path: Path) -> None:
    node = Node("PNEUMOFAST", "127.0.0.1", receiver.port)
    write_dicom(tmp_path / "file.dcm", np.zeros((8, 8), dtype=np.uint8), transfer_syntax=ExplicitVRLittleEndian)
    data = (tmp_path / "file.dcm").read_bytes()
    with associated(node, SENDER, [dcmread(tmp_path / "file.dcm").SOPClassUID], 5.0) as association:
        sender = Sender(node, association, 5.0)
        assert sender.store(data) == 0
        association.abort()
        with pytest.raises(PacsError, match=r"PNEUMOFAST@127.0.0.1:\d+: the association was lost"):
            sender.store(data)


def test_nobody_listens() -> None:
    with pytest.raises(PacsError, match=r"PACS@127.0.0.1:\d+: nothing listens there"):
        echo(Node("PACS", "127.0.0.1", free_port()), timeout_s=5.0)


def test_an_unknown_host() -> None:
    with pytest.raises(PacsError, match="no address is known for this host"):
        echo(Node("PACS", "no-such-host.invalid", 104), timeout_s=1.0)


def test_one_that_listens_and_says_nothing() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        node = Node("PACS", "127.0.0.1", server.getsockname()[1])
        with pytest.raises(PacsError, match=r"no answer within 0\.5 s"):
            echo(node, timeout_s=0.5)


@pytest.mark.parametrize("text", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_one_that_is_no_dicom_node(text: bytes) -> None:
    def answer() -> None:
        connection, _ = server.accept()
        with closing(connection):
            connection.recv(1 << 16)
            connection.sendall(text)

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PacsError, match="what listens there is no DICOM node"):
            echo(Node("PACS", "127.0.0.1", server.getsockname()[1]), timeout_s=5.0)
        thread.join()


def test_without_pynetdicom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "find_spec", lambda _name: None)
    with pytest.raises(PacsError, match="serve needs pynetdicom, which is not installed: pip install dicomweb-client"):
        require_pynetdicom("serve")


def test_orthanc_answers_those_whom_it_knows(tmp_path: Path) -> None:
    with running_orthanc(tmp_path, peers={"PNEUMOFAST": free_port()}) as pacs:
        echo(Node.parse(pacs.node))
        with pytest.raises(PacsError, match="does not know the calling AE title OTHER"):
            echo(Node.parse(pacs.node), "OTHER")
