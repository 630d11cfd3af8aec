"""An application entity that calls others, and leaves no thread and no socket behind."""

from __future__ import annotations

import socket
from typing import Any, Final

from pynetdicom import AE
from pynetdicom.transport import AssociationSocket

END_S: Final = 5.0
"""How long an association's thread may take to end."""


class Requestor(AE):
    """Makes associations, within a ``with`` block."""

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self._used: list[tuple[Any, socket.socket | None]] = []

    def __enter__(self) -> Requestor:
        """Return the entity itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close sockets that pynetdicom leaves to the garbage collector, as some that a peer has closed."""
        for association, used in self._used:
            if association.dul.is_alive():
                association.dul.join(END_S)
            if used is not None:
                used.close()

    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> AssociationSocket:
        made = AssociationSocket(assoc, address=address)
        made.tls_args = tls_args
        self._used.append((assoc, made.socket))
        return made
