"""A connection that a stranger makes: what it sends is bounded in size and in time.

pynetdicom reads as many bytes as a PDU says that it has, up to 4 GiB, waits for them for ever, and bounds no message.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

if TYPE_CHECKING:
    from pynetdicom.association import Association

LARGEST_PDU: Final = 1 << 20
"""Bytes; a request with every presentation context there is has a quarter of that."""
ANNOUNCED_PDU: Final = 1 << 18
"""Bytes of a data PDU that peers are asked not to exceed."""
MOST_WAITING: Final = 1
"""Messages sent before the one before them was answered; the standard allows none unless more are negotiated."""
CONNECTIONS: Final = 4
"""Connections for each association that is allowed: most of them may be silent."""
_BLOCK: Final = 1 << 16
_ABORT: Final = bytes.fromhex("0700 0000 0004 0000 0206")
"""An A-ABORT PDU (PS3.8 9.3.8): by the provider, for a value that is not allowed."""


class BoundedSocket(AssociationSocket):
    """Reads PDUs that are not too large, of messages that are not too large, in the time allowed for each PDU.

    Whatever exceeds a bound ends the association.
    """

    def __init__(self, association: Association, client_socket: Any, most_bytes: int, timeout_s: float) -> None:
        super().__init__(association, client_socket=client_socket)
        client_socket.settimeout(timeout_s)
        self._most, self._left, self._timeout_s = most_bytes, most_bytes, timeout_s

    def begin_message(self) -> None:
        """Count anew: a message is complete."""
        self._left = self._most

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, or fewer where the peer closes the connection.

        Raises
        ------
        OSError
            If they are too many, or take too long.
        """
        waiting = self.assoc.dimse.msg_queue.qsize()
        if nr_bytes > min(LARGEST_PDU, self._left) or waiting > MOST_WAITING:
            self._refuse()
        self._left -= nr_bytes
        data, end = bytearray(), time.monotonic() + self._timeout_s
        while len(data) < nr_bytes:
            if self.socket is None or (left := end - time.monotonic()) <= 0:
                self._refuse()
            self.socket.settimeout(left)
            if not (block := self.socket.recv(min(_BLOCK, nr_bytes - len(data)))):
                return data
            data += block
        return data

    def _refuse(self) -> NoReturn:
        self.end()
        raise ConnectionAbortedError("more was sent than is allowed")

    def end(self) -> None:
        """Abort the association and close the connection, from any thread."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.settimeout(0)  # the peer need not listen
                self.socket.send(_ABORT)
            self._shutdown_socket()


class BoundedServer(ThreadedAssociationServer):
    """Accepts connections, as many as there may be.

    Parameters
    ----------
    most_bytes : int
        Of a message.
    timeout_s : float
        Seconds that a PDU may take.
    """

    def __init__(self, *args: Any, most_bytes: int, timeout_s: float, **more: Any) -> None:
        self.most_bytes, self.timeout_s = most_bytes, timeout_s
        super().__init__(*args, **more | {"request_handler": _Handler})

    def verify_request(self, _request: Any, _client_address: Any) -> bool:
        """Whether there is room for one more connection."""
        return len(self.active_associations) < CONNECTIONS * self.ae.maximum_associations

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Say nothing: the connection is closed, and the traceback would quote its peer."""


class _Handler(RequestHandler):
    server: BoundedServer

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.dul.event_queue.get_nowait()  # of the socket that is replaced; the new one puts it again
        association.dul.socket = BoundedSocket(association, self.request, self.server.most_bytes, self.server.timeout_s)
        return association
