"""The folder written to: when it is taken, and what in it is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from pneumo_fast.conversion.resume import ARGUMENTS
from pneumo_fast.conversion.task import WORK_FOLDER
from pneumo_fast.errors import ConvertError
from pneumo_fast.folders import locked
from pneumo_fast.vocabulary import Layout
from tests.support.conversions import LAYOUTS, contents, run, write_input

pytestmark = pytest.mark.usefixtures("shared_worker")


def test_a_dataset_is_not_replaced_unasked(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    run(config)
    before = contents(config.out)
    with pytest.raises(ConvertError, match="holds a dataset: give --overwrite"):
        run(config, seed=1)
    assert contents(config.out) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, overwrite: bool) -> None:
    config = write_input(tmp_path)
    config.out.mkdir()
    (config.out / "index.csv").write_text("mine")
    with pytest.raises(ConvertError, match="holds files that are not a dataset"):
        run(config, overwrite=overwrite)
    assert contents(config.out).keys() == {"index.csv"}


@pytest.mark.parametrize(("out", "words"), [("labels.csv", "is a file"), ("labels.csv/x", "cannot be written")])
def test_a_file_in_the_way(tmp_path: Path, out: str, words: str) -> None:
    config = write_input(tmp_path)
    with pytest.raises(ConvertError, match=words):
        run(config, out=tmp_path / out)


@pytest.mark.parametrize("content", ["{}", '{"format": "another tool"}', "x"])
def test_a_manifest_of_another_tool_is_no_dataset(tmp_path: Path, content: str) -> None:
    config = write_input(tmp_path)
    config.out.mkdir()
    (config.out / "manifest.json").write_text(content)
    with pytest.raises(ConvertError, match="holds files that are not a dataset"):
        run(config, overwrite=True)
    assert (config.out / "manifest.json").read_text() == content


@pytest.mark.parametrize("content", ["", "{", "[]", '{"options": {}}', '{"options": 1, "input_digest": ""}'])
def test_damaged_arguments_cannot_be_resumed_and_are_left(tmp_path: Path, content: str) -> None:
    config = write_input(tmp_path)
    (config.out / WORK_FOLDER).mkdir(parents=True)
    (config.out / WORK_FOLDER / ARGUMENTS).write_text(content)
    with pytest.raises(ConvertError, match=r"dataset cannot be resumed \(.*\): replace it \(convert --overwrite\)"):
        run(config, resume=True)
    assert (config.out / WORK_FOLDER / ARGUMENTS).read_text() == content


def test_a_box_that_was_moved_is_another_input(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    table = "patientId,x,y,width,height,Target\n" + "".join(
        f"i{number}," + ("{x},2,3,4,1\n" if number % 3 == 0 else ",,,,0\n") for number in range(12)
    )
    config.labels.write_text(table.format(x=1))
    run(config)
    run(config, resume=True)
    config.labels.write_text(table.format(x=9))
    with pytest.raises(ConvertError, match="what differs: the image files, the tables or the hash key"):
        run(config, resume=True)


def test_a_second_conversion_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    with locked(config.out), pytest.raises(ConvertError, match="another conversion writes there: wait for its end"):
        run(config)
    run(config)


def test_overwriting_can_be_killed_at_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_input(tmp_path)
    run(config)
    unlink, removed = Path.unlink, 0

    def fail_later(path: Path, missing_ok: bool = False) -> None:
        nonlocal removed
        removed += 1
        if removed > 4:
            raise OSError(5, "Input/output error")
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail_later)
        with pytest.raises(ConvertError, match="Input/output error"):
            run(config, overwrite=True)
    run(config, overwrite=True)


@LAYOUTS
def test_overwriting_touches_only_its_own_files(tmp_path: Path, layout: Layout) -> None:
    config = write_input(tmp_path)
    run(config, layout="folder" if layout == "shards" else "shards")
    mine = ["notes.txt", "train/notes.txt", "train/0/mine.npy", "val/mine/x.npy", "mine/index.csv", "train-00099.npy"]
    for name in mine:
        (config.out / name).parent.mkdir(parents=True, exist_ok=True)
        (config.out / name).write_text("mine")
    run(config, layout=layout, overwrite=True)
    run(config, layout=layout, out=tmp_path / "fresh")
    kept = {path: digest for path, digest in contents(config.out).items() if digest != "folder" and path not in mine}
    fresh = {path: digest for path, digest in contents(tmp_path / "fresh").items() if digest != "folder"}
    assert kept == fresh
    assert all((config.out / name).read_text() == "mine" for name in mine)
