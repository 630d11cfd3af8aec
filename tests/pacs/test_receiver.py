"""Who may send what, how much of it, and how those are stopped who do otherwise."""

from __future__ import annotations

import resource
import socket
import struct
import threading
import time
from contextlib import ExitStack, closing
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from pneumo_fast.errors import PacsError
from pneumo_fast.pacs.bounded_socket import LARGEST_PDU
from pneumo_fast.pacs.node import VERIFICATION, Node, echo, pause_reactor
from pneumo_fast.phantoms.dicom_file import write_dicom
from tests.pacs.conftest import Receiver, receiver_of
from tests.support.serving import SENDER, association, store, wait_until

GARBAGE = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00" * 100,
    bytes(range(256)),
    b"\x04\x00\x00\x00\x00\x0a" + b"\xff" * 10,
)
UNENDED = b"\x08\x00\x06\x00SQ\x00\x00" + b"\xff" * 4
"""A sequence of undefined length, and then nothing."""


@pytest.fixture
def dataset(tmp_path: Path) -> pydicom.Dataset:
    return image(tmp_path, 64)


def image(folder: Path, size: int) -> pydicom.Dataset:
    write_dicom(folder / "image.dcm", np.zeros((size, size), np.uint8), transfer_syntax=ExplicitVRLittleEndian)
    return pydicom.dcmread(folder / "image.dcm")


def sent(receiver: Receiver, *datasets: pydicom.Dataset) -> list[int | None]:
    return store(receiver.port, *datasets)


def encoded(dataset: pydicom.Dataset) -> bytes:
    return encode(dataset, False, True) or b""


def request_of(dataset: pydicom.Dataset, data: bytes, number: int = 1) -> C_STORE:
    """A request in the name of a data set, with whatever bytes."""
    request = C_STORE()
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    request.MessageID, request.Priority, request.DataSet = number, 2, BytesIO(data)
    return request


def assert_goes_on(receiver: Receiver, dataset: pydicom.Dataset) -> None:
    assert not receiver.received
    assert sent(receiver, dataset) == [0]
    assert len(receiver.received) == 1


def raw(receiver: Receiver) -> socket.socket:
    return socket.create_connection(("127.0.0.1", receiver.port), timeout=10)


def closed(connection: socket.socket) -> bool:
    """Whether the other side has closed it, or does so."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def test_an_instance_is_kept_as_it_came(receiver: Receiver, dataset: pydicom.Dataset) -> None:
    assert sent(receiver, dataset) == [0]
    (data,) = receiver.received.values()
    assert list(receiver.received) == [dataset.SOPInstanceUID]
    assert data[128:132] == b"DICM"
    assert data.endswith(encoded(dataset))


def test_the_status_is_answered(receiver: Receiver, dataset: pydicom.Dataset) -> None:
    receiver.status = 0xA700
    assert sent(receiver, dataset) == [0xA700]


@pytest.mark.parametrize(
    ("uid_inside", "data", "status"),
    [("1.2.3", None, 0xA900), ("", None, 0xA900), (None, UNENDED, 0xC000), (None, None, 0)],
)
def test_an_object_that_is_not_what_its_request_says_is_refused(
    receiver: Receiver, dataset: pydicom.Dataset, uid_inside: str | None, data: bytes | None, status: int
) -> None:
    """Another instance or none, a sequence without its end; and one that is as it should be."""
    inside = deepcopy(dataset)
    if uid_inside is not None:
        inside.SOPInstanceUID = uid_inside
    with association(receiver.port, sop_classes=[SecondaryCaptureImageStorage]) as made:
        pause_reactor(made)
        made.dimse.send_msg(request_of(dataset, data or encoded(inside)), 1)
        _, answer = made.dimse.get_msg(block=True)
    assert isinstance(answer, C_STORE)
    assert answer.Status == status
    assert len(receiver.received) == (status == 0)


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", "PNEUMOFAST"), (SENDER, "OTHER"), ("", "")])
def test_strangers_are_refused(receiver: Receiver, calling: str, called: str, caplog: pytest.LogCaptureFixture) -> None:
    with association(receiver.port, calling or "A", called or "B") as made:
        assert made.is_rejected
    assert "an association from 127.0.0.1 was refused" in caplog.text


def test_other_kinds_of_objects_are_refused(receiver: Receiver) -> None:
    with association(receiver.port, sop_classes=[CTImageStorage, SecondaryCaptureImageStorage]) as made:
        taken = {context.abstract_syntax for context in made.accepted_contexts}
        assert taken == {SecondaryCaptureImageStorage}
        with pytest.raises(ValueError, match="No presentation context"):
            made.send_c_store(pydicom.dcmread(str(get_testdata_file("CT_small.dcm"))))
    assert not receiver.received


def test_it_answers_echo(receiver: Receiver) -> None:
    echo(Node("PNEUMOFAST", "127.0.0.1", receiver.port), SENDER)
    with association(receiver.port, sop_classes=[VERIFICATION]) as made:
        assert made.send_c_echo().Status == 0


def test_only_so_many_associations_at_once(receiver: Receiver) -> None:
    with ExitStack() as stack:
        made = [stack.enter_context(association(receiver.port)) for _ in range(5)]
        assert [one.is_established for one in made] == [True, True, True, True, False]
        assert made[-1].is_rejected


def test_a_message_that_is_too_large_ends_its_association(receiver: Receiver, tmp_path: Path) -> None:
    small = image(tmp_path, 64)
    large = image(tmp_path, 1100)
    large.SOPInstanceUID = "1.2.3"
    assert sent(receiver, large, small) == [None, None]
    assert_goes_on(receiver, small)


def test_many_messages_together_may_be_larger(receiver: Receiver, tmp_path: Path) -> None:
    assert sent(receiver, *[image(tmp_path, 900)] * 3) == [0, 0, 0]


@pytest.mark.parametrize("kind", [1, 4])
@pytest.mark.parametrize("length", [LARGEST_PDU + 1, (1 << 32) - 1])
def test_a_pdu_that_says_it_is_huge_is_not_read(
    receiver: Receiver, dataset: pydicom.Dataset, kind: int, length: int
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with closing(raw(receiver)) as connection:
        connection.sendall(struct.pack(">BBL", kind, 0, length))
        try:
            for _ in range(400):
                connection.sendall(b"\0" * (1 << 20))
        except (ConnectionError, TimeoutError):
            pass
        assert closed(connection)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; 400 MB were offered
    assert_goes_on(receiver, dataset)


@pytest.mark.parametrize("text", GARBAGE, ids=["http", "zeros", "bytes", "early data"])
def test_garbage_is_survived(receiver: Receiver, dataset: pydicom.Dataset, text: bytes) -> None:
    with closing(raw(receiver)) as connection:
        connection.sendall(text)
        assert closed(connection)
    assert_goes_on(receiver, dataset)


@pytest.mark.parametrize(
    "first", [b"", b"\x01", b"\x01\x00\x00\x00\x00\x64" + b"\x00" * 50], ids=["silent", "slow", "later"]
)
def test_the_silent_and_the_slow_are_not_waited_for(receiver: Receiver, dataset: pydicom.Dataset, first: bytes) -> None:
    with closing(raw(receiver)) as connection:
        begin = time.monotonic()
        connection.sendall(first)
        ended = threading.Event()

        def trickle() -> None:
            while first and not ended.wait(0.2):
                try:
                    connection.send(b"\x00")
                except OSError:
                    return

        slow = threading.Thread(target=trickle)
        slow.start()
        assert closed(connection)
        ended.set()
        slow.join()
        assert time.monotonic() - begin < 5
    assert_goes_on(receiver, dataset)


def test_an_association_that_dies_in_the_middle_leaves_nothing(receiver: Receiver, dataset: pydicom.Dataset) -> None:
    with association(receiver.port) as made:
        connection: Any = made.dul.socket
        send, half = connection.send, len(dataset.PixelData) // 2

        def send_half(data: bytes) -> None:
            send(data[:half])
            if len(data) > half:
                connection.close()

        connection.send = send_half
        assert "Status" not in made.send_c_store(dataset)
    assert_goes_on(receiver, dataset)


def test_who_does_not_wait_for_answers_cannot_fill_the_memory(receiver: Receiver, dataset: pydicom.Dataset) -> None:
    receiver.answering.clear()
    before = threading.active_count()
    with association(receiver.port, sop_classes=[SecondaryCaptureImageStorage]) as made:
        for number in range(20):
            made.dimse.send_msg(request_of(dataset, encoded(dataset), number + 1), 1)
        wait_until(lambda: made.is_aborted)
        receiver.answering.set()
    wait_until(lambda: threading.active_count() <= before)
    assert len(receiver.received) == 1


def test_a_port_that_is_taken_is_one_line(receiver: Receiver) -> None:
    message = r"127.0.0.1:\d+ cannot be listened at \(Address already in use\): name another"
    with pytest.raises(PacsError, match=message), receiver_of(port=receiver.port):
        pass


def test_it_ends_at_once_though_somebody_is_connected() -> None:
    with receiver_of(timeout_s=60.0) as receiver:
        before = threading.active_count()
        connections = [raw(receiver) for _ in range(3)]
        connections[0].sendall(b"\x01\x00\x00\x00\x00\x64")
        with association(receiver.port) as made:
            assert made.is_established
            wait_until(lambda: threading.active_count() > before + 1)
            begin = time.monotonic()
    assert time.monotonic() - begin < 3
    for connection in connections:
        connection.close()
