"""Ctrl-C and SIGTERM stop a conversion at once and cleanly; resumed, it completes."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.faults.fault_tools import Site, wait_for

STOPPED_S = 2.0


@pytest.mark.parametrize(
    ("number", "to_group", "code", "word", "layout"),
    [
        (signal.SIGINT, True, 130, "interrupted", "shards"),  # as a terminal sends it, to everybody
        (signal.SIGINT, True, 130, "interrupted", "folder"),
        (signal.SIGTERM, False, 143, "terminated", "shards"),  # as kill sends it
        (signal.SIGTERM, True, 143, "terminated", "folder"),  # as batch systems send it
    ],
)
def test_signal_stops_and_resume_completes(
    number: int,
    to_group: bool,
    code: int,
    word: str,
    layout: str,
    site: Site,
    undisturbed: dict[str, dict[str, str]],
) -> None:
    out = f"stopped-{number}-{to_group}-{layout}"
    process = site.start(out, "--layout", layout)
    wait_for(site.folder / out / ".convert", "*-00000.json")

    begin = time.monotonic()
    (os.killpg if to_group else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=30)

    assert time.monotonic() - begin < STOPPED_S
    assert process.returncode == code
    assert [line for line in errors.strip().splitlines() if "--keep-ids" not in line] == [word]
    assert not site.processes()
    site.assert_clean(out)
    site.convert(out, "--layout", layout, "--resume")
    assert site.contents(out) == undisturbed[layout]
