"""Conversion from end to end: what is stored, what is counted, what is refused, and what is never written."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pydicom
import pytest
import torchvision
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import get_frame

from pneumo_fast.conversion import assemble as assemble_module
from pneumo_fast.conversion import convert as convert_module
from pneumo_fast.conversion.convert import ConvertSummary, convert
from pneumo_fast.conversion.executors import Submit
from pneumo_fast.conversion.labels import read_labels
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.conversion.pseudonyms import load_key, pseudonym
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.npy import SCALES
from pneumo_fast.errors import ConvertError
from pneumo_fast.phantoms.dicom_file import write_dicom
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.vocabulary import Dtype, Layout

SIZE = 32
DTYPES = pytest.mark.parametrize("dtype", ["float16", "uint8"])
LAYOUTS = pytest.mark.parametrize("layout", ["shards", "folder"])


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch: pytest.MonkeyPatch, one_worker: Callable[[int], AbstractContextManager[Submit]]) -> None:
    """Starting it takes most of a small conversion's time, so conversions by one worker share theirs."""
    monkeypatch.setattr(convert_module, "local_workers", one_worker)


def contents(folder: Path) -> dict[str, str]:
    """Every file and folder below a folder, hidden ones too, with the checksum of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def write_input(folder: Path, *, images: int = 12, shapes: Sequence[tuple[int, int]] = [(48, 64)]) -> ConvertConfig:
    """Noise of 8 bits, every third image positive, in a folder with its table; a configuration to convert it."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(images)
    for number in range(images):
        pixels = rng.integers(0, 256, shapes[number % len(shapes)], dtype=np.uint8)
        write_dicom(folder / "images" / f"i{number}.dcm", pixels, PatientAge="051Y", PatientSex="F")
    rows = "".join(f"i{number},{int(number % 3 == 0)}\n" for number in range(images))
    (folder / "labels.csv").write_text("patientId,Target\n" + rows)
    return ConvertConfig(
        images=folder / "images",
        labels=folder / "labels.csv",
        out=folder / "dataset",
        size=SIZE,
        val_fraction=0.25,
        workers=1,
    )


def run(config: ConvertConfig, **changes: Any) -> ConvertSummary:
    return convert(replace(config, **changes))


def rejects(folder: Path) -> list[tuple[str, str]]:
    table = pd.read_csv(folder / "rejects.csv", keep_default_na=False)
    assert table["detail"].str.len().gt(0).all()
    assert table["path"].is_monotonic_increasing
    return list(zip(table["path"], table["reason"], strict=True))


def stored_images(path: Path) -> dict[str, NDArray[np.float64]]:
    """Pixels in [0, 1] by image id, read by nothing but NumPy and pandas."""
    scale = json.loads((path / "manifest.json").read_text())["scale"]
    index = pd.read_csv(path / "index.csv", dtype={"image_id": str})
    files = {name: np.load(path / name) for name in index["shard"].unique()}
    return {
        row["image_id"]: np.asarray(files[row["shard"]].reshape(-1, SIZE, SIZE)[row["row"]], dtype=np.float64) / scale
        for row in index.to_dict("records")
    }


# ---- the pixels


def reference(path: Path, size: int) -> NDArray[np.float64]:
    """Decode in full, scale by 255, resize by the antialiased triangle kernel in float64, centre on black."""
    header = pydicom.dcmread(path)
    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    shown = np.asarray(Image.open(io.BytesIO(frame)), dtype=np.float64) / 255.0
    height, width = (max(1, round(side * size / max(shown.shape))) for side in shown.shape)
    square = np.zeros((size, size))
    top, left = (size - height) // 2, (size - width) // 2
    fitted = triangle(shown.shape[0], height) @ shown @ triangle(shown.shape[1], width).T
    square[top : top + height, left : left + width] = fitted
    return square


@lru_cache
def triangle(source: int, target: int) -> NDArray[np.float64]:
    """The kernel as a matrix (target, source), written pixel by pixel."""
    scale = source / target
    reach = max(scale, 1.0)
    kernel = np.zeros((target, source))
    for out in range(target):
        centre = (out + 0.5) * scale
        for pixel in range(source):
            kernel[out, pixel] = max(0.0, 1.0 - abs(pixel + 0.5 - centre) / reach)
        kernel[out] /= kernel[out].sum()
    return kernel


def assert_within_one_step(path: Path, images: Path) -> None:
    dataset = Dataset.open(path)
    found = stored_images(path)
    assert len(found) == len(list(images.iterdir()))
    for image_id, pixels in found.items():
        expected = reference(images / f"{image_id}.dcm", dataset.size)
        step = 1 / 255 if dataset.scale == 255.0 else np.spacing(expected.astype(np.float16)).astype(np.float64)
        assert (np.abs(pixels - expected) <= step).all(), image_id


@DTYPES
def test_stored_images_are_the_reference_to_one_step(tmp_path: Path, dtype: Dtype) -> None:
    config = write_input(tmp_path, images=8, shapes=[(64, 64), (48, 64), (95, 33), (32, 32)])
    run(config, dtype=dtype, decode="exact", val_fraction=0)
    assert_within_one_step(config.out, config.images)


@DTYPES
def test_stored_phantoms_are_the_reference_to_one_step(tmp_path: Path, phantoms: PhantomSet, dtype: Dtype) -> None:
    config = ConvertConfig(images=phantoms.images, labels=phantoms.labels, out=tmp_path / "dataset", size=SIZE)
    run(config, dtype=dtype, decode="exact", workers=1)
    assert_within_one_step(config.out, config.images)


@DTYPES
def test_stored_radiographs_are_the_reference_to_one_step(tmp_path: Path, shared_data: Path, dtype: Dtype) -> None:
    folder = shared_data / "rsna16"
    config = ConvertConfig(
        images=folder / "stage_2_train_images",
        labels=folder / "stage_2_train_labels.csv",
        out=tmp_path / "dataset",
        size=SIZE,
        dtype=dtype,
        decode="exact",
    )
    convert(config)
    assert_within_one_step(config.out, config.images)


def test_fast_decoding_leaves_out_fine_detail_only(tmp_path: Path, phantoms: PhantomSet) -> None:
    """At 16 of 64 pixels libjpeg decodes at half scale."""
    found = []
    for decode in ("exact", "fast"):
        out = tmp_path / decode
        config = ConvertConfig(images=phantoms.images, labels=phantoms.labels, out=out, size=16, workers=1)
        run(config, decode=decode)
        found.append(np.load(out / "train-00000.npy").astype(np.float64))
    assert 0 < np.abs(found[0] - found[1]).mean() < 1 / 255
    assert np.abs(found[0].mean((1, 2)) - found[1].mean((1, 2))).max() < 1 / 255


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


# ---- the tables


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


def test_boxes_are_kept_in_source_pixels(dataset: Dataset, phantoms: PhantomSet) -> None:
    said = read_labels(phantoms.labels).boxes
    assert sorted(dataset.boxes[list(said)].to_numpy().tolist()) == sorted(said.to_numpy().tolist())
    assert (dataset.boxes[["source_width", "source_height"]] == 64).all(axis=None)
    places = dataset.index.reset_index().set_index("image_id")["index"]
    assert dataset.boxes["image_id"].map(places).is_monotonic_increasing


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


# ---- the same bytes


@LAYOUTS
def test_workers_and_repetition_change_no_byte(tmp_path: Path, phantoms: PhantomSet, layout: Layout) -> None:
    found = []
    for number, workers in enumerate((1, 2, 1)):
        config = ConvertConfig(
            images=phantoms.images,
            labels=phantoms.labels,
            groups=phantoms.mappings,
            out=tmp_path / str(number),
            size=SIZE,
            layout=layout,
            shard_size=6,
            workers=workers,
        )
        convert(config)
        found.append(contents(config.out))
    assert found[0] == found[1] == found[2]


def test_the_order_of_the_table_changes_no_byte(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    run(config)
    header, *rows = config.labels.read_text().splitlines()
    config.labels.write_text("\n".join([header, *rows[::-1]]))
    run(config, out=tmp_path / "other")
    assert contents(config.out) == contents(tmp_path / "other")


def test_seed_changes_the_split(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    splits = []
    for seed in (0, 1):
        run(config, seed=seed, out=tmp_path / str(seed))
        index = pd.read_csv(tmp_path / str(seed) / "index.csv")
        splits.append(dict(zip(index["image_id"], index["split"], strict=True)))
    assert splits[0].keys() == splits[1].keys()
    assert splits[0] != splits[1]


# ---- the folder layout


def test_torchvision_reads_the_folder_layout(tmp_path: Path, phantoms: PhantomSet) -> None:
    out = {layout: tmp_path / layout for layout in ("shards", "folder")}
    for layout, path in out.items():
        config = ConvertConfig(images=phantoms.images, labels=phantoms.labels, out=path, size=SIZE, workers=1)
        run(config, layout=layout)
    labels = read_labels(phantoms.labels).images.set_index("image_id")["label"]
    shards = stored_images(out["shards"])
    seen = set()
    for split in ("train", "val"):
        folder = torchvision.datasets.DatasetFolder(str(out["folder"] / split), loader=np.load, extensions=(".npy",))
        assert folder.classes == ["0", "1"]
        for (path, _), (image, label) in zip(folder.samples, folder, strict=True):
            image_id = Path(path).stem
            assert label == labels[image_id]
            assert image.dtype == np.float16
            np.testing.assert_array_equal(image, shards[image_id])
            seen.add(image_id)
    assert seen == set(labels.index)
    assert Dataset.open(out["folder"]).mean == pytest.approx(Dataset.open(out["shards"]).mean, abs=1e-12)


# ---- what cannot be read


def test_an_unreadable_file_costs_one_image(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    (config.images / "deep").mkdir()
    (config.images / "i3.dcm").rename(config.images / "deep" / "i3.dcm")
    (config.images / "deep" / "i3.dcm").write_bytes(b"no DICOM")
    (config.images / "i4.dcm").unlink()
    (config.images / "i4.dcm").symlink_to("gone")
    manifest = run(config, max_rejects=2).manifest
    assert rejects(config.out) == [("deep/i3.dcm", "not_dicom"), ("i4.dcm", "not_readable")]
    assert manifest.rejects == {"not_dicom": 1, "not_readable": 1}
    assert set(Dataset.open(config.out).index["image_id"]) == {f"i{n}" for n in range(12)} - {"i3", "i4"}


def test_files_with_one_name_are_all_rejected(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    (config.images / "x").mkdir()
    os.link(config.images / "i3.dcm", config.images / "x" / "i3.dcm")
    run(config, max_rejects=2)
    assert rejects(config.out) == [("i3.dcm", "ambiguous"), ("x/i3.dcm", "ambiguous")]


@pytest.mark.parametrize(
    ("bad", "allowed", "fails"),
    [(2, 2, False), (2, 1, True), (1, 0, True), (2, 0.2, False), (3, 0.2, True), (1, 0.0, True), (3, 1.0, False)],
)  # fmt: skip
def test_limit_of_rejects(tmp_path: Path, bad: int, allowed: float, fails: bool) -> None:
    """Of 12 files, 0.2 are 2."""
    config = write_input(tmp_path)
    for number in range(bad):
        (config.images / f"i{number}.dcm").write_bytes(b"")
    if fails:
        with pytest.raises(ConvertError, match=r"of 12 files were rejected, \d are allowed: see .*rejects.csv"):
            run(config, max_rejects=allowed)
        assert not (config.out / "manifest.json").exists()
        assert rejects(config.out)
    else:
        run(config, max_rejects=allowed)
    assert {reason for _, reason in rejects(config.out)} == {"not_dicom"}


def test_ambiguous_files_count_as_rejects(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    os.link(config.images / "i3.dcm", config.images / "i3.png")
    with pytest.raises(ConvertError, match="2 of 13 files were rejected, 1 are allowed"):
        run(config, max_rejects=1)
    assert rejects(config.out) == [("i3.dcm", "ambiguous"), ("i3.png", "ambiguous")]


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


# ---- the folder written to


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
    with pytest.raises(ConvertError, match="holds files that are no dataset"):
        run(config, overwrite=overwrite)
    assert contents(config.out).keys() == {"index.csv"}


@pytest.mark.parametrize(("out", "words"), [("labels.csv", "is a file"), ("labels.csv/x", "cannot be written")])
def test_a_file_in_the_way(tmp_path: Path, out: str, words: str) -> None:
    config = write_input(tmp_path)
    with pytest.raises(ConvertError, match=words):
        run(config, out=tmp_path / out)


@LAYOUTS
def test_overwriting_touches_only_its_own_files(tmp_path: Path, layout: Layout) -> None:
    config = write_input(tmp_path)
    run(config, layout="folder" if layout == "shards" else "shards")
    mine = ["notes.txt", "train/notes.txt", "train/0/notes.txt", "val/mine/x.npy", "mine/index.csv"]
    for name in mine:
        (config.out / name).parent.mkdir(parents=True, exist_ok=True)
        (config.out / name).write_text("mine")
    run(config, layout=layout, overwrite=True)
    run(config, layout=layout, out=tmp_path / "fresh")
    kept = {path: digest for path, digest in contents(config.out).items() if digest != "folder" and path not in mine}
    fresh = {path: digest for path, digest in contents(tmp_path / "fresh").items() if digest != "folder"}
    assert kept == fresh
    assert all((config.out / name).read_text() == "mine" for name in mine)


def test_links_are_followed_and_left_alone(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    linked = tmp_path / "linked"
    linked.mkdir()
    for number, path in enumerate(sorted(config.images.iterdir())):
        (os.symlink, os.link)[number % 2](path, linked / path.name)
    run(config)
    run(config, images=linked, out=tmp_path / "from-links")
    assert contents(config.out) == contents(tmp_path / "from-links")


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


# ---- privacy

SECRETS = ["GRUFFELFANT", "QUAXOLINE", "19381225", "ZWOELFBOX", "KRUMMHORN", "8977665544"]


@pytest.fixture
def secretive(tmp_path: Path) -> ConvertConfig:
    """Every text that could name a patient, in header, mapping and path; one file is rejected."""
    config = write_input(tmp_path)
    name, patient, birth, physician, series, group = SECRETS
    for number, path in enumerate(sorted(config.images.iterdir())):
        write_dicom(
            path,
            np.random.default_rng(number).integers(0, 256, (64, 64), dtype=np.uint8),
            PatientName=f"{name}^{number}",
            PatientID=patient,
            PatientBirthDate=birth,
            ReferringPhysicianName=physician,
            SeriesDescription=f"{series} view: AP",
            PatientComments=name,
        )
    (config.images / "i5.dcm").write_bytes((config.images / "i5.dcm").read_bytes()[:-2000])
    mapping = [{"subset_img_id": f"i{n}", "img_id": f"{group[:7]}{n % 4}_000.png"} for n in range(12)]
    (tmp_path / "m.json").write_text(json.dumps(mapping))
    return replace(config, groups=tmp_path / "m.json", max_rejects=1)


def assert_free_of(folder: Path, texts: list[str]) -> None:
    for path in folder.rglob("*"):
        data = str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b"")
        assert not [text for text in texts if text.encode() in data], path


@LAYOUTS
def test_no_byte_names_a_patient(secretive: ConvertConfig, layout: Layout) -> None:
    run(secretive, layout=layout)
    index = Dataset.open(secretive.out).index
    assert len(index) == 11
    assert set(index["view"]) == {"AP"}
    assert index["group"].nunique() == 4
    assert_free_of(secretive.out, [*SECRETS[:5], SECRETS[5][:7]])


def test_hidden_ids_stand_nowhere(secretive: ConvertConfig) -> None:
    for number in range(12):
        (secretive.images / f"i{number}.dcm").rename(secretive.images / f"SCHNURPS-{number}.dcm")
    text = secretive.labels.read_text().replace("\ni", "\nSCHNURPS-")
    secretive.labels.write_text(text)
    config = replace(secretive, groups=None, hash_ids=True)
    run(config, layout="folder")
    assert len(Dataset.open(config.out).index) == 11
    assert len(rejects(config.out)) == 1
    assert_free_of(config.out, [*SECRETS, "SCHNURPS"])


def test_pseudonyms_depend_on_the_key(secretive: ConvertConfig, tmp_path: Path) -> None:
    groups: list[list[str]] = []
    for number in (0, 0, 1):
        run(secretive, hash_key=tmp_path / f"{number}.key", out=tmp_path / "out", overwrite=bool(groups))
        groups.append(Dataset.open(tmp_path / "out").index.set_index("image_id")["group"].sort_index().tolist())
    assert groups[0] == groups[1]
    assert not set(groups[0]) & set(groups[2])
    assert Counter(Counter(groups[0]).values()) == Counter(Counter(groups[2]).values())


# ---- other people's input


def test_a_path_that_is_no_unicode_is_written_as_text(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    odd = config.images / os.fsdecode(b"\xff")
    odd.mkdir()
    (odd / "i3.dcm").write_bytes(b"")
    (config.images / "i3.dcm").unlink()
    run(config, max_rejects=1)
    assert rejects(config.out) == [("\\xff/i3.dcm", "not_dicom")]


def test_progress_ends_at_the_number_of_files(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    (config.images / "i3.dcm").write_bytes(b"")
    seen: list[tuple[int, int]] = []
    summary = convert(replace(config, shard_size=2, max_rejects=1), lambda *counts: seen.append(counts))
    assert [total for _, total in seen] == [12] * len(seen)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (12, 12)
    assert (summary.images, summary.converted) == (11, 11)


@DTYPES
def test_the_sample_with_its_patients(tmp_path: Path, shared_data: Path, dtype: Dtype) -> None:
    folder = shared_data / "rsna_sample"
    config = ConvertConfig(
        images=folder / "stage_2_train_images",
        labels=folder / "stage_2_train_labels.csv",
        class_info=folder / "stage_2_detailed_class_info.csv",
        groups=folder / "mappings.json",
        out=tmp_path / "dataset",
        size=64,
        dtype=dtype,
        val_fraction=0.3,
    )
    summary = convert(config)
    dataset = Dataset.open(config.out)
    assert summary.images == len(dataset.index) == 161
    assert summary.manifest.rejects == {}
    assert summary.manifest.split["ungrouped_images"] == 0
    assert (dataset.index.groupby("group")["split"].nunique() == 1).all()
    assert set(dataset.index["view"]) <= {"AP", "PA"}
    assert dataset.dtype.itemsize == (2 if dtype == "float16" else 1)
    assert SCALES[dtype] == dataset.scale
