"""Keeps what libraries say of their own steps from those who use this package.

Filters of warnings and levels of loggers are the whole process's: of several threads, the first that enters a block
changes them, and the last that leaves puts them back.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Final

_lock: Final = threading.Lock()
_open: Final[dict[Hashable, tuple[int, AbstractContextManager[None]]]] = {}


@contextmanager
def quiet(*loggers: str, below: int) -> Iterator[None]:
    """Let out no warning while the block runs, and no message of these loggers that is of a level below ``below``."""
    with quiet_loggers(*loggers, below=below), _shared("warnings", _no_warnings):
        yield


@contextmanager
def quiet_loggers(*loggers: str, below: int) -> Iterator[None]:
    """Let out no message of these loggers that is of a level below ``below`` while the block runs."""
    with ExitStack() as stack:
        for name in loggers:
            stack.enter_context(_shared((name, below), partial(_level, logging.getLogger(name), below)))
        yield


_silent: Final = ContextVar("_silent", default=False)
logging.getLogger("pydicom").addFilter(lambda _record: not _silent.get())


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Let out no warning, and nothing of pydicom's logger, while this thread reads a file: both quote patients' values.

    By a filter, since this is for every file, and a change of level takes several times as long.
    """
    token = _silent.set(True)
    try:
        with _shared("warnings", _no_warnings):
            yield
    finally:
        _silent.reset(token)


class _shared:  # noqa: N801  # called like a function, as those of contextlib are; theirs takes twice as long
    """Keep a change for as long as any thread is in a block of this key."""

    __slots__ = ("_change", "_key")

    def __init__(self, key: Hashable, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._key, self._change = key, change

    def __enter__(self) -> None:
        """Change it, or count one more."""
        with _lock:
            inside, changed = _open.get(self._key) or (0, self._change())
            if not inside:
                changed.__enter__()
            _open[self._key] = inside + 1, changed

    def __exit__(self, *_: object) -> None:
        """Count one less, or put it back."""
        with _lock:
            inside, changed = _open.pop(self._key)
            if inside > 1:
                _open[self._key] = inside - 1, changed
            else:
                changed.__exit__(None, None, None)


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _level(logger: logging.Logger, level: int) -> Iterator[None]:
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
