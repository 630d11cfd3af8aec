"""A file is there whole, as it was, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pneumo_fast.files import atomic_file, open_regular, read_regular, sweep_partials, sync_filesystem, write_atomic


@pytest.mark.parametrize("data", ["text: ü\n", b"\0bytes", ""])
def test_written_whole(tmp_path: Path, data: str | bytes) -> None:
    for _ in range(2):  # also over itself
        write_atomic(tmp_path / "x", data)
        assert (tmp_path / "x").read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("sync", [False, True])
def test_it_has_its_name_once_it_is_on_disk_and_then_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flush(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append("folder" if path == tmp_path else path.read_text())
        fsync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", rename)
    write_atomic(tmp_path / "x", "all of it", sync=sync)
    assert steps == (["all of it", "rename", "folder"] if sync else ["rename"])


@pytest.mark.parametrize("name", ["folder", "missing/x"])
def test_a_failure_names_the_file_that_was_to_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        write_atomic(tmp_path / name, "")
    assert caught.value.filename == str(tmp_path / name)


@pytest.mark.parametrize("before", [None, "before"])
@pytest.mark.parametrize("sync", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path: Path, before: str | None, sync: bool) -> None:
    path = tmp_path / "x"
    if before:
        path.write_text(before)

    def fail_half_way() -> None:
        with atomic_file(path, sync=sync) as file:
            file.write(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail_half_way()
    assert [p.read_text() for p in tmp_path.iterdir()] == ([before] if before else [])


def no_links(*_: object) -> None:
    raise PermissionError("this file system has none")


@pytest.mark.parametrize("links", [True, False])
def test_what_was_there_is_kept_once_the_new_file_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path, kept = tmp_path / "x", tmp_path / "kept"
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    for data in ("first", "second", "third"):
        write_atomic(path, data, keep=kept)
    assert (path.read_text(), kept.read_text()) == ("third", "second")

    def fail_half_way() -> None:
        with atomic_file(path, keep=kept) as file:
            file.write(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail_half_way()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"x": "third", "kept": "second"}


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_has_its_mode_at_any_moment(tmp_path: Path, mode: int) -> None:
    with atomic_file(tmp_path / "new", mode=mode) as file:
        assert os.fstat(file.fileno()).st_mode & 0o777 == mode
    assert (tmp_path / "new").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("links", [True, False])
def test_what_has_appeared_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    write_atomic(tmp_path / "new", "mine", replace=False)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "new", "other", replace=False)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("new", "mine")]


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "gone" / "x", "")


def test_partials_of_killed_processes_are_swept(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in (".x.npy.0123abcd.partial", "deep/.y.json.0123abcd.partial", "x.partial", ".hidden"):
        (tmp_path / name).touch()
    sweep_partials(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {"deep", "x.partial", ".hidden"}


def test_sync_of_a_missing_folder(tmp_path: Path) -> None:
    sync_filesystem(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_filesystem(tmp_path / "gone")


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_pipe, link_to_zeros, Path.mkdir])
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
        read_regular(tmp_path / "x")


def test_a_regular_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "link", most=7) == b"content"
    with open_regular(tmp_path / "link") as file:
        assert file.read(4) == b"cont"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="1,099,511,627,776 bytes, at most 8 expected"):
        read_regular(tmp_path / "x", most=8)


# ---- one writer in a folder
