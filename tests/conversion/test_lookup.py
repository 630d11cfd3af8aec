"""With the key and the label table pseudonyms lead back to ids; without them they do not."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pneumo_fast.conversion.lookup import MAPPING_NEEDED, look_up_ids
from pneumo_fast.conversion.options import ConvertConfig, IdsConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.pseudonyms import load_key
from pneumo_fast.errors import ConfigError, ConvertError, DatasetError, PneumoError
from tests.support.conversions import rejects, run, write_input

pytestmark = pytest.mark.usefixtures("shared_worker")
IMAGES = 12


@pytest.fixture
def hidden(tmp_path: Path) -> ConvertConfig:
    """A conversion with pseudonyms; the file i5 is damaged."""
    config = replace(write_input(tmp_path), keep_ids=False, group_column="who", max_rejects=1)
    damaged = config.images / "i5.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    table = pd.read_csv(config.labels)
    table["who"] = [f"p{number // 2}" for number in range(len(table))]
    table.to_csv(config.labels, index=False)
    return config


def lookup(config: ConvertConfig, **changes: Any) -> IdsConfig:
    out = config.out.parent / "ids.csv"
    return replace(IdsConfig(dataset=config.out, labels=config.labels, out=out), **changes)


def test_every_pseudonym_is_found(hidden: ConvertConfig) -> None:
    for stray in ("stray-1", "stray-2"):
        (hidden.images / stray).touch()
    hidden.labels.write_text(hidden.labels.read_text() + "gone,0,p0\n")
    run(hidden)
    index = Dataset.open(hidden.out).index
    assert not index["image_id"].str.startswith("i").any()

    summary = look_up_ids(lookup(hidden, images=hidden.images))
    table = pd.read_csv(summary.out)
    assert summary.found == {"image": IMAGES - 1, "row": 1, "path": 3, "group": 6}
    assert summary.unknown == {"image": 0, "row": 0, "path": 0, "group": 0}
    ids = table[table["kind"] == "image"].set_index("pseudonym")["id"]
    positive = index.set_index("image_id")["label"] == 1
    assert sorted(ids) == sorted(f"i{number}" for number in range(IMAGES) if number != 5)
    assert {int(ids[name][1:]) % 3 for name in ids.index[positive[ids.index]]} == {0}  # as write_input labels them
    assert table[table["kind"] == "row"]["id"].tolist() == ["gone"]
    files = table[table["kind"] == "path"].set_index("id")["pseudonym"]
    assert files["i5.dcm"] == rejects(hidden.out)[0][0]
    without = pd.read_csv(hidden.out / "files_without_row.csv")["path"]
    assert set(without) == {files["stray-1"], files["stray-2"]}


def test_a_dataset_of_an_earlier_release_lists_no_files_without_row(hidden: ConvertConfig) -> None:
    run(hidden)
    (hidden.out / "files_without_row.csv").unlink()
    assert look_up_ids(lookup(hidden, images=hidden.images)).found["path"] == 1


def test_patients_of_a_mapping_file_are_said_to_be_left_out(hidden: ConvertConfig) -> None:
    mapping = hidden.out.parent / "mapping.json"
    entries = [{"subset_img_id": f"i{n}", "img_id": f"{n // 2:08d}_000.png"} for n in range(IMAGES)]
    mapping.write_text(json.dumps(entries))
    run(hidden, group_column=None, groups=mapping)
    summary = look_up_ids(lookup(hidden))
    assert summary.notes == (MAPPING_NEEDED,)
    assert "group" not in summary.found
    summary = look_up_ids(lookup(hidden, groups=mapping, overwrite=True))
    assert (summary.notes, summary.found["group"]) == ((), 6)


def test_only_its_owner_reads_the_table(hidden: ConvertConfig) -> None:
    run(hidden)
    out = look_up_ids(lookup(hidden)).out
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_rejected_files_of_a_conversion_that_failed(hidden: ConvertConfig) -> None:
    with pytest.raises(ConvertError, match="ids"):
        run(hidden, max_rejects=0)
    summary = look_up_ids(lookup(hidden, images=hidden.images))
    assert pd.read_csv(summary.out)["id"].tolist() == ["i5.dcm"]

    (hidden.out / ".convert" / "arguments.json").write_text("{")
    with pytest.raises(DatasetError, match="does not tell how it was converted"):
        look_up_ids(lookup(hidden, images=hidden.images, overwrite=True))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"hash_key": Path("other.key")}, ConfigError, "is not the one that dataset .* was made with"),
        ({"hash_key": Path("gone.key")}, ConfigError, r"gone\.key cannot be used \(No such file"),
        ({"labels": Path("strangers.csv")}, DatasetError, "no pseudonym of dataset .* stands for an id"),
        ({"out": Path("dataset/ids.csv")}, ConfigError, "lies in the dataset"),
        ({"out": Path("labels.csv")}, ConfigError, "labels.csv is there already: give --overwrite"),
        ({"out": Path("images")}, ConfigError, "images is a folder"),
        ({"out": Path("gone/x.csv")}, ConfigError, r"^gone/x\.csv cannot be written \(No such file .*: name a file"),
        ({"dataset": Path("images")}, DatasetError, "images is not a dataset"),
    ],
)
def test_what_is_refused(
    hidden: ConvertConfig,
    changes: dict[str, Path],
    error: type[PneumoError],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(hidden.out.parent)
    run(hidden)
    load_key(Path("other.key"), make=True)
    Path("strangers.csv").write_text("patientId,Target,who\nx,0,p\n")
    with pytest.raises(error, match=words):
        look_up_ids(lookup(hidden, **changes))
    assert not Path("ids.csv").exists()


def test_kept_ids_need_no_lookup(hidden: ConvertConfig) -> None:
    run(hidden, keep_ids=True, group_column=None)
    with pytest.raises(DatasetError, match="holds image ids as they are"):
        look_up_ids(lookup(hidden))


def test_patients_are_looked_up_where_image_ids_are_kept(hidden: ConvertConfig) -> None:
    run(hidden, keep_ids=True)
    assert look_up_ids(lookup(hidden)).found == {"group": 6}
