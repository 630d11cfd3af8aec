from __future__ import annotations

from pathlib import Path

import pytest

from pneumo_fast.dataset.format import MANIFEST
from pneumo_fast.errors import DatasetError, RunError
from pneumo_fast.folder_kinds import MARKS, Kind, check_kind, is_of_kind
from pneumo_fast.run.layout import BEST, CONFIG, fold_folder

ERRORS: dict[Kind, type[Exception]] = {"dataset": DatasetError, "run": RunError}


def make(folder: Path, mark: str) -> Path:
    (folder / mark).parent.mkdir(parents=True)
    (folder / mark).touch()
    return folder


def test_the_marks_are_files_of_the_formats() -> None:
    assert {"dataset": (MANIFEST,), "run": (CONFIG, BEST, f"{fold_folder(Path(), 1)}/{CONFIG}")} == MARKS


@pytest.mark.parametrize(("kind", "mark"), [(kind, mark) for kind, marks in MARKS.items() for mark in marks])
def test_a_folder_is_told_by_its_files(tmp_path: Path, kind: Kind, mark: str) -> None:
    other: Kind = "run" if kind == "dataset" else "dataset"
    folder = make(tmp_path / "x", mark)
    assert is_of_kind(folder, kind)
    assert not is_of_kind(folder, other)
    check_kind(folder, kind)
    with pytest.raises(ERRORS[other], match=rf"x is a {kind}, not a {other}: name a {other} folder$"):
        check_kind(folder, other)


@pytest.mark.parametrize(("kind", "command"), [("dataset", "convert"), ("run", "train")])
def test_a_folder_that_does_not_exist(tmp_path: Path, kind: Kind, command: str) -> None:
    message = f"^{kind} .*/x does not exist: name a {kind} folder, or run pneumo-fast {command} first$"
    with pytest.raises(ERRORS[kind], match=message):
        check_kind(tmp_path / "x", kind)


def test_a_folder_of_neither_kind_is_for_its_reader_to_refuse(tmp_path: Path) -> None:
    check_kind(tmp_path, "dataset")
    check_kind(tmp_path, "run")
