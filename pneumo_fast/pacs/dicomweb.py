"""A DICOMweb server (PS3.18): which instances match a query, each as the file that was stored, and results sent back.

dicomweb-client asks the questions. Objects pass over the same session as the bytes that they are: that library would
parse and encode them anew, takes half a message for a whole one, and drops the answer of a server that stores nothing.
What a server answers may name a patient, and so may an address with a query: of neither is anything told or logged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import Message
from typing import Any, Final

import requests
from dicomweb_client.web import DICOMwebClient

from pneumo_fast.errors import PacsError, RejectedImageError
from pneumo_fast.pacs.address import check_address, is_loopback
from pneumo_fast.pacs.credentials import Credentials
from pneumo_fast.pacs.search import Instance, Search, first_value
from pneumo_fast.pacs.session import Session, UnansweredError
from pneumo_fast.quiet import quiet_loggers

_log = logging.getLogger(__name__)

NOT_RETRIEVED: Final = "not_retrieved"
"""The reason of an instance that a server did not hand out."""
NOT_STORED: Final = "not_stored"
"""The reason of a result that a server did not take."""
FAILED, REASON = "00081198", "00081197"
"""Failed SOP Sequence and, in it, Failure Reason (PS3.3 C.14)."""
REFERENCED: Final = "00081199"
"""Referenced SOP Sequence: what is stored, warnings or not."""
DUPLICATE: Final = 0x0111
"""Failure Reason of an instance that is there already (PS3.7 C.5.5)."""
NO_SPACE: Final = range(0xA700, 0xA800)
"""Failure Reasons of a server that is out of resources (PS3.18 I.2.2)."""
AS_STORED: Final = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
PREAMBLE, PREFIX = 128, 132
"""Bytes before ``DICM``, and with it (PS3.10 7.1)."""
BOUNDARY: Final = "pneumo-fast-5e1b7c40a3d2"


@contextmanager
def connected(url: str, credentials: Credentials, timeout_s: float) -> Iterator[DicomWeb]:
    """A server to talk to; nothing is sent yet.

    Raises
    ------
    ConfigError
        If the address is none.
    PacsError
        If the credentials would pass a network unencrypted.
    """
    address = check_address(url)
    if address.scheme == "http" and not is_loopback(address.hostname or ""):
        if credentials.secret and not credentials.allow_http:
            raise PacsError(
                f"{address.netloc}: credentials would be sent unencrypted: use an address with https, or allow it with "
                "allow_http beside the credentials"
            )
        _log.warning("%s is spoken to by http: images and PATIENTS' NAMES pass the network unencrypted", address.netloc)
    silent = "urllib3", "requests", "dicomweb_client", "retrying"
    with quiet_loggers(*silent, below=logging.CRITICAL + 1), Session(credentials, timeout_s) as session:
        yield DicomWeb(url.rstrip("/"), session)


class DicomWeb:
    """A server; several threads may retrieve at once."""

    def __init__(self, url: str, session: Session) -> None:
        self._url, self._session = url, session
        self.host = check_address(url).netloc
        client = DICOMwebClient(url, session=session)
        client.set_http_retry_params(retry=False)  # the session does that
        self._search = Search(client, self.host)

    def search(self, query: Mapping[str, str]) -> list[Instance]:
        """The instances that match, as :meth:`Search.instances` finds them."""
        return self._search.instances(query)

    def retrieve(self, instance: Instance, most: int) -> bytes:
        """The file of an instance, as it is stored there.

        Parameters
        ----------
        most : int
            Bytes that it may have.

        Raises
        ------
        RejectedImageError
            ``not_retrieved``, where the server answers, but with nothing that could be this file.
        PacsError
            If the server refuses, or has gone.
        """
        url = f"{self._url}/studies/{instance.study}/series/{instance.series}/instances/{instance.uid}"
        request = self._session.prepare_request(requests.Request("GET", url, headers=AS_STORED))
        try:
            answer = self._session.send(request, most=most)
        except UnansweredError as error:
            self._search.check()  # it is the server, or this instance alone
            raise RejectedImageError(NOT_RETRIEVED, "the server gives no answer, or too long a one") from error
        if answer.status_code != requests.codes.ok:
            raise RejectedImageError(NOT_RETRIEVED, f"HTTP status {answer.status_code}")
        return only_part(answer.content, answer.headers.get("Content-Type", ""))

    def store(self, objects: Sequence[bytes]) -> None:
        """Have objects stored; one that is there already is no failure.

        Raises
        ------
        RejectedImageError
            ``not_stored``, where the server does not take one of them.
        PacsError
            If the server refuses to store at all, has no space, or has gone.
        """
        parts = (b"Content-Type: application/dicom\r\n\r\n" + one for one in objects)
        ends = f"--{BOUNDARY}\r\n".encode(), f"--{BOUNDARY}--\r\n".encode()
        answer = self._session.post(
            f"{self._url}/studies",
            b"".join(ends[0] + part + b"\r\n" for part in parts) + ends[1],
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
                "Accept": "application/dicom+json",
            },
        )
        status = answer.status_code
        if status not in {200, 202, 400, 409}:
            raise PacsError(f"{self.host} stores nothing (HTTP status {status}): does it take objects (STOW-RS)?")
        told = _told(answer.content)
        reasons = [first_value(item, REASON) if isinstance(item, dict) else None for item in _items(told, FAILED)]
        if any(reason in NO_SPACE for reason in reasons):
            raise PacsError(f"{self.host} is out of space or other resources: free some, then resume with --resume")
        accepted = status == 202 and len(_items(told, REFERENCED)) == len(objects)  # with warnings (PS3.18 10.5.3)
        if any(reason != DUPLICATE for reason in reasons) or not (reasons or accepted or status == 200):
            raise RejectedImageError(NOT_STORED, f"HTTP status {status}")


def _told(content: bytes) -> dict[str, Any]:
    """What a server says of objects; empty where that cannot be read."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _items(answer: Mapping[str, Any], tag: str) -> list[Any]:
    """The items of a sequence in DICOM JSON; none where it is not there."""
    element = answer.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def only_part(content: bytes, content_type: str) -> bytes:
    """The one part of a multipart message (RFC 2046 5.1) that holds an object.

    Raises
    ------
    RejectedImageError
        ``not_retrieved``, if the message is another, was cut off, or its part is no DICOM file (PS3.10).
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() == "application/dicom":  # as some servers answer
        part = content
    elif header.get_content_type() == "multipart/related" and boundary:
        part = _between(content, b"--" + boundary.encode())
    else:
        raise RejectedImageError(NOT_RETRIEVED, "the answer is no multipart message")
    if part[PREAMBLE:PREFIX] != b"DICM":
        raise RejectedImageError(NOT_RETRIEVED, "what was sent is no DICOM file")
    return part


def _between(content: bytes, delimiter: bytes) -> bytes:
    """What is between the first delimiter and the next, which has to be the last."""
    begin = content.find(b"\r\n\r\n", content.find(delimiter)) + 4
    end = content.find(b"\r\n" + delimiter, begin)
    if begin < len(delimiter) or end < 0:
        raise RejectedImageError(NOT_RETRIEVED, "the message has no whole part: it was cut off")
    if not content.startswith(b"--", end + 2 + len(delimiter)):
        raise RejectedImageError(NOT_RETRIEVED, "the message was cut off, or has several parts")
    return content[begin:end]
