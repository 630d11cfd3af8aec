"""What names a DICOMweb server and what is asked of it, as the command line gives both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from pneumo_fast.errors import ConfigError

TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")


def check_address(url: str) -> SplitResult:
    """The parts of a server's address.

    Raises
    ------
    ConfigError
        If it is none, or holds a password; it is quoted only where it cannot hold one.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("dicomweb: not an address, http://HOST:PORT/PATH or https://… expected") from None
    if "@" in url:
        raise ConfigError(
            "dicomweb: an address with a user or a password in it is shown to everybody: leave them out, and give them "
            "in a file (--credentials) or in the environment"
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or not url.isprintable() or " " in url:
        raise ConfigError(f"dicomweb {url!r}: an address as http://HOST:PORT/PATH or https://… expected")
    if parts.query or parts.fragment:
        raise ConfigError("dicomweb: the address has a ? or a #: give what is before it, and --query for a query")
    return parts


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that nothing sent to it passes a network."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_query(texts: Sequence[str]) -> dict[str, str]:
    """What instances have to match, by the keyword or tag of each attribute.

    Parameters
    ----------
    texts : sequence of str
        ``KEYWORD=VALUE``; a value may hold wildcards or a range of dates (PS3.4 C.2.2.2).

    Raises
    ------
    ConfigError
        If a text is not of this form, or a keyword unknown or repeated; no value is quoted: it may name a patient.
    """
    from pydicom.datadict import tag_for_keyword  # noqa: PLC0415  # not for --help

    found: dict[str, str] = {}
    for number, text in enumerate(texts, start=1):
        keyword, equals, value = text.partition("=")
        if not (equals and value and keyword.isascii() and keyword.isalnum()):
            raise ConfigError(f"query {number}: KEYWORD=VALUE expected, for instance StudyDate=20260101-20260131")
        if tag_for_keyword(keyword) is None and not TAG.fullmatch(keyword):
            raise ConfigError(f"query {keyword}: no keyword of DICOM, nor a tag of eight hexadecimal digits")
        if keyword in found:
            raise ConfigError(f"query {keyword} is given more than once: give it once")
        found[keyword] = value
    return found
