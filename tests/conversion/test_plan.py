"""The plan: which file belongs to which row, what is left out and counted, and in which shard an image ends."""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pneumo_fast.conversion.labels import LabelTable
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.conversion.plan import Plan, cut_into_shards, find_files, hide_ids, make_plan
from pneumo_fast.dataset.pseudonyms import pseudonym
from pneumo_fast.errors import ConvertError


def table(ids: list[str], *, source: str = "none", **columns: Any) -> LabelTable:
    images = pd.DataFrame({"image_id": ids, "label": 0, "group": "", "class": ""}).assign(**columns)
    boxes = pd.DataFrame({"image_id": ids[:1], "x": 1.0, "y": 1.0, "width": 1.0, "height": 1.0})
    return LabelTable(images=images, boxes=boxes, group_source=source, left_out=images[:0])


def folder(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    return path


def plan(labels: LabelTable, images: Path, **options: Any) -> Plan:
    options = {"out": images / "nowhere", "val_fraction": 0.0, **options}
    return make_plan(labels, ConvertConfig(keep_ids=True, images=images, labels=images / "labels.csv", **options))


def paths(made: Plan) -> dict[str, str]:
    return dict(zip(made.images["image_id"], made.images["path"], strict=True))


# ---- files and rows


@pytest.mark.parametrize(
    ("ids", "files", "matched"),
    [
        pytest.param(["a", "b"], ["a.dcm", "b.png"], {"a": "a.dcm", "b": "b.png"}, id="any-ending"),
        pytest.param(["a"], ["a"], {"a": "a"}, id="no-ending"),
        pytest.param(["a"], ["x/y/a.dcm"], {"a": "x/y/a.dcm"}, id="any-depth"),
        pytest.param(["1.2.840", "1.2"], ["1.2.840", "1.2.dcm"], {"1.2.840": "1.2.840", "1.2": "1.2.dcm"}, id="dots"),
        pytest.param(["a", ".a"], ["a.dcm", ".a", ".x/b.dcm"], {"a": "a.dcm"}, id="hidden"),
        pytest.param(["A", "a"], ["A.dcm", "a.dcm"], {"A": "A.dcm", "a": "a.dcm"}, id="case"),
    ],
)  # fmt: skip
def test_an_image_belongs_to_the_row_with_its_name(
    tmp_path: Path, ids: list[str], files: list[str], matched: dict[str, str]
) -> None:
    assert paths(plan(table(ids), folder(tmp_path, *files))) == matched


def test_what_does_not_match_is_counted(tmp_path: Path) -> None:
    made = plan(table(["a", "b", "c"]), folder(tmp_path, "a.dcm", "d.dcm", "e.dcm", "x/readme.txt"))
    assert (len(made.unmatched), made.files_without_row) == (2, ("d.dcm", "e.dcm", "x/readme.txt"))


def test_the_file_of_a_row_that_is_left_out_has_a_row(tmp_path: Path) -> None:
    labels = replace(table(["a", "b"]), left_out=table(["d"]).images)
    made = plan(labels, folder(tmp_path, "a.dcm", "b.dcm", "d.dcm", "e.dcm"))
    assert set(paths(made)) == {"a", "b"}
    assert (made.unmatched, made.files_without_row) == ((), ("e.dcm",))


def test_several_files_of_one_row_are_ambiguous(tmp_path: Path) -> None:
    made = plan(table(["a", "b"]), folder(tmp_path, "a.dcm", "x/a.dcm", "b.dcm"))
    assert paths(made) == {"b": "b.dcm"}
    assert [(r["path"], r["reason"], r["detail"]) for r in made.rejects] == [
        ("a.dcm", "ambiguous", "2 files match one row: see --several"),
        ("x/a.dcm", "ambiguous", "2 files match one row: see --several"),
    ]
    assert (made.unmatched, made.files_without_row) == ((), ())


def test_paths_in_the_table_decide(tmp_path: Path) -> None:
    labels = table(["a", "b", "c"], path=["p/1.dcm", "q/1.dcm", "r/1.dcm"])
    made = plan(labels, folder(tmp_path, "p/1.dcm", "q/1.dcm", "s/1.dcm", "a.dcm"))
    assert paths(made) == {"a": "p/1.dcm", "b": "q/1.dcm"}
    assert (len(made.unmatched), made.files_without_row) == (1, ("a.dcm", "s/1.dcm"))


def test_links_are_files(tmp_path: Path) -> None:
    store = folder(tmp_path / "store", "1", "2")
    images = folder(tmp_path / "images")
    images.mkdir()
    (images / "soft.dcm").symlink_to(store / "1")
    (images / "broken.dcm").symlink_to(store / "gone")
    os.link(store / "2", images / "hard.dcm")
    (tmp_path / "link").symlink_to(images)
    assert set(paths(plan(table(["soft", "hard", "broken"]), tmp_path / "link"))) == {"soft", "hard", "broken"}


def test_links_to_folders_are_followed_and_each_folder_is_searched_once(tmp_path: Path) -> None:
    """A link to what lies there anyway, and loops, add nothing; the files keep their own paths."""
    folder(tmp_path / "store", "1/x.dcm", "2.dcm")
    images = folder(tmp_path / "images", "z/a.dcm", "dataset/b.dcm", "dataset/train/d.dcm", ".hidden/c.dcm")
    (images / "a").symlink_to(images / "z")
    (images / "loop").symlink_to(images)
    (images / "z" / "up").symlink_to("..")
    (images / "one").symlink_to(tmp_path / "store")
    (images / "two").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "1" / "back").symlink_to(tmp_path / "store")
    (images / "result").symlink_to(images / "dataset")
    (images / "newest").symlink_to(images / "dataset" / "train")
    assert find_files(images, images / "dataset") == ["one/1/x.dcm", "one/2.dcm", "z/a.dcm"]


def test_a_link_that_leads_above_the_images_finds_them_once(tmp_path: Path) -> None:
    images = folder(tmp_path / "above" / "images", "a.dcm", "../b.dcm")
    (images / "up").symlink_to(tmp_path / "above")
    assert find_files(images) == ["a.dcm", "up/b.dcm"]


@pytest.mark.parametrize("unread", ["Mustermann", "."])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_read_is_told(
    tmp_path: Path, number: int, unread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = folder(tmp_path / "some images", "a.dcm", "Mustermann/b.dcm")
    scandir = os.scandir

    def scan(path: Any = ".") -> Any:
        if Path(path) == images / unread:
            raise OSError(number, os.strerror(number), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(ConvertError) as told:
        find_files(images)
    assert f"a folder in {images} cannot be read ({os.strerror(number)})" in str(told.value)
    assert f"find -L '{images}' -type d" in str(told.value)
    assert "Mustermann" not in str(told.value)


def test_a_folder_that_has_gone_meanwhile_holds_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, scandir = folder(tmp_path, "a.dcm", "gone/b.dcm"), os.scandir

    def scan(path: Any = ".") -> Any:
        return scandir(path if Path(path).name != "gone" else images / "nowhere")

    monkeypatch.setattr(os, "scandir", scan)
    assert find_files(images) == ["a.dcm"]


def test_the_dataset_itself_holds_no_images(tmp_path: Path) -> None:
    """With the default OUT, and the layout of folders, a second conversion would find each image twice."""
    images = folder(tmp_path, "a.dcm", "dataset/train/0/a.npy", "x/dataset/b.dcm")
    made = plan(table(["a", "b"]), images, out=tmp_path / "x" / ".." / "dataset")
    assert paths(made) == {"a": "a.dcm", "b": "x/dataset/b.dcm"}


def test_a_name_that_is_no_unicode_is_shown_as_text(tmp_path: Path) -> None:
    made = plan(table(["a"]), folder(tmp_path, os.fsdecode(b"\xff/a.dcm")))
    assert made.images["shown_path"].tolist() == ["\\xff/a.dcm"]
    assert (tmp_path / made.images["path"][0]).exists()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("gone", "gone does not exist: give the folder"),
        ("empty", "empty holds no files: give the folder"),
        ("a.dcm", "a.dcm is a file: name the folder that holds it"),
        (".", "none of the 1 files .* 1 rows of the label table by its filename: .* --id-column or --path-column"),
    ],
)
def test_nothing_to_convert(tmp_path: Path, where: str, words: str) -> None:
    folder(tmp_path, "a.dcm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConvertError, match=words):
        plan(table(["b"]), tmp_path / where)


def test_files_of_rows_that_are_all_left_out(tmp_path: Path) -> None:
    images = folder(tmp_path, "a.dcm", "x/a.dcm")
    with pytest.raises(ConvertError, match=r"all 2 files that belong to a row .* \(ambiguous 2\): see --several, "):
        plan(table(["a"]), images)


# ---- groups


@pytest.mark.parametrize(("ungrouped", "images"), [("keep", {"a", "b", "c"}), ("drop", {"a", "c"})])
def test_images_without_group_are_kept_or_dropped(tmp_path: Path, ungrouped: str, images: set[str]) -> None:
    labels = table(["a", "b", "c", "gone"], group=["p", "", "q", ""], source="mapping")
    made = plan(labels, folder(tmp_path, "a", "b", "c"), ungrouped=ungrouped)
    assert set(paths(made)) == images
    assert made.ungrouped == 1


def test_without_groups_nothing_is_ungrouped(tmp_path: Path) -> None:
    made = plan(table(["a", "b"]), folder(tmp_path, "a", "b"), ungrouped="drop")
    assert (len(made.images), made.ungrouped) == (2, 0)


def test_dropping_every_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=r"none of the 1 images has a group.*--ungrouped keep"):
        plan(table(["a"], source="column"), folder(tmp_path, "a"), ungrouped="drop")


# ---- order and shards


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("images"), *(f"{i}.dcm" for i in range(100)))


IDS = [str(i) for i in range(100)]
OPTIONS: dict[str, Any] = {"val_fraction": 0.2, "test_fraction": 0.1, "shard_size": 8}


def test_the_order_of_the_table_changes_nothing(hundred: Path) -> None:
    one, other = plan(table(IDS), hundred, **OPTIONS), plan(table(IDS[::-1]), hundred, **OPTIONS)
    pd.testing.assert_frame_equal(one.images, other.images)


def test_images_are_split_and_stored_in_a_seeded_order(hundred: Path) -> None:
    made = [plan(table(IDS), hundred, seed=seed, val_fraction=0.2).images for seed in (0, 0, 1)]
    orders = [images["image_id"].tolist() for images in made]
    assert sorted(orders[0]) == sorted(IDS)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != IDS
    splits = [set(images.loc[images["split"] == "val", "image_id"]) for images in made]
    assert splits[0] == splits[1] != splits[2]


def test_shards_hold_one_split_each(hundred: Path) -> None:
    images = plan(table(IDS), hundred, **OPTIONS).images
    assert images["split"].drop_duplicates().tolist() == ["train", "val", "test"]
    assert Counter(images["task"]) == {
        **{f"train-{n:05d}": 8 for n in range(8)},
        "train-00008": 6,
        "val-00000": 8,
        "val-00001": 8,
        "val-00002": 4,
        "test-00000": 8,
        "test-00001": 2,
    }
    assert (images["task"].str.rsplit("-", n=1).str[0] == images["split"]).all()


@pytest.mark.parametrize(
    ("images", "shards", "largest"),
    [(1, 1, 1), (33, 2, 32), (2_048, 64, 32), (6_400, 64, 100), (70_000, 64, 1_094), (400_000, 98, 4_096)],
)
def test_default_shards_are_neither_many_nor_large(images: int, shards: int, largest: int) -> None:
    sizes = Counter(cut_into_shards(pd.DataFrame({"split": ["val"] * images}), None)["task"])
    assert (len(sizes), max(sizes.values())) == (shards, largest)


# ---- pseudonyms


def test_hidden_ids(tmp_path: Path) -> None:
    key = bytes(32)
    labels = table(["a", "b", "c", "gone"])
    made = plan(labels, folder(tmp_path, "a.dcm", "c.dcm", "b.dcm", "x/b.dcm", "stray.dcm"))
    hidden_labels, hidden = hide_ids(labels, made, key)
    assert hidden.images["image_id"].tolist() == [pseudonym(key, "image", i) for i in made.images["image_id"]]
    assert hidden.images["shown_path"].tolist() == [pseudonym(key, "path", p) for p in made.images["path"]]
    assert hidden_labels.boxes["image_id"].tolist() == [pseudonym(key, "image", "a")]
    assert [r["path"] for r in hidden.rejects] == [pseudonym(key, "path", p) for p in ("b.dcm", "x/b.dcm")]
    assert hidden.unmatched == (pseudonym(key, "image", "gone"),)
    assert hidden.files_without_row == (pseudonym(key, "path", "stray.dcm"),)
    assert hidden.images["path"].equals(made.images["path"])
