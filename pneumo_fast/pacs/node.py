"""A DICOM node elsewhere: asked whether it is there (C-ECHO), and sent objects (C-STORE)."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from pneumo_fast.errors import ConfigError, PacsError
from pneumo_fast.extras import PACS
from pneumo_fast.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetdicom.association import Association

LONGEST_AET: Final = 16
OUR_AET: Final = "PNEUMOFAST"
VERIFICATION: Final = "1.2.840.10008.1.1"
NOT_SUPPORTED: Final = 0x0122
"""Status of an object of a kind that the node does not take (PS3.7 C.5.4)."""
OUT_OF_RESOURCES: Final = 0xA700
"""Status where there is no room, and nothing is wrong with the object (PS3.4 table B.2-1)."""
REST_S: Final = 0.02
_REFUSALS: Final = {
    "Calling AE title not recognised": "it does not know the calling AE title {calling}: enter that there",
    "Called AE title not recognised": "it has another AE title than {node.aet}: correct what stands before the @",
}


@dataclass(frozen=True, slots=True)
class Node:
    """Where a DICOM node listens."""

    aet: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Node:
        """Read ``AET@HOST:PORT``; an IPv6 address stands in square brackets.

        Raises
        ------
        ConfigError
            If the text is none.
        """
        aet, at, address = text.partition("@")
        host, colon, port = address.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not (at and colon and host and port.isdecimal() and 0 < int(port) < 1 << 16):
            raise ConfigError(f"node {text!r}: AET@HOST:PORT expected, as ORTHANC@127.0.0.1:4242")
        return cls(check_aet("node", aet), host, int(port))

    def __str__(self) -> str:
        """Write it as it is given."""
        return f"{self.aet}@{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def check_aet(option: str, aet: str) -> str:
    """An AE title without spaces around it (PS3.5 6.2: 1 to 16 characters of ASCII, no backslash).

    Raises
    ------
    ConfigError
        If it is none.
    """
    title = aet.strip(" ")
    if not (0 < len(title) <= LONGEST_AET and title.isascii() and title.isprintable() and "\\" not in title):
        raise ConfigError(f"{option} {aet!r}: an AE title of 1 to {LONGEST_AET} ASCII characters expected")
    return title


def require_pynetdicom(what: str) -> None:
    """Look whether pynetdicom is installed; ``what`` needs it.

    Raises
    ------
    PacsError
        If it is not.
    """
    if find_spec("pynetdicom") is None:
        raise PacsError(PACS.needed_by(what, "pynetdicom"))


def hushed() -> Any:
    """Let nothing out that pynetdicom and pydicom say: they quote what is received."""
    return quiet("pynetdicom", "pydicom", below=logging.CRITICAL + 1)


def echo(node: Node, calling: str = OUR_AET, timeout_s: float = 10.0) -> None:
    """Ask a node whether it is there (C-ECHO).

    Raises
    ------
    PacsError
        If it refuses, answers otherwise or not in time, or nothing listens there.
    """
    with hushed(), associated(node, calling, [VERIFICATION], timeout_s) as association:
        status = association.send_c_echo().get("Status")
    if status != 0:
        raise PacsError(f"{node}: {_told(status, timeout_s)}")


class NoAnswerError(PacsError):
    """An object was sent, and the node ended the association or did not answer in time."""


class Sender:
    """Sends objects by one association.

    Parameters
    ----------
    association : Association
        That offered the objects' SOP classes; :func:`associated` gives it.
    """

    def __init__(self, node: Node, association: Association, timeout_s: float) -> None:
        self._node, self._association, self._timeout_s = node, association, timeout_s

    def store(self, data: bytes) -> int:
        """Send a DICOM file; the status that the node answers (PS3.4 table B.2-1).

        Raises
        ------
        NoAnswerError
            If the association is lost, or no answer comes in time.
        PacsError
            If the association was lost before.
        """
        import pydicom  # noqa: PLC0415  # for --help

        pause_reactor(self._association)
        try:
            answer = self._association.send_c_store(pydicom.dcmread(io.BytesIO(data)))
        except ValueError:  # of no accepted presentation context
            return NOT_SUPPORTED
        except RuntimeError as error:
            raise PacsError(f"{self._node}: the association was lost") from error
        status = answer.get("Status")
        if status is None:
            raise NoAnswerError(f"{self._node}: {_told(status, self._timeout_s)}")
        return int(status)


def pause_reactor(association: Association) -> None:
    """Let the thread that looks for what a peer sends come to rest.

    pynetdicom stops it before each request, but takes it for stopped a moment too early: where that moment is long, as
    in a process that computes, the thread takes the answer, and whoever asked waits in vain.
    """
    association._reactor_checkpoint.clear()
    time.sleep(REST_S)


@contextmanager
def associated(node: Node, calling: str, sop_classes: Sequence[str], timeout_s: float) -> Iterator[Association]:
    """An association with a node, released at the end.

    Parameters
    ----------
    calling : str
        Our AE title.
    sop_classes : sequence of str
        UIDs of what is to be sent.
    timeout_s : float
        Seconds that connecting, and every answer, may take.

    Raises
    ------
    PacsError
        If the node refuses, does not answer in time, or nothing listens there.
    """
    from pynetdicom import build_context, evt  # noqa: PLC0415  # an extra

    from pneumo_fast.pacs.requestor import Requestor  # noqa: PLC0415  # imports an extra

    with Requestor(calling) as entity:
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout_s
        connected, begin = threading.Event(), time.monotonic()
        try:
            association = entity.associate(
                node.host, node.port, [build_context(uid) for uid in sop_classes], node.aet,
                evt_handlers=[(evt.EVT_CONN_OPEN, lambda _event: connected.set())],
            )  # fmt: skip
        except OSError as error:
            raise PacsError(f"{node}: no address is known for this host ({error.strerror or error})") from error
        if not association.is_established:
            if time.monotonic() - begin >= timeout_s:
                why = f"no answer within {timeout_s:g} s"
            else:
                why = _refusal(association, node, calling) if connected.is_set() else "nothing listens there"
            raise PacsError(f"{node}: {why}")
        try:
            yield association
        except BaseException:
            association.abort()  # releasing would wait for an answer
            raise
        association.release()


def _refusal(association: Association, node: Node, calling: str) -> str:
    """Why a node that was reached made no association."""
    answer: Any = association.acceptor.primitive
    if answer is None:
        return "what listens there is no DICOM node"
    if association.rejected_contexts:
        return "it takes no object of these kinds"
    reason = answer.reason_str
    return _REFUSALS.get(reason, f"it refuses ({reason})").format(node=node, calling=calling)


def _told(status: int | None, timeout_s: float) -> str:
    return f"no answer within {timeout_s:g} s, or a broken one" if status is None else f"it answers {status:#06x}"
