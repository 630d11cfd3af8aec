"""Commands whose standard streams are closed, full or take ASCII alone."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pneumo_fast.phantoms.make import PhantomSet

COMMAND = f"{sys.executable} -m pneumo_fast"


def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command], env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing_that_is_written(closed: str, phantoms: PhantomSet, tmp_path: Path) -> None:
    arguments = f"{phantoms.images} {phantoms.labels} {tmp_path}/out --size 32 --workers 1 --keep-ids"
    ended = run(f"{COMMAND} convert {arguments} {closed}")
    assert ended.returncode == 0, ended.stderr
    assert run(f"{COMMAND} verify {tmp_path}/out").returncode == 0


@pytest.mark.parametrize("arguments", ["--help", "verify {dataset} --json"])
def test_a_full_output_is_told(arguments: str, own_dataset: Path) -> None:
    ended = run(f"{COMMAND} {arguments.format(dataset=shlex.quote(str(own_dataset)))} > /dev/full")
    assert ended.returncode == 1
    assert ended.stderr.endswith("error: a file or the output: No space left on device\n")
    assert "Traceback" not in ended.stderr


def test_a_folder_whose_name_is_no_text(own_dataset: Path) -> None:
    folder = own_dataset.rename(own_dataset.with_name("ds\udcff"))
    ended = run(f"{COMMAND} verify {shlex.quote(str(folder))}", PYTHONIOENCODING="utf-8:strict")
    assert ended.returncode == 0, ended.stderr


def test_output_that_takes_ascii_alone() -> None:
    ended = run(f"{COMMAND} train --help", PYTHONIOENCODING="ascii")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.isascii()
