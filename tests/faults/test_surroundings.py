"""What the world around a conversion does: it stops workers, changes files and turns the clock back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.verify import verify
from pneumo_fast.errors import ConvertError
from tests.faults.fault_tools import Site, wait_for


@pytest.mark.parametrize("when", ["at once", "in the middle"])
def test_a_worker_that_was_stopped_is_replaced(when: str, site: Site, undisturbed: dict[str, dict[str, str]]) -> None:
    """SIGSTOP, as a batch system or a debugger sends it, for longer than a file may take."""
    out = f"stopped {when}"
    slow = replace(site, arguments=(*site.arguments, "--timeout-s", "1"))
    process = slow.start(out)
    if when == "in the middle":
        wait_for(site.folder / out / ".convert", "*-0*.json")
    deadline = time.monotonic() + 30
    while not (workers := site.workers()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(workers[0], signal.SIGSTOP)
    try:
        said = "".join(process.communicate(timeout=90))
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert site.contents(out) == undisturbed["shards"]
    site.assert_clean(out)


@pytest.mark.parametrize(
    ("change", "reasons"), [("removed", {"not_readable"}), ("emptied", {"not_dicom"}), ("replaced", set())]
)
def test_files_that_change_before_they_are_read(change: str, reasons: set[str], site: Site, tmp_path: Path) -> None:
    images = Path(shutil.copytree(site.phantoms.images, tmp_path / "images"))
    other = min(images.iterdir()).read_bytes()

    def disturb(_done: int, _total: int) -> None:
        """Change all of them, once the first have been read."""
        for path in images.iterdir():
            if change == "removed":
                path.unlink()
            else:
                path.write_bytes(b"" if change == "emptied" else other)

    config = ConvertConfig(
        images=images, labels=site.phantoms.labels, out=tmp_path / "out", size=32, workers=1, keep_ids=True,
        shard_size=40, max_rejects=1.0,
    )  # fmt: skip
    convert(config, disturb)
    index, rejects = (pd.read_csv(config.out / name) for name in ("index.csv", "rejects.csv"))
    assert len(index) + len(rejects) == 160
    assert set(rejects["reason"]) == reasons
    assert verify(config.out) == []


def test_a_clock_that_is_turned_back(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards() -> Iterator[float]:
        now = 1e9
        while True:
            now -= 1000.0
            yield now

    clock = backwards()
    monkeypatch.setattr(time, "time", lambda: next(clock))
    config = ConvertConfig(
        images=site.phantoms.images,
        labels=site.phantoms.labels,
        out=tmp_path / "out",
        size=32,
        workers=1,
        keep_ids=True,
    )
    assert sum(sum(counts.values()) for counts in convert(config).manifest.counts.values()) == 160


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be taken by root alone")
def test_a_user_who_may_not_write_or_read(site: Site, tmp_path: Path) -> None:
    """One line for a folder that may not be written; a file that may not be read is a rejection."""
    images = Path(shutil.copytree(site.phantoms.images, tmp_path / "images"))
    min(images.iterdir()).chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            pytest.skip("the temporary folder is closed to other users")
    command = [sys.executable, "-m", "pneumo_fast", "convert", str(images), str(site.phantoms.labels)]
    options = ["--size", "32", "--workers", "1", "--keep-ids", "--max-rejects", "1"]
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)

    def run(out: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, str(out), *options], capture_output=True, text=True, check=False, user=65534, group=65534,
            extra_groups=[], env=os.environ | {"XDG_CONFIG_HOME": str(open_to_all), "HOME": str(open_to_all)},
        )  # fmt: skip

    ended = run(open_to_all / "out")
    if "No module named" in ended.stderr or "Permission denied: '/root" in ended.stderr:
        pytest.skip("the interpreter is closed to other users")
    assert ended.returncode == 0, ended.stderr
    assert list(pd.read_csv(open_to_all / "out" / "rejects.csv")["reason"]) == ["not_readable"]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    ended = run(closed / "out")
    assert ended.returncode == 1
    assert [line for line in ended.stderr.splitlines() if line.startswith("error: ")] == ended.stderr.splitlines()[-1:]


def test_ten_thousand_empty_files(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    names = [f"e{number:05d}" for number in range(10_000)]
    for name in names:
        (tmp_path / "images" / f"{name}.dcm").touch()
    pd.DataFrame({"patientId": names, "Target": [0, 1] * 5000}).to_csv(tmp_path / "labels.csv", index=False)
    config = ConvertConfig(
        images=tmp_path / "images", labels=tmp_path / "labels.csv", out=tmp_path / "out", size=32, workers=1,
        max_rejects=1.0, keep_ids=True,
    )  # fmt: skip
    with pytest.raises(ConvertError, match="no image is left for training"):
        convert(config)
    assert set(pd.read_csv(tmp_path / "out" / "rejects.csv")["reason"]) == {"not_dicom"}
