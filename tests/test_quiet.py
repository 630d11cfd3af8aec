"""What libraries say while files are read, by several threads at once."""

from __future__ import annotations

import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from pneumo_fast.quiet import quiet, quiet_pydicom


def test_pydicom_is_quiet_in_each_thread_as_long_as_it_reads(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("pydicom")
    inside, leave = threading.Event(), threading.Event()

    def read() -> None:
        with quiet_pydicom():
            inside.set()
            leave.wait(10)
            logger.warning("said while it is read")

    thread = threading.Thread(target=read)
    with quiet_pydicom():
        thread.start()
        assert inside.wait(10)
        logger.warning("said while it is read")
    leave.set()
    thread.join()
    logger.warning("said afterwards")
    assert caplog.messages == ["said afterwards"]


def test_blocks_of_two_threads_leave_warnings_and_levels_as_they_were() -> None:
    """The second to enter stays in its block when the first leaves: what both change is of the whole process."""
    logger, inside, left = logging.getLogger("somebody.else"), threading.Event(), threading.Event()
    filters, level = list(warnings.filters), logger.level

    def second() -> None:
        with quiet("somebody.else", below=logging.ERROR), quiet_pydicom():
            inside.set()
            left.wait(10)
            warnings.warn("of a patient", stacklevel=1)  # an error in tests, unless it is let out by nobody
            assert not logger.isEnabledFor(logging.WARNING)

    with ThreadPoolExecutor(1) as pool:
        with quiet("somebody.else", below=logging.ERROR), quiet_pydicom():
            end = pool.submit(second)
            assert inside.wait(10)
        left.set()
        end.result()
    assert (list(warnings.filters), logger.level) == (filters, level)
