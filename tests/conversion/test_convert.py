"""Conversion from end to end: the pixels, the same bytes every time, and what cannot be read."""

from __future__ import annotations

import io
import os
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torchvision
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import get_frame

from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.labels import read_labels
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.npy import SCALES
from pneumo_fast.errors import ConvertError
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.vocabulary import Dtype, Layout
from tests.support.conversions import DTYPES, LAYOUTS, SIZE, contents, rejects, run, stored_images, write_input

pytestmark = pytest.mark.usefixtures("shared_worker")


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
def test_stored_radiographs_are_the_reference_to_one_step(tmp_path: Path, shared_data: Path, dtype: Dtype) -> None:
    folder = shared_data / "rsna16"
    config = ConvertConfig(
        keep_ids=True,
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
        config = ConvertConfig(
            keep_ids=True, images=phantoms.images, labels=phantoms.labels, out=out, size=16, workers=1
        )
        run(config, decode=decode)
        found.append(np.load(out / "train-00000.npy").astype(np.float64))
    assert 0 < np.abs(found[0] - found[1]).mean() < 1 / 255
    assert np.abs(found[0].mean((1, 2)) - found[1].mean((1, 2))).max() < 1 / 255


# ---- the same bytes


@LAYOUTS
def test_workers_and_repetition_change_no_byte(tmp_path: Path, phantoms: PhantomSet, layout: Layout) -> None:
    found = []
    for number, workers in enumerate((1, 2, 1)):
        config = ConvertConfig(
            keep_ids=True,
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


# ---- the folder layout


def test_torchvision_reads_the_folder_layout(tmp_path: Path, phantoms: PhantomSet) -> None:
    out = {layout: tmp_path / layout for layout in ("shards", "folder")}
    for layout, path in out.items():
        config = ConvertConfig(
            keep_ids=True, images=phantoms.images, labels=phantoms.labels, out=path, size=SIZE, workers=1
        )
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


@pytest.mark.parametrize(
    ("bad", "allowed", "fails"),
    [(2, 2, False), (2, 1, True), (2, 0.2, False), (3, 0.2, True), (3, 1.0, False)],
)
def test_limit_of_rejects(tmp_path: Path, bad: int, allowed: float, fails: bool) -> None:
    """Of 12 files, 0.2 are 2."""
    config = write_input(tmp_path)
    for number in range(bad):
        (config.images / f"i{number}.dcm").write_bytes(b"")
    if fails:
        with pytest.raises(ConvertError) as error:
            run(config, max_rejects=allowed)
        assert not (config.out / "manifest.json").exists()
        told = r"(\d) of 12 files were rejected, \d are allowed \(not_dicom (\d)\): see .*rejects\.csv"
        counts = re.match(told, str(error.value))
        assert counts
        assert {int(count) for count in counts.groups()} == {len(rejects(config.out))}
    else:
        run(config, max_rejects=allowed)
    assert {reason for _, reason in rejects(config.out)} == {"not_dicom"}


def test_ambiguous_files_count_as_rejects(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    os.link(config.images / "i3.dcm", config.images / "i3.png")
    with pytest.raises(ConvertError, match="2 of 13 files were rejected, 1 are allowed"):
        run(config, max_rejects=1)
    assert rejects(config.out) == [("i3.dcm", "ambiguous"), ("i3.png", "ambiguous")]


@pytest.mark.parametrize(("positive", "warns"), [(("1",), False), (("0", "1"), True)])
def test_labels_of_one_class_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, positive: tuple[str, ...], warns: bool
) -> None:
    run(write_input(tmp_path), positive=positive)
    told = [text.split(",")[0] for text in caplog.messages if "of label" in text]
    assert told == [f"the {split} split has images of label 1 only" for split in ("train", "val") if warns]


def test_links_are_followed_and_left_alone(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    linked = tmp_path / "linked"
    linked.mkdir()
    for number, path in enumerate(sorted(config.images.iterdir())):
        (os.symlink, os.link)[number % 2](path, linked / path.name)
    run(config)
    run(config, images=linked, out=tmp_path / "from-links")
    assert contents(config.out) == contents(tmp_path / "from-links")


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
        keep_ids=True,
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
