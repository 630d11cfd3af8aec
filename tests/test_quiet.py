"""What libraries say while files are read, by several threads at once."""

from __future__ import annotations

import logging
import threading

import pytest

from pneumo_fast.quiet import quiet_pydicom


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
