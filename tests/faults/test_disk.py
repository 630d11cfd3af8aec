"""A full disk ends a conversion in one line; with room made, it is resumed to the same dataset."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fault_tools import Site

MOUNT = shutil.which("mount")


@pytest.fixture
def small_disk(site: Site) -> Iterator[Path]:
    """A file system of 1 MB inside the site."""
    folder = site.folder / "small"
    folder.mkdir(exist_ok=True)
    if not MOUNT or os.geteuid() or _run(MOUNT, "-t", "tmpfs", "-o", "size=1m", "none", folder):
        pytest.skip("mounting a small file system takes root")
    yield folder
    assert _run(str(shutil.which("umount")), folder) == 0


@pytest.mark.parametrize("layout", ["shards", "folder"])
def test_full_disk(layout: str, small_disk: Path, site: Site, undisturbed: dict[str, dict[str, str]]) -> None:
    said = site.convert("small/dataset", "--layout", layout, expect=1)

    _assert_one_line(said, "No space left on device")
    site.assert_clean("small/dataset")
    assert list((small_disk / "dataset" / ".convert").glob("*-0*.json")), "nothing was finished before"
    assert _run(str(MOUNT), "-o", "remount,size=64m", small_disk) == 0
    site.convert("small/dataset", "--layout", layout, "--resume")
    assert site.contents("small/dataset") == undisturbed[layout]


def test_file_size_limit(site: Site, undisturbed: dict[str, dict[str, str]]) -> None:
    """Without root: the limit lets the last, short shards through and nothing else."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, before[1]))
    try:
        said = site.convert("limited", expect=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    _assert_one_line(said, "File too large")
    site.assert_clean("limited")
    site.convert("limited", "--resume")
    assert site.contents("limited") == undisturbed["shards"]


def _run(*command: str | Path) -> int:
    return subprocess.run(command, check=False).returncode


def _assert_one_line(said: str, reason: str) -> None:
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert reason in lines[0]
    assert "--resume" in lines[0]
    assert "Traceback" not in said
