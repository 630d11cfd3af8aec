"""Keeps what libraries say of their own steps from those who use this package."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final


@contextmanager
def quiet(*loggers: str, below: int) -> Iterator[None]:
    """Let out no warning while the block runs, and no message of these loggers that is of a level below ``below``."""
    with quiet_loggers(*loggers, below=below), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def quiet_loggers(*loggers: str, below: int) -> Iterator[None]:
    """Let out no message of these loggers that is of a level below ``below`` while the block runs."""
    named = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in named]
    for logger in named:
        logger.setLevel(below)
    try:
        yield
    finally:
        for logger, level in zip(named, levels, strict=True):
            logger.setLevel(level)


_silent: Final = ContextVar("_silent", default=False)
logging.getLogger("pydicom").addFilter(lambda _record: not _silent.get())


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Let out no warning, and nothing of pydicom's logger, while this thread reads a file: both quote patients' values.

    By a filter, since this is for every file, and a change of level takes several times as long.
    """
    token = _silent.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _silent.reset(token)
