"""A DICOM Storage SCP: receives radiographs from those who may send them, and answers C-ECHO."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import pynetdicom
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt

from pneumo_fast.errors import PacsError, RejectedImageError
from pneumo_fast.pacs.bounded_socket import ANNOUNCED_PDU, BoundedServer, BoundedSocket
from pneumo_fast.pacs.node import VERIFICATION
from pneumo_fast.radiograph.full_header import parse_dataset
from pneumo_fast.radiograph.pixels import installed_decoders
from pneumo_fast.radiograph.rejection import rejecting

RADIOGRAPHS: Final = (
    ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)  # fmt: skip
"""What is taken; of a study's other objects the sender is told that they are not."""
MISMATCH: Final = 0xA900
NOT_UNDERSTOOD: Final = 0xC000
"""Statuses of C-STORE (PS3.4 table B.2-1): the data set is not what the request says; it cannot be read."""

if TYPE_CHECKING:
    from pynetdicom.association import Association

OnInstance = Callable[[str, bytes], int]
"""Takes a SOP Instance UID and the DICOM file, and gives the status to answer; called by several threads."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Listening:
    """Where to listen, to whom, and for how much."""

    aet: str
    host: str
    port: int
    """0 for any that is free."""
    allowed: tuple[str, ...]
    """AE titles that may call."""
    associations: int
    """At once."""
    most_bytes: int
    """Of a message."""
    timeout_s: float
    """That a PDU, and a peer's silence, may take."""


@contextmanager
def receiving(listening: Listening, on_instance: OnInstance) -> Iterator[int]:
    """Receive, in threads of their own, while the block lasts; gives the port.

    Raises
    ------
    PacsError
        If the port is taken, or may not be used.
    """
    pynetdicom._config.LOG_HANDLER_LEVEL = (
        "none"  # what it would describe is received, and takes longer than receiving it
    )
    entity = AE(listening.aet)
    entity.require_called_aet, entity.require_calling_aet = True, list(listening.allowed)
    entity.maximum_associations, entity.maximum_pdu_size = listening.associations, ANNOUNCED_PDU
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = listening.timeout_s
    syntaxes = list(dict.fromkeys(known.uid for known in installed_decoders() if known.plugins))
    for sop_class in RADIOGRAPHS:
        entity.add_supported_context(sop_class, syntaxes)
    entity.add_supported_context(VERIFICATION)
    try:
        server = entity.make_server(
            (listening.host, listening.port),
            evt_handlers=[
                (evt.EVT_C_STORE, _store, [on_instance, listening.most_bytes]),
                (evt.EVT_DIMSE_RECV, _begin_message),
                (evt.EVT_REJECTED, _tell),
            ],
            server_class=BoundedServer, most_bytes=listening.most_bytes, timeout_s=listening.timeout_s,
        )  # fmt: skip
    except OSError as error:
        raise PacsError(
            f"{listening.host}:{listening.port} cannot be listened at ({error.strerror or error}): name another with "
            "--port or --host"
        ) from error
    entity._servers.append(server)  # so that its shutdown ends it
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        for association in server.active_associations:
            _socket_of(association).end()
            if association.requestor.primitive is None:
                association.dul.to_user_queue.put(cast("Any", None))  # else it waits on for its request
            association.join()


def _store(event: Any, on_instance: OnInstance, most_bytes: int) -> int:
    """Hand an instance on, its data set exactly as it came, after new file meta information (PS3.10 7.1).

    It is what its request says that it is, so that each instance has results of its own.
    """
    request = event.request
    if not request.AffectedSOPInstanceUID or not request.DataSet:
        return NOT_UNDERSTOOD
    if request.AffectedSOPClassUID != event.context.abstract_syntax:
        return MISMATCH
    uid, data = str(request.AffectedSOPInstanceUID), event.encoded_dataset()
    try:
        with rejecting("corrupt", "the data set cannot be parsed"):
            uid_inside = str(parse_dataset(data, most_bytes).get("SOPInstanceUID")).strip(" \0")
    except RejectedImageError as error:
        _log.warning("an object was refused: %s", error)
        return NOT_UNDERSTOOD
    if uid_inside != uid:  # results refer to the one inside
        _log.warning("an object was refused: its SOP Instance UID is not that of its C-STORE request")
        return MISMATCH
    return on_instance(uid, data)


def _begin_message(event: Any) -> None:
    _socket_of(event.assoc).begin_message()


def _socket_of(association: Association) -> BoundedSocket:
    return cast("BoundedSocket", association.dul.socket)


def _tell(event: Any) -> None:
    _log.warning(
        "an association from %s was refused: its AE title is not one of --allow, it calls another one than ours, or "
        "too many are open", event.assoc.requestor.address,
    )  # fmt: skip
