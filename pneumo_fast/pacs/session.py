"""An HTTP session that a server cannot keep waiting, fill with data or lead elsewhere.

Each answer is read to its end at once, within limits of time and size that hold whatever its headers promise. What
fails on the way is tried again a few times. No redirection is followed, so that credentials reach no other host, and
nothing is taken from ``.netrc``, from proxy variables or from elsewhere in the environment.
"""

from __future__ import annotations

import io
import ssl
import threading
import time
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from requests.auth import AuthBase

from pneumo_fast.errors import PacsError
from pneumo_fast.pacs.credentials import Credentials

WAITS_S: Final = (0.5, 1.0, 2.0)
"""Between one attempt and the next."""
PATIENCE: Final = 10
"""Times the time limit: how long a whole answer may take."""
LARGEST_ANSWER: Final = 1 << 26
"""Bytes of an answer that is no object."""
BLOCK: Final = 1 << 16
NOT_IMPLEMENTED: Final = 501
BUSY: Final = frozenset({408, 429, *range(500, 600)}) - {NOT_IMPLEMENTED}
"""Status codes that ask to come again."""
REFUSED: Final = frozenset({401, 403, 407})
"""Status codes that say that we may not."""
CERTIFICATE: Final = {
    9: "is not valid yet: see the date of this machine",
    10: "has expired: have it renewed, and see the date of this machine",
    62: "names another host: give the address that it names with --dicomweb",
    64: "names another address: give the one that it names with --dicomweb",
}
"""What OpenSSL finds in a certificate (``X509_verify_cert_error_string``) that no other ``ca`` would mend."""


class UnansweredError(PacsError):
    """A request has no answer that can be used, though it was sent several times; the next one may have."""


class Session(requests.Session):
    """Sends requests with the credentials, several at once if need be; a response has its whole content.

    Parameters
    ----------
    timeout_s : float
        Seconds to wait for a connection, for the begin of an answer, and for more of it.
    """

    def __init__(self, credentials: Credentials, timeout_s: float) -> None:
        super().__init__()
        self.trust_env = False
        self.auth = _Authorization(credentials)
        self.verify = str(credentials.ca) if credentials.ca else True
        files = [str(path) for path in (credentials.certificate, credentials.key) if path]
        self.cert = (files[0], files[1]) if len(files) > 1 else "".join(files) or None
        self._timeout_s = timeout_s
        self._closed = threading.Event()

    def close(self) -> None:
        """Give up what is still under way, and every connection."""
        self._closed.set()
        super().close()

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere: whoever leads us elsewhere is told so."""

    def send(
        self, request: requests.PreparedRequest, *, most: int = LARGEST_ANSWER, **kwargs: Any
    ) -> requests.Response:
        """Send a request until it is answered.

        Parameters
        ----------
        most : int
            Bytes that the answer may have.

        Returns
        -------
        Response
            Of a status code that says yes, or that this one request is not answered.

        Raises
        ------
        UnansweredError
            If there is no answer, again and again, or it is larger.
        PacsError
            If the server lets us do nothing at all.
        """
        host, reason = urlsplit(request.url or "").netloc, ""
        for wait_s in (0.0, *WAITS_S):
            if self._closed.wait(wait_s):
                raise PacsError(f"{host}: the connection was given up")
            try:
                response = self._send_once(request, most, kwargs)
            except requests.exceptions.SSLError as error:
                raise PacsError(f"{host}: no trusted TLS connection: {_tls(error)}") from None
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                reason = _reason(error)
                continue
            if response.status_code not in BUSY:
                _check_status(response.status_code, host)
                return response
            reason = f"HTTP status {response.status_code}"
        raise UnansweredError(
            f"{host} gave no answer in {len(WAITS_S) + 1} attempts ({reason}): see whether the server runs and "
            "can be reached"
        )

    def _send_once(self, request: requests.PreparedRequest, most: int, kwargs: dict[str, Any]) -> requests.Response:
        end = time.monotonic() + PATIENCE * self._timeout_s
        request.headers.pop("Host", None)  # dicomweb-client's lacks the port
        request.url = (request.url or "").replace("%2A", "*")  # a wildcard, which Orthanc's plugin 1.7 does not decode
        response = super().send(
            request, **kwargs | {"stream": True, "allow_redirects": False, "timeout": self._timeout_s}
        )
        with response:
            content = bytearray()
            while block := response.raw.read1(BLOCK, decode_content=True):  # whatever has come, be it a byte
                content += block
                if len(content) > most:
                    host = urlsplit(response.url).netloc
                    raise UnansweredError(f"{host} gave an answer of more than {most:,} bytes: no such is expected")
                if time.monotonic() > end or self._closed.is_set():
                    raise requests.exceptions.ReadTimeout
        response.raw = io.BytesIO(content)
        return response


class _Authorization(AuthBase):
    """Puts the credentials into a request's header."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        known = self._credentials
        if known.token is not None:
            request.headers["Authorization"] = f"Bearer {known.token}"
        elif known.user is not None and known.password is not None:
            basic = requests.auth.HTTPBasicAuth(known.user.encode(), known.password.encode())
            return basic(request)
        return request


def _check_status(status: int, host: str) -> None:
    if status in REFUSED:
        raise PacsError(
            f"{host} refuses us (HTTP status {status}): give credentials that it accepts, in a file (--credentials) or "
            "in the environment"
        )
    if 300 <= status < 400:
        raise PacsError(f"{host} redirects to another address (HTTP status {status}): give that one with --dicomweb")


def _reason(error: BaseException) -> str:
    """What went wrong on the way, in our own words: an error's text has the address, and with it the query."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection within the time limit"
    if isinstance(error, requests.exceptions.Timeout | urllib3.exceptions.ReadTimeoutError):
        return "no answer within the time limit"
    found: BaseException | None = error
    while found:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__context__
    return "the answer broke off"


def _tls(error: requests.exceptions.SSLError) -> str:
    """What was wrong with the certificate or the connection."""
    found: BaseException | None = error
    while found:
        if isinstance(found, ssl.SSLCertVerificationError):
            unknown = "is signed by no authority known here: name it as ca in the credentials"
            return f"the server's certificate {CERTIFICATE.get(found.verify_code, unknown)}"
        found = found.__context__
    return (
        "what the server speaks is not the TLS expected, it wants a certificate of ours, or a file of the credentials "
        "(ca, certificate, key) is not what it should be"
    )
