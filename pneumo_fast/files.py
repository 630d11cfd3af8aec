"""Files that are either whole or not there: write to a temporary name, flush to disk, rename."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file for binary writing that appears under ``path`` only once it is complete and on disk.

    When the block raises, ``path`` is left as it was and the temporary file is removed. Without ``sync`` the file
    is whole for every reader but not yet safe from a power cut; one :func:`os.sync` later makes many files so.

    Raises
    ------
    OSError
        If the disk is full, the folder is missing or may not be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if sync:
        sync_folder(path.parent)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a small file whole or not at all; text is encoded as UTF-8."""
    with atomic_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
