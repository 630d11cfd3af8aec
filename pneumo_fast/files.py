"""Files that are either whole or not there, and files that somebody else may have made.

Written to a temporary name, flushed to disk, renamed; read only where they are regular files, so that a pipe or a
device under a file's name cannot make a process wait or fill its memory.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

AnyPath = str | os.PathLike[str]
PARTIALS: Final = ".*.partial"
"""Files that are being written, or that a killed process has left half-written."""
LARGEST_FILE: Final = 1 << 34
"""Bytes; no file that is read as a whole is larger."""


def open_regular(path: Path, most: int = LARGEST_FILE) -> BufferedReader:
    """Open a regular file, or a link to one, for reading; never wait for a pipe or a device to say something.

    Parameters
    ----------
    most : int
        Bytes that it may have.

    Raises
    ------
    OSError
        If the file is missing, may not be read, is no regular file, or larger (EFBIG).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if (size := os.fstat(descriptor).st_size) > most:
            raise OSError(errno.EFBIG, f"{size:,} bytes, at most {most:,} expected", str(path))
        return open(descriptor, "rb")  # noqa: PTH123  # a descriptor; closed by the caller
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int = LARGEST_FILE) -> bytes:
    """All of a regular file; parameters and errors are those of :func:`open_regular`."""
    with open_regular(path, most) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def sha256_of(file: BinaryIO) -> str:
    """Checksum, in hexadecimal, of a file from where it stands to its end, read piece by piece."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def joint_checksum(checksums: Iterable[str]) -> str:
    """What stands for several checksums, in their order, where one is expected: their SHA-256, in hexadecimal."""
    return hashlib.sha256(" ".join(checksums).encode()).hexdigest()


@contextmanager
def atomic_file(
    path: Path, *, sync: bool = True, keep: Path | None = None, mode: int = 0o666, replace: bool = True
) -> Iterator[BinaryIO]:
    """Open a file, for writing and reading back, that appears under ``path`` only once it is complete and on disk.

    When the block raises, ``path`` is left as it was and the temporary file is removed. Without ``sync`` the file
    is whole for every reader but not yet safe from a power cut; one :func:`sync_filesystem` later makes many so.
    What was there before gets the name ``keep``, where one is given, once the new file is complete.

    Parameters
    ----------
    mode : int
        Who may read and write the file, at any moment; the process's umask takes from it.
    replace : bool
        Whether it takes the place of a file that is there, also of one that has appeared meanwhile.

    Raises
    ------
    FileExistsError
        If a file is there that it is not to replace, which is left as it is.
    OSError
        If the disk is full, the folder is missing or may not be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "x+b", opener=lambda name, flags: os.open(name, flags, mode)) as file:  # Path's has none
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if keep and path.exists():
            keep.unlink(missing_ok=True)
            try:
                keep.hardlink_to(path)
            except OSError:  # some file systems have no links
                shutil.copyfile(path, keep)
        if replace:
            partial.replace(path)
        elif not _is_linked(partial, path):
            try:
                partial.replace(path)
            except OSError:
                path.unlink(missing_ok=True)
                raise
    except OSError as error:
        if str(error.filename) == str(partial):  # which nobody knows of
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
    if sync:
        sync_path(path.parent)


def _is_linked(partial: Path, path: Path) -> bool:
    """Take a name that must be free, as of two processes only one can; whether the whole file has it already."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # some file systems have no links: an empty file takes the name, until it is replaced at once
        path.touch(mode=0o600, exist_ok=False)
        return False
    return True


def write_atomic(
    path: Path,
    data: bytes | str,
    *,
    sync: bool = True,
    keep: Path | None = None,
    mode: int = 0o666,
    replace: bool = True,
) -> None:
    """Write a small file whole or not at all, as :func:`atomic_file` does; text is encoded as UTF-8."""
    with atomic_file(path, sync=sync, keep=keep, mode=mode, replace=replace) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def sync_path(path: Path) -> None:
    """Flush a file to disk (fsync(2)), or a folder's entries, so that a rename in it survives a power cut.

    Raises
    ------
    OSError
        If it could not be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(folder: Path) -> None:
    """Flush everything written to the file system that holds ``folder``: files, names and folders (syncfs(2)).

    Raises
    ------
    OSError
        If something could not be written.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def sweep_partials(folder: Path) -> None:
    """Remove what killed processes left half-written below a folder, when no process writes there any more."""
    for partial in folder.rglob(PARTIALS):
        partial.unlink(missing_ok=True)
