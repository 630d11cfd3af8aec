"""Keeps what libraries say of their own steps from those who use this package."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


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


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Let out nothing that pydicom says while a file is read, as warning or in its log: it quotes the patient module.

    For every file, and so without a change of level, which takes several times as long.
    """
    logger = logging.getLogger("pydicom")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        disabled, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = disabled
