"""An application entity that calls others, and closes the sockets of those that do not answer."""

from __future__ import annotations

from typing import Any

from pynetdicom import AE
from pynetdicom.transport import AssociationSocket


class Requestor(AE):
    """Makes associations."""

    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> AssociationSocket:
        made = _ClosedSocket(assoc, address=address)
        made.tls_args = tls_args
        return made


class _ClosedSocket(AssociationSocket):
    """Is closed also where it never was connected, which pynetdicom leaves to the garbage collector."""

    def _shutdown_socket(self) -> None:
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()
