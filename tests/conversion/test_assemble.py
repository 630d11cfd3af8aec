"""The tables and the manifest: what is counted, what is said, and what cannot become a dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from pneumo_fast.conversion import assemble as assemble_module
from pneumo_fast.conversion.labels import read_labels
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.pseudonyms import load_key, pseudonym
from pneumo_fast.errors import ConvertError
from pneumo_fast.phantoms.dicom_file import write_dicom
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.radiograph.resize import stored_boxes
from tests.support.conversions import SIZE, contents, rejects, run, stored_images, write_input

pytestmark = pytest.mark.usefixtures("shared_worker")


def test_statistics_are_those_of_the_stored_train_pixels(dataset: Dataset) -> None:
    ids = set(dataset.rows("train")["image_id"])
    train = np.stack([pixels for image_id, pixels in stored_images(dataset.path).items() if image_id in ids])
    assert dataset.mean == pytest.approx(train.mean(), abs=1e-12)
    assert dataset.std == pytest.approx(train.std(), abs=1e-9)


def test_statistics_leave_padding_out(tmp_path: Path) -> None:
    """48 x 64 pixels fill three quarters of the square; a grey frame must not darken the mean."""
    config = write_input(tmp_path)
    manifest = run(config).manifest
    index = pd.read_csv(config.out / "index.csv")
    assert (index["padding_pixels"] == SIZE * SIZE // 4).all()
    train = [stored_images(config.out)[i][4:28] for i in index["image_id"][index["split"] == "train"]]
    assert manifest.mean == pytest.approx(np.mean(train), abs=1e-12)
    assert manifest.std == pytest.approx(np.std(train), abs=1e-9)


def test_the_index_holds_what_the_tables_say(dataset: Dataset, phantoms: PhantomSet) -> None:
    said = read_labels(phantoms.labels, class_info=phantoms.class_info, groups=phantoms.mappings)
    key = load_key()
    rows = said.images.set_index("image_id").loc[dataset.index["image_id"]]
    assert len(dataset.index) == len(said.images)
    assert dataset.index["label"].tolist() == rows["label"].tolist()
    assert dataset.index["class"].tolist() == rows["class"].tolist()
    assert dataset.index["group"].tolist() == [pseudonym(key, "group", group) for group in rows["group"]]
    files = [pydicom.dcmread(phantoms.images / f"{i}.dcm", stop_before_pixels=True) for i in dataset.index["image_id"]]
    assert dataset.index["sex"].tolist() == [file.PatientSex for file in files]
    assert dataset.index["view"].tolist() == [file.ViewPosition for file in files]


def test_boxes_of_pixels_that_are_not_square_lie_where_the_anatomy_is(phantoms: PhantomSet, tmp_path: Path) -> None:
    """Every other row of a phantom is left out, and the spacing says so: its boxes lie where they lay before."""
    (tmp_path / "images").mkdir()
    for path in phantoms.images.iterdir():
        header = pydicom.dcmread(path)
        pixels = header.pixel_array[::2]
        header.Rows, header.PixelSpacing = pixels.shape[0], ["0.4", "0.2"]
        header.PixelData, header.file_meta.TransferSyntaxUID = pixels.tobytes(), ExplicitVRLittleEndian
        header["PixelData"].VR = "OB"
        header["PixelData"].is_undefined_length = False
        header.save_as(tmp_path / "images" / path.name)
    labels = pd.read_csv(phantoms.labels)
    labels[["y", "height"]] /= 2
    labels.to_csv(tmp_path / "labels.csv", index=False)
    opened = []
    for name, images, table in (
        ("whole", phantoms.images, phantoms.labels),
        ("half", tmp_path / "images", tmp_path / "labels.csv"),
    ):
        run(ConvertConfig(images=images, labels=table, out=tmp_path / name, size=32, workers=1, keep_ids=True))
        opened.append(Dataset.open(tmp_path / name))
    whole, half = (stored_boxes(dataset.boxes, 32) for dataset in opened)
    np.testing.assert_allclose(whole, half)
    assert set(opened[1].index["spacing_mm"]) == {"0.4\\0.2"}
    assert opened[1].index["notes"].str.contains("pixels_made_square").all()


def test_boxes_are_kept_in_source_pixels(dataset: Dataset, phantoms: PhantomSet) -> None:
    said = read_labels(phantoms.labels).boxes
    assert sorted(dataset.boxes[list(said)].to_numpy().tolist()) == sorted(said.to_numpy().tolist())
    assert (dataset.boxes[["source_width", "source_height"]] == 64).all(axis=None)
    places = dataset.index.reset_index().set_index("image_id")["index"]
    assert dataset.boxes["image_id"].map(places).is_monotonic_increasing


@pytest.mark.parametrize("rows", [1, 9, 10_000])
def test_however_many_rows_are_put_together_at_once_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    config = write_input(tmp_path)
    run(config, shard_size=3)
    monkeypatch.setattr(assemble_module, "ROWS_AT_ONCE", rows)
    run(config, shard_size=3, out=tmp_path / "other")
    assert contents(tmp_path / "other") == contents(config.out)


def test_a_box_may_be_beyond_an_edge_by_a_pixel_of_the_source(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    first = pydicom.dcmread(config.images / "i0.dcm")
    first.PixelSpacing = ["0.4", "0.2"]  # a row is two pixels high when pixels are square
    first.save_as(config.images / "i0.dcm")
    rows = "".join(f"i{n},{'10,10,10,39' if n == 0 else ',,,'},{int(n % 3 == 0)}\n" for n in range(12))
    config.labels.write_text("patientId,x,y,width,height,Target\n" + rows)
    assert run(config).manifest.input["boxes_cut_off"] == 0
    assert Dataset.open(config.out).boxes[["y", "height", "source_height"]].to_numpy().tolist() == [[20, 78, 96]]


@pytest.mark.parametrize(
    ("box", "outside", "cut_off"),
    [
        ("0,0,64,48", 0, 0),
        ("10,10,55,38", 0, 0),  # beyond by a pixel, as rounding to whole ones gives
        ("10,10,55.1,38", 0, 1),
        ("10,10,10,100", 0, 1),
        ("63,47,1000,1000", 0, 1),
        ("64,0,5,5", 1, 0),
        ("0,48,5,5", 1, 0),
    ],
)
def test_boxes_that_do_not_fit_their_images_are_kept_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, box: str, outside: int, cut_off: int
) -> None:
    config = write_input(tmp_path)
    rows = "".join(f"i{n},{box if n == 0 else ',,,'},{int(n % 3 == 0)}\n" for n in range(12))
    config.labels.write_text("patientId,x,y,width,height,Target\n" + rows)
    manifest = run(config).manifest
    assert (manifest.input["boxes_outside"], manifest.input["boxes_cut_off"]) == (outside, cut_off)
    warned = f"{outside} boxes lie outside of their images (train and explain leave them out) and {cut_off} go beyond"
    assert (warned in caplog.text) == bool(outside + cut_off)
    assert Dataset.open(config.out).boxes[["x", "y", "width", "height"]].to_numpy().tolist() == [
        [float(value) for value in box.split(",")]
    ]
    assert len(Dataset.open(config.out).index) == 12


def test_counts_of_the_manifest(dataset: Dataset) -> None:
    counts = dataset.index.groupby(["split", "label"]).size()
    said = {(split, int(label)): n for split, of in dataset.manifest.counts.items() for label, n in of.items()}
    assert said == counts.to_dict()
    assert dataset.manifest.input["label_rows"] == len(dataset.index)
    assert dataset.manifest.split["groups"] == dataset.index["group"].nunique()


def test_equal_images_are_counted(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    for copy in ("i2", "i3"):
        (config.images / f"{copy}.dcm").unlink()
        os.link(config.images / "i1.dcm", config.images / f"{copy}.dcm")
    duplicates = run(config).manifest.duplicates
    index = pd.read_csv(config.out / "index.csv", index_col="image_id")
    across = 3 if index.loc[["i1", "i2", "i3"], "split"].nunique() > 1 else 0
    assert duplicates == {
        **{f"equal_{what}": 3 for what in ("pixels", "uids")},
        **{f"equal_{what}_across_splits": across for what in ("pixels", "uids")},
    }


@pytest.mark.parametrize(
    ("options", "by", "dropped", "leaks"),
    [
        ({}, "image", 0, "unknown"),
        ({"group_column": "p", "ungrouped": "keep"}, "group", 0, "none among"),
        ({"group_column": "p", "ungrouped": "drop"}, "group", 6, "none: "),
    ],
)
def test_what_is_known_of_leaks_is_said(
    tmp_path: Path, options: dict[str, Any], by: str, dropped: int, leaks: str
) -> None:
    config = write_input(tmp_path)
    rows = "".join(f"i{n},{n % 2},{'' if n % 2 else f'patient {n % 4}'}\n" for n in range(12))
    config.labels.write_text("patientId,Target,p\n" + rows)
    manifest = run(config, **options).manifest
    assert manifest.split["by"] == by
    assert manifest.input["dropped_ungrouped"] == dropped
    assert manifest.split["leaks"].startswith(leaks)
    assert sum(sum(of.values()) for of in manifest.counts.values()) == 12 - dropped
    assert manifest.split["ungrouped_images"] == (12 if by == "image" else 6 - dropped)


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    config = write_input(tmp_path, images=3)
    for path in config.images.iterdir():
        path.write_bytes(b"")
    with pytest.raises(ConvertError, match="no image is left for training"):
        run(config, max_rejects=1.0)
    assert len(rejects(config.out)) == 3
    assert not (config.out / "manifest.json").exists()


def test_images_of_one_grey(tmp_path: Path) -> None:
    config = write_input(tmp_path, images=2)
    for path in config.images.iterdir():
        write_dicom(path, np.full((64, 64), 128, dtype=np.uint8))
    with pytest.raises(ConvertError, match=r"every pixel of the train split has the value 0\.50"):
        run(config)


@pytest.mark.parametrize("failing", ["write_table", "write_atomic"])
def test_a_failing_write_leaves_no_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Literal["write_table", "write_atomic"]
) -> None:
    """The disk is full when the tables, or the manifest, are written; then there is room again."""
    config = write_input(tmp_path)

    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(assemble_module, failing, fail)
        with pytest.raises(ConvertError, match=r"dataset .* cannot be written \(No space left on device\)"):
            run(config)
    assert not (config.out / "manifest.json").exists()
    assert run(config, resume=True).converted == 0
    run(config, out=tmp_path / "undisturbed")
    assert contents(config.out) == contents(tmp_path / "undisturbed")
