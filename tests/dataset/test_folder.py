"""Datasets on disk: opening gives what was written, and every damage is told in one clear line."""

from __future__ import annotations

import io
import json
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo_fast.dataset.folder import Dataset, csv_text, write_table
from pneumo_fast.dataset.format import BOX_COLUMNS, INDEX_TYPES, Manifest
from pneumo_fast.dataset.verify import verify
from pneumo_fast.errors import DatasetError
from tests.support.make_dataset import as_former
from tests.support.strategies import IN_PLACE, JSON


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def forge_table(folder: Path, name: str, text: str) -> None:
    """Change a table, and the checksum that the manifest holds of it."""
    (folder / name).write_text(text)
    tables = json.loads((folder / "manifest.json").read_text())["tables"]
    edit_manifest(folder, tables=tables | {name: sha256(text.encode()).hexdigest()})


# ---- a sound dataset


def test_opened_dataset(dataset: Dataset) -> None:
    assert (dataset.size, dataset.dtype.str, dataset.scale) in {(32, "<f2", 1.0), (32, "|u1", 255.0)}
    assert tuple(dataset.index) == tuple(INDEX_TYPES)
    assert tuple(dataset.boxes) == BOX_COLUMNS
    assert dataset.identity == sha256((dataset.path / "manifest.json").read_bytes()).hexdigest()
    assert 0 < dataset.mean < 1
    assert 0 < dataset.std < 1


def test_every_image_has_its_place(dataset: Dataset) -> None:
    for shard in dataset.manifest.shards:
        images = np.load(dataset.path / shard.name, mmap_mode="r")
        rows = dataset.index[dataset.index["shard"] == shard.name]
        assert images.shape == (shard.rows, dataset.size, dataset.size)
        assert images.dtype == dataset.dtype
        assert rows["row"].tolist() == list(range(shard.rows))
        assert set(rows["split"]) == {shard.split}
        digests = [sha256(image).digest() for image in images]
        header = (dataset.path / shard.name).read_bytes()[: -images.nbytes]
        assert sha256(header + b"".join(digests)).hexdigest() == shard.checksum
        assert [digest.hex()[:16] for digest in digests] == rows["pixel_hash"].tolist()


def test_rows_of_a_split_are_in_storage_order(dataset: Dataset) -> None:
    for split in ("train", "val"):
        rows = dataset.rows(split)
        assert rows.index.tolist() == list(range(len(rows)))
        assert rows[["shard", "row"]].apply(tuple, axis=1).is_monotonic_increasing
    assert len(dataset.rows("train")) + len(dataset.rows("val")) == len(dataset.index)


@pytest.mark.parametrize("split", ["test", "training", ""])
def test_a_split_that_is_not_there(dataset: Dataset, split: str) -> None:
    with pytest.raises(DatasetError, match=f"has no {split!r} images: its splits are train, val"):
        dataset.rows(split)


def test_columns_have_their_types(dataset: Dataset) -> None:
    for name, kind in INDEX_TYPES.items():
        assert all(isinstance(value, kind) for value in dataset.index[name].tolist()), name
    assert all(dataset.boxes[name].dtype == np.float64 for name in BOX_COLUMNS[1:])


def test_a_manifest_is_read_as_it_was_written(dataset: Dataset) -> None:
    text = dataset.manifest.to_json()
    assert Manifest.from_json(text) == dataset.manifest
    assert text == (dataset.path / "manifest.json").read_text()


def test_odd_text_comes_through_a_table(own_dataset: Path) -> None:
    index = Dataset.open(own_dataset).index
    odd = index.assign(notes=['"', ",", "ü\n", "NA", "", " x ", "nan", "1.0"] * (len(index) // 8))
    write_table(own_dataset, "index.csv", odd)
    forge_table(own_dataset, "index.csv", (own_dataset / "index.csv").read_text())
    assert Dataset.open(own_dataset).index["notes"].tolist() == odd["notes"].tolist()


def test_a_carriage_return_comes_through_a_table() -> None:
    """And the rest of the table is what pandas makes of it."""
    texts = ["a\rb", "\r", "\r\n", "c,\r", 'q"', "", "x\n", "plain"]
    table = pd.DataFrame({"class": texts, "mean": [0.1, 1e-12, 1.0, 1 / 3, 2e20, 5.0, -0.0, 7.5], "row": range(8)})
    read = pd.read_csv(io.BytesIO(csv_text(table).encode()), dtype=str, keep_default_na=False)
    assert read["class"].tolist() == texts
    without = table.assign(**{"class": [text.replace("\r", "_") for text in texts]})
    assert csv_text(without) == without.to_csv(index=False)
    plain = pd.read_csv(io.StringIO(csv_text(without)), dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(read[["mean", "row"]], plain[["mean", "row"]])
    assert csv_text(table).startswith('class,mean,row\n"a\rb",0.1,0\n')


# ---- damage


def cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edit(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_manifest(folder, **changes)


def flip_a_digit(folder: Path) -> None:
    path = folder / "boxes.csv"
    path.write_text(path.read_text().replace("0", "1", 1))


def drop_a_column(folder: Path) -> None:
    forge_table(folder, "index.csv", "image_id,split\na,train\n")


def spoil_a_number(folder: Path) -> None:
    text = (folder / "index.csv").read_text()
    forge_table(folder, "index.csv", text.replace("train-00000.npy,0,", "train-00000.npy,zero,", 1))


def spoil_a_box(folder: Path) -> None:
    forge_table(folder, "boxes.csv", ",".join(BOX_COLUMNS) + "\na,b,c,d,e,f,g\n")


def lose_a_box_column(folder: Path) -> None:
    forge_table(folder, "boxes.csv", "image_id,x\na,1\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove("manifest.json"), "is not a dataset: it has no manifest.json; run pneumo-fast convert"),
        (cut("manifest.json"), "not a complete manifest"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff"), "can't decode byte"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "not a complete manifest"),
        (edit(format_version=4), "version 4; this release reads 'pneumo-fast dataset' version 1 to 3"),
        (edit(format="other"), "format 'other' version 3; this release reads"),
        (edit(dtype="float32"), r"not a complete manifest \(\$\.dtype: invalid enum value 'float32'\)"),
        (edit(scale=255.0), "dtype 'float16' with scale 255.0"),
        (edit(layout="zip"), r"not a complete manifest \(\$\.layout: invalid enum value 'zip'\)"),
        (edit(image_shape=[32, 31]), r"image_shape \(32, 31\)"),
        (edit(image_shape=[0, 0]), r"image_shape \(0, 0\)"),
        (edit(image_shape=[32.5, 32.5]), r"\$\.image_shape\[0\]: expected `int`, got `float`"),
        (edit(image_shape=[32]), "not a complete manifest"),
        (edit(mean=1.5), "mean 1.5"),
        (edit(std=0.0), "std 0.0"),
        (edit(mean=float("nan")), r"\$\.mean: nan found, a finite number expected"),
        (
            edit(std=None),
            r"not a complete manifest \(\$\.std: expected `float`, got `null`\): convert the images",
        ),
        (edit(extra=1), "not a complete manifest.*extra"),
        (edit(shards=[{"name": "a"}]), "not a complete manifest"),
        (edit(shards=[{"name": "../a", "split": "", "rows": 1, "bytes": 1, "checksum": ""}]), "shard name '../a'"),
        (edit(tables=[]), r"\$\.tables: expected `object`, got `array`"),
        (edit(tables={}), "index.csv is not the file that convert wrote"),
        (remove("index.csv"), r"index.csv cannot be read \(No such file"),
        (cut("index.csv"), "index.csv is not the file that convert wrote: its checksum differs"),
        (drop_a_column, "index.csv has the columns image_id, split"),
        (spoil_a_number, "index.csv.*'zero'"),
        (remove("boxes.csv"), "boxes.csv cannot be read"),
        (flip_a_digit, "boxes.csv is not the file that convert wrote"),
        (spoil_a_box, "boxes.csv.*'b'"),
        (lose_a_box_column, "boxes.csv has the columns image_id, x"),
        (remove("val-00000.npy"), "val-00000.npy is missing"),
        (cut("train-00001.npy"), r"train-00001.npy has \d+ bytes, the manifest says \d+"),
    ],
)
def test_damage_is_told(own_dataset: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(own_dataset)
    with pytest.raises(DatasetError, match=words) as error:
        Dataset.open(own_dataset)
    assert str(own_dataset) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("nowhere", "nowhere does not exist"), ("dataset/manifest.json", r"is not a dataset: it has no manifest\.json")],
)
def test_what_is_no_folder_is_no_dataset(own_dataset: Path, name: str, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        Dataset.open(own_dataset.parent / name)


@settings(IN_PLACE, max_examples=60)
@given(st.data())
def test_no_value_in_a_manifest_is_a_traceback(own_dataset: Path, data: st.DataObject) -> None:
    path = own_dataset / "manifest.json"
    sound = path.read_text()
    content = json.loads(sound)
    key = data.draw(st.sampled_from([*content, *content["shards"][0]]))
    (content if key in content else content["shards"][0])[key] = data.draw(JSON)
    path.write_text(json.dumps(content))
    try:
        opened = Dataset.open(own_dataset)
    except DatasetError as error:
        assert str(own_dataset) in str(error)  # noqa: PT017  # either ending is right, a traceback is not
    else:
        assert opened.size == 32
    finally:
        path.write_text(sound)


@settings(IN_PLACE, max_examples=60)
@given(st.floats(0, 1, exclude_max=True))
def test_no_part_of_a_manifest_is_taken_for_whole(own_dataset: Path, share: float) -> None:
    text = (own_dataset / "manifest.json").read_text().rstrip()
    with pytest.raises(DatasetError):
        Manifest.from_json(text[: int(share * len(text))])


def test_manifests_differ_in_their_text(dataset: Dataset) -> None:
    other = replace(dataset.manifest, mean=float(np.nextafter(dataset.mean, 1)))
    assert other.to_json() != dataset.manifest.to_json()
    assert Manifest.from_json(other.to_json()).mean == other.mean


def test_a_dataset_of_version_2_opens_and_is_verified(own_dataset: Path) -> None:
    (own_dataset / "manifest.json").write_text(json.dumps(as_former(own_dataset, 2)))
    shards = Dataset.open(own_dataset).manifest.shards
    assert verify(own_dataset) == []
    path = own_dataset / shards[0].name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert f"{shards[0].name}: its checksum is not the manifest's" in verify(own_dataset)


@pytest.mark.parametrize("change", [lambda shard: shard.update(checksum=""), lambda shard: shard.pop("sha256")])
def test_a_dataset_of_version_2_has_checksums_of_files(
    own_dataset: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    manifest = as_former(own_dataset, 2)
    change(manifest["shards"][0])
    (own_dataset / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="one sha256 each expected"):
        Dataset.open(own_dataset)


@pytest.mark.parametrize(("hashed", "ids"), [(False, "kept"), (True, "pseudonyms")])
def test_a_dataset_of_version_1_opens(own_dataset: Path, hashed: bool, ids: str) -> None:
    manifest = as_former(own_dataset, 1)
    del manifest["ids"], manifest["arguments"]["options"]["keep_ids"]
    manifest["arguments"]["options"]["hash_ids"] = hashed
    (own_dataset / "manifest.json").write_text(json.dumps(manifest))

    opened = Dataset.open(own_dataset).manifest
    assert opened.ids == ids
    assert opened.arguments["options"]["keep_ids"] is not hashed
    assert "hash_ids" not in opened.arguments["options"]


# ---- a dataset that somebody else has made


def forge_index(folder: Path, **values: object) -> None:
    """Change the first row of the index, and the checksum that the manifest holds of it."""
    index = Dataset.open(folder).index
    index.loc[0, list(values)] = pd.Series(values)
    forge_table(folder, "index.csv", index.to_csv(index=False, lineterminator="\n"))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("shard", "../secret.npy"), ("shard", "/etc/passwd"), ("shard", "other.npy"), ("row", -1), ("row", 10),
        ("row", 2**60), ("split", "holdout"), ("label", 2),
    ],
)  # fmt: skip
def test_an_image_lies_in_the_dataset_or_nowhere(own_dataset: Path, column: str, value: object) -> None:
    forge_index(own_dataset, **{column: value})
    with pytest.raises(DatasetError, match=f"index.csv has 1 images of an impossible {column}, first .*{value}"):
        Dataset.open(own_dataset)


@pytest.mark.parametrize("name", ["manifest.json", "index.csv", "boxes.csv"])
def test_a_pipe_or_device_under_a_name_is_refused_at_once(own_dataset: Path, name: str) -> None:
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (own_dataset / name).unlink()
        make(own_dataset / name)
        with pytest.raises(DatasetError, match=rf"{name} cannot be read \(not a regular file\)"):
            Dataset.open(own_dataset)


def test_a_table_of_any_size_is_refused_without_memory(own_dataset: Path) -> None:
    with (own_dataset / "boxes.csv").open("r+b") as file:
        file.truncate(2_000_000_000)  # a hole: nothing is written
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DatasetError, match="its checksum differs"):
        Dataset.open(own_dataset)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("value", [10**20, "x", "1.5"])
def test_a_number_that_cannot_be_is_told(own_dataset: Path, value: object) -> None:
    index = pd.read_csv(own_dataset / "index.csv", dtype=str, keep_default_na=False)
    index.loc[0, "width"] = str(value)
    forge_table(own_dataset, "index.csv", index.to_csv(index=False))
    with pytest.raises(DatasetError, match=r"index.csv cannot be read \(.*\): run convert again"):
        Dataset.open(own_dataset)
