"""Folders that one process at a time writes into, and that take the place of former ones as a whole."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pneumo_fast.files import PARTIALS, sync_path

LOCK: Final = ".lock"
"""The file by which a process says that it writes into a folder."""
_HERE: Final = -100  # AT_FDCWD: paths are relative to the working directory
_RENAME_EXCHANGE: Final = 2


@contextmanager
def locked(folder: Path, mode: int = 0o777) -> Iterator[None]:
    """Be the only process that writes into a folder; a dead process holds no lock.

    The folder is made where it is missing, with this mode, and goes again where nothing was written into it.

    Raises
    ------
    BlockingIOError
        If another process writes there.
    OSError
        If the folder cannot be made or written.
    """
    path, there = folder / LOCK, folder.exists()
    while True:
        folder.mkdir(mode, parents=True, exist_ok=True)
        try:  # not truncated, and open for writing, without which NFS gives no exclusive lock
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the last owner has just removed the folder
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                break
        except BlockingIOError as error:
            os.close(descriptor)
            raise BlockingIOError(errno.EWOULDBLOCK, "another process writes there", str(folder)) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner has just removed it
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before the lock goes, or the next owner's would be removed
            if not there:
                folder.rmdir()
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def replaced_folder(folder: Path, ours: Sequence[str]) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``folder`` at once when the block ends.

    When the block raises, or the process is killed, what was there before is left as it was; where the file system
    cannot exchange two names, a kill between two renames leaves it aside until the next call.

    Parameters
    ----------
    folder : Path
        It need not be there.
    ours : sequence of str
        Patterns of the file names that go with the former folder; other people's files stay.

    Raises
    ------
    BlockingIOError
        If another process is about to replace it.
    OSError
        If a file stands under that name, the disk is full or the folder above may not be written.
    """
    work = folder.with_name(f".{folder.name}.new")
    new, former = work / "new", work / "former"

    def tidy() -> None:
        if former.is_dir() and not os.path.lexists(folder):
            former.rename(folder)
        for place in (new, former):
            _clear(place, folder, ours)

    with locked(work):
        tidy()  # of a process that was killed
        new.mkdir()
        try:
            yield new
            if folder.is_dir():
                for path in _foreign(folder, ours):
                    with suppress(OSError):  # a folder, or the file system has no links: moved when the former goes
                        os.link(path, new / path.name, follow_symlinks=False)
                _exchange(new, folder, former)
            else:
                new.rename(folder)
            sync_path(folder.parent)
        finally:
            tidy()
    with suppress(OSError):
        work.rmdir()  # where a process was killed, the lock had found it


def _foreign(folder: Path, ours: Sequence[str]) -> list[Path]:
    """What other people have put into a folder, if it is there."""
    patterns = (*ours, PARTIALS)
    inside = folder.iterdir() if folder.is_dir() else ()
    return [path for path in inside if not any(path.match(pattern) for pattern in patterns)]


def _clear(new: Path, folder: Path, ours: Sequence[str]) -> None:
    """Remove what is not, or no longer, in the folder's place, but move into that what other people put there."""
    for path in _foreign(new, ours):
        if not os.path.lexists(folder / path.name):
            path.rename(folder / path.name)
    shutil.rmtree(new, ignore_errors=True)


def _exchange(new: Path, folder: Path, former: Path) -> None:
    """Put a new folder in the place of one, in one step where the file system can exchange names (renameat2(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_HERE, os.fsencode(new), _HERE, os.fsencode(folder), _RENAME_EXCHANGE):
        folder.rename(former)
        new.rename(folder)


def mode_for_others(folder: Path) -> str:
    """The mode of a folder that other users may list or enter, as ``0755``; empty where its owner alone may."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    return f"{mode:04o}" if mode & 0o077 else ""
