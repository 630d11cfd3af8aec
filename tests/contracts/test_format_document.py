"""``docs/format.md`` says what the code writes: every column and key, and where a box lies in the stored image."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.format import BOX_TYPES, INDEX_TYPES, REJECT_COLUMNS, Manifest, ShardInfo
from pneumo_fast.dataset.pseudonyms import load_key, pseudonym
from pneumo_fast.phantoms.dicom_file import write_dicom
from pneumo_fast.run.checkpoint import STATES, Trained, load_trained
from pneumo_fast.run.layout import CHECKPOINT_FORMAT, JUDGED, JUDGED_FOLDERS
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train
from tests.support.repository import DOCS

TEXT = (DOCS / "format.md").read_text()
TYPES = {"text": str, "integer": int, "number": float}


def rows(before: str) -> list[list[str]]:
    """Cells of the first table after a line."""
    lines = TEXT.split(f"\n{before}\n", 1)[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| --- "))
    table = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return table


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def documented(before: str) -> list[str]:
    return [name for first, *_ in rows(before) for name in names(first)]


@pytest.mark.parametrize(("table", "types"), [("### `index.csv`", INDEX_TYPES), ("### `boxes.csv`", BOX_TYPES)])
def test_columns_and_their_types(table: str, types: dict[str, type]) -> None:
    said = {name: TYPES[kind] for first, kind, _ in rows(table) for name in names(first)}
    assert list(said.items()) == list(types.items())


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ("### `rejects.csv`", list(REJECT_COLUMNS)),
        ("### `manifest.json`", [f.name for f in fields(Manifest)]),
        ("Each entry of `shards`:", [f.name for f in fields(ShardInfo)]),
        ("### Checkpoints", ["format", *(f.name for f in fields(Trained)), *STATES]),
    ],
)
def test_keys(table: str, keys: list[str]) -> None:
    assert documented(table) == keys


@pytest.mark.parametrize("key", ["preprocessing", "split", "input", "duplicates", "arguments"])
def test_keys_within_the_manifest(dataset: Dataset, key: str) -> None:
    assert documented(f"`{key}`:") == list(getattr(dataset.manifest, key))


def test_files(own_dataset: Path) -> None:
    said = documented("## The dataset")
    found = {path.name for path in own_dataset.iterdir()}
    assert {name for name in found if not re.search(r"-0000[1-9]\.npy$", name)} <= set(said)
    assert {name for name in said if name.endswith((".csv", ".json"))} <= found


def test_hash_key_id(dataset: Dataset) -> None:
    assert dataset.manifest.split["hash_key_id"] == pseudonym(load_key(), "key", "id")


def test_run_folder(own_dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    taught = {"teach": ("boxes", "classes"), "batch_size": 16, "device": "cpu"}
    train(TrainConfig(datasets=(own_dataset,), out=run, epochs=1, **taught))  # type: ignore[arg-type]
    elsewhere = {
        "previous.pt",
        "rejects.csv",
        "tensorboard/",
        "trace.json",
        *JUDGED,
        *(f"{name}/" for name in JUDGED_FOLDERS),
    }
    assert {path.name for path in run.iterdir()} == set(documented("## The run folder")) - elsewhere
    config: dict[str, Any] = json.loads((run / "config.json").read_text())
    assert documented("### `config.json`") == list(config)
    assert list(config["config"]) == [f.name for f in fields(TrainConfig)]
    said = {first: names(rest) for first, rest in rows("### `config.json`")}
    assert said["`resolved`"] == list(config["resolved"])
    assert said["`dataset`"] == list(config["dataset"])
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert sorted(documented("### `history.jsonl`")) == sorted(history[0])
    assert load_trained(run / "last.pt").history == history
    assert f'"{CHECKPOINT_FORMAT}"' in TEXT


def test_where_a_box_lies(tmp_path: Path) -> None:
    """A white rectangle comes out where the formula puts its box."""
    (tmp_path / "images").mkdir()
    table = ["patientId,x,y,width,height,Target"]
    for height, width in ((96, 160), (160, 96), (128, 128), (101, 77)):
        pixels = np.zeros((height, width), dtype=np.uint8)
        pixels[40:72, 16:56] = 255
        write_dicom(tmp_path / "images" / f"{height}x{width}.dcm", pixels, jpeg_quality=95)
        table.append(f"{height}x{width},16,40,40,32,1")
    (tmp_path / "labels.csv").write_text("\n".join(table))
    convert(
        ConvertConfig(
            keep_ids=True,
            images=tmp_path / "images",
            labels=tmp_path / "labels.csv",
            out=tmp_path / "out",
            size=64,
            val_fraction=0,
            workers=1,
        )
    )
    dataset = Dataset.open(tmp_path / "out")
    images = np.load(dataset.path / "train-00000.npy").astype(np.float64)
    boxes = dataset.boxes.merge(dataset.index[["image_id", "row"]], on="image_id", validate="1:1").to_dict("records")
    assert len(boxes) == 4
    for box in boxes:
        stored = images[box["row"]]
        longest = max(box["source_height"], box["source_width"])
        h, w = (round(box[f"source_{side}"] * 64 / longest) for side in ("height", "width"))
        x = (64 - w) // 2 + box["x"] * w / box["source_width"]
        y = (64 - h) // 2 + box["y"] * h / box["source_height"]
        width, height = box["width"] * w / box["source_width"], box["height"] * h / box["source_height"]
        assert stored.sum() == pytest.approx(width * height, rel=0.02), box["image_id"]
        rows_at, columns_at = np.indices(stored.shape) + 0.5
        assert (stored * columns_at).sum() / stored.sum() == pytest.approx(x + width / 2, abs=0.05), box["image_id"]
        assert (stored * rows_at).sum() / stored.sum() == pytest.approx(y + height / 2, abs=0.05), box["image_id"]
