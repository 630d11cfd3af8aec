"""Pseudonyms: keyed hashes that cannot be undone without a key that stays outside every dataset."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from pneumo_fast.errors import ConvertError

KEY_BYTES = 32


def default_key_path() -> Path:
    """Where the key lies unless told otherwise: the user's configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "pneumo-fast" / "hash.key"


def load_key(path: Path | None = None) -> bytes:
    """Read the key, making a new random one where there is none yet (readable by its owner alone).

    With the same key the same patient has the same pseudonym in every dataset, so that patients shared between
    two datasets can be counted.

    Raises
    ------
    ConvertError
        If the key cannot be read, written, or has the wrong length.
    """
    path = path or default_key_path()
    try:
        if not path.exists():
            _make_key(path)
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not hexadecimal text"
        raise ConvertError(f"hash key {path} cannot be used ({reason}): name another with --hash-key") from error
    if len(key) != KEY_BYTES:
        raise ConvertError(f"hash key {path} has {len(key)} bytes, {KEY_BYTES} expected: name another with --hash-key")
    return key


def _make_key(path: Path) -> None:
    """Write a new key so that two processes starting at once end with the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
    try:
        os.link(partial, path)
    except FileExistsError:
        pass  # the other process was first: its key counts
    finally:
        partial.unlink()


def pseudonym(key: bytes, kind: str, text: str) -> str:
    """16 hexadecimal digits (64 bits of HMAC-SHA256, RFC 2104) that stand for ``text``; ``""`` stays ``""``.

    Parameters
    ----------
    kind : str
        What the text is, for instance ``group``; equal texts of different kinds get different pseudonyms.
    """
    if not text:
        return ""
    return hmac.new(key, f"{kind}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]
