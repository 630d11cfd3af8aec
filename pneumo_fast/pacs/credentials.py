"""Who one is to a DICOMweb server, and how one knows it: from a file or the environment, never from an argument."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from pneumo_fast.dataset.pseudonyms import OTHERS
from pneumo_fast.errors import ConfigError
from pneumo_fast.files import read_regular

PREFIX: Final = "PNEUMO_FAST_DICOMWEB_"
"""Of the environment's variables; the name of a field in capitals follows."""
LARGEST_FILE: Final = 1 << 16
FILES: Final = ("ca", "certificate", "key")


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What a file or the environment says; each may be missing."""

    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    """A bearer token (RFC 6750), in place of user and password."""
    ca: Path | None = None
    """Certificates (PEM) of whom a server's own has to be signed by; by default the usual authorities."""
    certificate: Path | None = None
    """Our own certificate (PEM), for a server that asks for one."""
    key: Path | None = None
    """Its private key (PEM), where that is not in the same file."""
    allow_http: bool = False
    """Whether user and password, or the token, may be sent unencrypted to another machine."""

    @property
    def secret(self) -> bool:
        """Whether there is anything that must not be sent unencrypted."""
        return self.user is not None or self.token is not None


def load_credentials(path: Path | None, environment: Mapping[str, str] = os.environ) -> Credentials:
    """Read the credentials of a file, or where none is named, of the environment.

    Parameters
    ----------
    path : Path, optional
        A JSON object whose names are the fields of :class:`Credentials`; paths in it start from its folder.

    Raises
    ------
    ConfigError
        If the file cannot be read, others can read it, or what is said in it cannot be; no value is quoted.
    """
    if path is None:
        given: dict[str, Any] = {
            one.name: environment[PREFIX + one.name.upper()]
            for one in fields(Credentials)
            if environment.get(PREFIX + one.name.upper())
        }
        if "allow_http" in given:
            given["allow_http"] = {"1": True, "0": False}.get(given["allow_http"])
        return _build(given, Path(), f"the environment ({PREFIX}…)")
    return _build(_read(path), path.parent, f"credentials file {path}")


def _read(path: Path) -> Any:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = json.loads(read_regular(path, LARGEST_FILE))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "no JSON"
        raise ConfigError(f"credentials file {path} cannot be used ({reason}): name another") from None
    if mode & OTHERS:
        raise ConfigError(f"credentials file {path} can be read by other users (mode {mode:04o}): run chmod 600 on it")
    return content


def _build(given: Any, folder: Path, where: str) -> Credentials:
    kinds = {one.name: bool if one.name == "allow_http" else str for one in fields(Credentials)}
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: a JSON object expected, with some of the names {', '.join(kinds)}")
    for name, value in given.items():
        if name not in kinds:
            raise ConfigError(f"{where}: a name in it is unknown; known are {', '.join(kinds)}")
        if not isinstance(value, kinds[name]):
            expected = "true or false (in the environment 1 or 0)" if kinds[name] is bool else "text"
            raise ConfigError(f"{where}: {name}: {expected} expected")
    found = Credentials(**given | {name: folder / given[name] for name in FILES if name in given})
    _check(found, where)
    return found


def _check(found: Credentials, where: str) -> None:
    """Refuse what does not go together, or is not there."""
    if (found.user is None) != (found.password is None):
        raise ConfigError(f"{where}: user and password belong together; one of them is missing")
    if found.user is not None and found.token is not None:
        raise ConfigError(f"{where}: user and token exclude each other: give one of them")
    if found.token is not None and not _is_token(found.token):
        raise ConfigError(f"{where}: token: printable ASCII without spaces expected")
    if found.key and not found.certificate:
        raise ConfigError(f"{where}: a key is given without its certificate")
    for name in FILES:
        if (file := getattr(found, name)) and not os.access(file, os.R_OK):
            raise ConfigError(f"{where}: {name}: {file} cannot be read")


def _is_token(text: str) -> bool:
    """Whether it can stand in a header."""
    return bool(text) and all("!" <= letter <= "~" for letter in text)
