"""What the world around a conversion does: it stops workers, changes files and turns the clock back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
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
from tests.faults.fault_tools import Site, poisonous, wait_for


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
        for path in list(images.iterdir()):
            if change == "removed":
                path.unlink()
            else:  # at once: what is half-written is another test's
                (tmp_path / "new").write_bytes(b"" if change == "emptied" else other)
                (tmp_path / "new").replace(path)

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


GROUPS = {
    "v1": (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    "v2": (Path("/sys/fs/cgroup"), "memory.max"),
}
"""Where control groups of memory are made, and the file that limits one."""
ENOUGH_BYTES = 600 << 20
"""For a conversion and its two workers."""


@pytest.fixture(params=sorted(GROUPS))
def memory_group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A control group whose processes together may take no more than :data:`ENOUGH_BYTES`."""
    parent, limit = GROUPS[request.param]
    group = parent / f"pneumo-fast-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory group of {request.param} can be made ({error.strerror})")
    try:
        with (group / limit).open("r+") as file:  # which makes no file where there is none
            file.write(str(ENOUGH_BYTES))
        yield group
    except FileNotFoundError:
        pytest.skip(f"control groups of {request.param} limit no memory here")
    finally:
        group.rmdir()


def test_the_kernel_kills_a_worker_that_fills_its_memory_group(
    memory_group: Path, site: Site, request: pytest.FixtureRequest
) -> None:
    """As in a container or a batch job: the worker goes, its file is rejected, all others are stored."""
    out = request.node.name
    glutton = sorted(site.phantoms.images.iterdir())[50]
    join = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(memory_group))
    hooked = replace(
        site,
        wrapper=join,
        arguments=(*site.arguments, "--max-rejects", "1"),
        environment=poisonous({glutton.stem: "fill"}, site.folder / "filled.log"),
    )
    hooked.convert(out)
    site.assert_clean(out)
    (reject,) = pd.read_csv(site.folder / out / "rejects.csv").to_dict("records")
    assert reject == {"path": glutton.name, "reason": "crashed", "detail": "the decoder crashed (SIGKILL)"}
    assert len(pd.read_csv(site.folder / out / "index.csv")) == 159
    assert verify(site.folder / out) == []


NOBODY = "65534"
AS_NOBODY = 'mount --bind "$0" "$1" && cd "$1" && shift && exec setpriv --reuid {0} --regid {0} --clear-groups "$@"'
"""In a name space of its own, so that the mount ends with the command."""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_nobody(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python as another user, for whom the interpreter is brought out of root's home and home is ``folder``."""
    python = folder / "python"
    python.mkdir(exist_ok=True)
    program = python / Path(sys.executable).resolve().relative_to(sys.base_prefix)
    command = ["unshare", "--mount", "sh", "-c", AS_NOBODY.format(NOBODY), sys.base_prefix, str(python), str(program)]
    places = [place for place in sys.path if place and not place.startswith(sys.base_prefix)]
    own = {"PYTHONPATH": os.pathsep.join(places), "HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "theirs")}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=os.environ | own)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a command as another user")
def test_a_user_who_may_not_write_or_read(site: Site, open_folder: Path) -> None:
    """One line for a folder that may not be written; a file that may not be read is a rejection."""
    images = Path(shutil.copytree(site.phantoms.images, open_folder / "images"))
    labels = shutil.copy(site.phantoms.labels, open_folder)
    unreadable = min(images.iterdir())
    unreadable.chmod(0)
    (open_folder / "theirs").mkdir()
    (open_folder / "theirs").chmod(0o777)
    (open_folder / "closed").mkdir()
    if (probe := as_nobody(open_folder, "-c", "import pandas, pneumo_fast")).returncode:
        pytest.skip(f"the checkout or the interpreter is closed to other users: {probe.stderr[-200:]}")

    def convert_into(folder: str) -> subprocess.CompletedProcess[str]:
        inputs = ("-m", "pneumo_fast", "convert", str(images), str(labels), str(open_folder / folder / "out"))
        return as_nobody(open_folder, *inputs, "--size", "32", "--workers", "1", "--keep-ids", "--max-rejects", "1")

    ended = convert_into("theirs")
    assert ended.returncode == 0, ended.stderr
    rejects = pd.read_csv(open_folder / "theirs" / "out" / "rejects.csv")
    assert rejects[["path", "reason"]].to_numpy().tolist() == [[unreadable.name, "not_readable"]]
    ended = convert_into("closed")
    assert ended.returncode == 1
    (line,) = (line for line in ended.stderr.splitlines() if "--keep-ids" not in line)
    assert line.startswith("error: ")
    assert "Permission denied" in line
    assert not list((open_folder / "closed").iterdir())


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
