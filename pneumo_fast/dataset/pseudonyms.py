"""Pseudonyms: keyed hashes that cannot be undone without a key that stays outside every dataset."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from pneumo_fast.errors import ConfigError
from pneumo_fast.files import read_regular, write_atomic

KEY_BYTES = 32
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def default_key_path() -> Path:
    """Where the key lies unless told otherwise: the user's configuration folder.

    Raises
    ------
    ConfigError
        If there is none: no HOME is set, and the user has no entry in the system's list, as in some containers.
    """
    try:
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    except RuntimeError as error:
        raise ConfigError("the hash key has no place, as HOME is not set: name a file with --hash-key") from error
    return Path(base) / "pneumo-fast" / "hash.key"


def load_key(path: Path | None = None, *, make: bool = False) -> bytes:
    """Read the key.

    With the same key the same patient has the same pseudonym in every dataset, so that patients shared between
    two datasets can be counted.

    Parameters
    ----------
    make : bool
        Whether to make a new random one where there is none, readable by its owner alone.

    Raises
    ------
    ConfigError
        If the key is not there, has no place, cannot be read or written, has the wrong length, or others can read it.
    """
    path = path or default_key_path()
    try:
        if make and not path.exists():
            _make_key(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        key = bytes.fromhex(read_regular(path, 1 << 16).decode().strip())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not hexadecimal text"
        raise ConfigError(f"hash key {path} cannot be used ({reason}): name another with --hash-key") from error
    if len(key) != KEY_BYTES:
        raise ConfigError(f"hash key {path} has {len(key)} bytes, {KEY_BYTES} expected: name another with --hash-key")
    if mode & OTHERS:
        raise ConfigError(
            f"hash key {path} can be read by other users (mode {mode:04o}), and whoever has it can undo pseudonyms: "
            "run chmod 600 on it"
        )
    return key


def _make_key(path: Path) -> None:
    """Write a new key; of two processes starting at once both end with it, or without hard links one with an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):  # the other process was first: its key counts
        write_atomic(path, secrets.token_hex(KEY_BYTES) + "\n", mode=0o600, replace=False)


def pseudonym(key: bytes, kind: str, text: str, digits: int = 16) -> str:
    """Hexadecimal digits (4 bits each of HMAC-SHA256, RFC 2104) that stand for ``text``; ``""`` stays ``""``.

    Parameters
    ----------
    kind : str
        What the text is, for instance ``group``; equal texts of different kinds get different pseudonyms.
    digits : int
        How many; more where a chance that two texts share one, 1 in 2^64 for any two texts and 16 digits, is too much.
    """
    if not text:
        return ""
    return hmac.new(key, f"{kind}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:digits]


def key_id(key: bytes) -> str:
    """The pseudonym of a key itself, by which a dataset says with which one it was made."""
    return pseudonym(key, "key", "id")
