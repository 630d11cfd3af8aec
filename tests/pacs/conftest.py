"""A receiver that keeps what it is given in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from pneumo_fast.pacs.node import OUR_AET, hushed
from pneumo_fast.pacs.receiver import Listening, receiving
from tests.support.serving import SENDER


@dataclass
class Receiver:
    """A running receiver."""

    port: int = 0
    received: dict[str, bytes] = field(default_factory=dict)
    status: int = 0
    """To answer."""
    answering: threading.Event = field(default_factory=threading.Event)
    """Set unless answers are held back."""

    def take(self, uid: str, data: bytes) -> int:
        self.received[uid] = data
        self.answering.wait(10)
        return self.status


@contextmanager
def receiver_of(**values: Any) -> Iterator[Receiver]:
    fixed: dict[str, Any] = {"aet": OUR_AET, "host": "127.0.0.1", "port": 0, "allowed": (SENDER,), "associations": 4}
    listening = Listening(**fixed | {"most_bytes": 1 << 20, "timeout_s": 1.0} | values)
    receiver = Receiver()
    receiver.answering.set()
    with hushed(), receiving(listening, receiver.take) as receiver.port:
        yield receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiver_of() as running:
        yield running
