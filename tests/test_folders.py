"""One process at a time writes into a folder, and a folder takes another's place as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from pneumo_fast import folders
from pneumo_fast.folders import locked, replaced_folder


def test_a_second_writer_is_refused_and_leaves_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path):
        for _ in range(2):
            with pytest.raises(BlockingIOError), locked(tmp_path):
                pass
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    hold = "import sys, pathlib, time\nfrom pneumo_fast.folders import locked\n"
    hold += "with locked(pathlib.Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(60)\n"
    owner = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    with owner, owner.stdout as said:
        said.readline()
        with pytest.raises(BlockingIOError), locked(tmp_path):
            pass
        owner.kill()
        owner.wait()
        assert list(tmp_path.iterdir()) != []
        with locked(tmp_path):
            pass


@pytest.mark.parametrize("written", [False, True])
def test_a_folder_goes_again_where_nothing_was_written(tmp_path: Path, *, written: bool) -> None:
    with locked(tmp_path / "new"):
        if written:
            (tmp_path / "new" / "x").touch()
    assert (tmp_path / "new").exists() == written


# ---- a folder that takes another's place


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_folder_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exchanged: bool
) -> None:
    if not exchanged:
        monkeypatch.setattr("pneumo_fast.folders._RENAME_EXCHANGE", 1 << 20)  # a flag that no kernel knows
    for content in ("first", "second"):
        with replaced_folder(tmp_path / "x", ["*.txt"]) as new:
            (new / "a.txt").write_text(content)
            (new / f"{content}.txt").touch()
        (tmp_path / "x" / "mine.png").touch()
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"a.txt", "second.txt", "mine.png"}
    assert (tmp_path / "x" / "a.txt").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_is_not_finished_takes_no_place(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.txt").write_text("before")

    def fail_half_way() -> None:
        with replaced_folder(tmp_path / "x", ["*.txt"]) as new:
            (new / "a.txt").write_text("half")
            raise MemoryError

    with pytest.raises(MemoryError):
        fail_half_way()
    assert (tmp_path / "x" / "a.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_folder_is_back_after_a_kill_between_two_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rename, renamed = tmp_path / "x", Path.rename, 0

    def replace(content: str) -> None:
        with replaced_folder(folder, ["*.txt"]) as new:
            (new / "a.txt").write_text(content)

    def last_rename(*places: Path) -> NoReturn:
        nonlocal renamed
        if not renamed:
            rename(*places)
        renamed += 1
        raise SystemExit

    monkeypatch.setattr(folders, "_RENAME_EXCHANGE", 1 << 20)  # a flag that no kernel knows
    replace("first")
    (folder / "mine.png").touch()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", last_rename)
        patched.setattr(folders, "_clear", lambda *_: None)
        with pytest.raises(SystemExit):
            replace("second")
    assert (renamed, folder.exists()) == (2, False)
    with pytest.raises(ZeroDivisionError), replaced_folder(folder, ["*.txt"]):
        _ = 1 // 0
    assert (folder / "a.txt").read_text() == "first"
    replace("third")
    assert (folder / "a.txt").read_text() == "third"
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["x", "x/a.txt", "x/mine.png"]


def test_one_process_at_a_time_replaces_a_folder(tmp_path: Path) -> None:
    with replaced_folder(tmp_path / "x", ["*.txt"]) as new:
        (new / "a.txt").write_text("mine")
        with pytest.raises(BlockingIOError, match="another process"), replaced_folder(tmp_path / "x", ["*.txt"]):
            pass
    assert (tmp_path / "x" / "a.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_not_ours_outlives_an_end_just_after_the_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    folder = tmp_path / "x"
    (folder / "theirs").mkdir(parents=True)
    for name in ("mine.png", "theirs/deep.png"):
        (folder / name).write_text("somebody's")
    exchange = folders._exchange

    def end(*places: Path) -> NoReturn:
        exchange(*places)
        raise SystemExit

    def replace() -> None:
        with replaced_folder(folder, ["*.txt"]) as new:
            (new / "a.txt").touch()

    with monkeypatch.context() as patched:
        patched.setattr(folders, "_exchange", end)
        if killed:  # then nothing is tidied up
            patched.setattr(folders, "_clear", lambda *_: None)
        with pytest.raises(SystemExit):
            replace()
    assert (folder / "mine.png").read_text() == "somebody's"
    replace()
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
        "a.txt", "mine.png", "theirs", "theirs/deep.png",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
