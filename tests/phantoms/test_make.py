from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from pneumo_fast.conversion.labels import read_labels
from pneumo_fast.errors import ConfigError
from pneumo_fast.phantoms.dicom_file import write_dicom
from pneumo_fast.phantoms.make import PhantomSet, make_phantoms, plan_cases
from pneumo_fast.phantoms.options import PhantomConfig
from pneumo_fast.phantoms.thorax import NORMAL, NOT_NORMAL, OPACITY, draw

COUNT, SIZE = 300, 64
CLASSES = [OPACITY, NORMAL, NOT_NORMAL]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> PhantomSet:
    return make_phantoms(PhantomConfig(out=tmp_path_factory.mktemp("phantoms"), count=COUNT, size_px=SIZE))


@pytest.fixture(scope="module")
def files(phantoms: PhantomSet) -> dict[str, pydicom.FileDataset]:
    return {path.stem: pydicom.dcmread(path) for path in phantoms.images.iterdir()}


@pytest.fixture(scope="module")
def pixels(files: dict[str, pydicom.FileDataset]) -> dict[str, NDArray[np.uint8]]:
    return {image_id: file.pixel_array for image_id, file in files.items()}


def digests(folder: Path) -> dict[str, str]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def auroc(scores: NDArray[np.floating[Any]], labels: NDArray[np.bool_]) -> float:
    """Share of the pairs of a positive and a negative that the score orders right."""
    higher = scores[labels][:, None] - scores[~labels][None, :]
    return float((higher > 0).mean() + (higher == 0).mean() / 2)


# ---- the set


def test_every_row_has_its_file(phantoms: PhantomSet, files: dict[str, pydicom.FileDataset]) -> None:
    ids = set(pd.read_csv(phantoms.labels).patientId)
    assert ids == set(files) == set(pd.read_csv(phantoms.class_info).patientId)
    assert ids == {row["subset_img_id"] for row in json.loads(phantoms.mappings.read_text())}
    assert len(ids) == COUNT


def test_labels_reads_the_tables(phantoms: PhantomSet) -> None:
    table = read_labels(phantoms.labels, class_info=phantoms.class_info, groups=phantoms.mappings)
    assert table.images.label.sum() == round(0.225 * COUNT)
    assert ((table.images["class"] == OPACITY) == (table.images.label == 1)).all()
    assert Counter(table.images["class"]) == {OPACITY: 68, NOT_NORMAL: 132, NORMAL: 100}
    assert (table.images.group != "").all()


def test_boxes_belong_to_positives_and_lie_inside(phantoms: PhantomSet) -> None:
    table = read_labels(phantoms.labels)
    boxes = table.boxes
    assert set(boxes.image_id) == set(table.images.image_id[table.images.label == 1])
    assert set(boxes.groupby("image_id").size()) == {1, 2, 3}
    assert (boxes[["x", "y"]] >= 0).all(axis=None)
    assert (boxes[["width", "height"]] >= SIZE / 20).all(axis=None)
    assert (boxes.x + boxes.width <= SIZE).all()
    assert (boxes.y + boxes.height <= SIZE).all()


def test_patients_have_one_image_or_several(phantoms: PhantomSet, files: dict[str, pydicom.FileDataset]) -> None:
    names = {row["subset_img_id"]: row["img_id"] for row in json.loads(phantoms.mappings.read_text())}
    assert len(set(names.values())) == COUNT
    assert set(Counter(name[:8] for name in names.values()).values()) == {1, 2, 3, 4}
    assert all(files[image_id].PatientID == f"SYNTHETIC-{name[:8]}" for image_id, name in names.items())
    sexes = {(file.PatientID, file.PatientSex, file.PatientAge) for file in files.values()}
    assert len(sexes) == len({name[:8] for name in names.values()})


def test_files_are_encoded_like_rsna(files: dict[str, pydicom.FileDataset]) -> None:
    for file in files.values():
        assert file.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        assert file.SOPClassUID.name == "Secondary Capture Image Storage"
        assert (file.PhotometricInterpretation, file.BitsStored, file.Rows, file.Columns) == (
            "MONOCHROME2",
            8,
            SIZE,
            SIZE,
        )
        assert file.PixelSpacing == [5.625, 5.625]
        assert file.PatientName == "SYNTHETIC^PHANTOM"
    assert {file.ViewPosition for file in files.values()} == {"AP", "PA"}
    assert len({file.SOPInstanceUID for file in files.values()}) == COUNT


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    make_phantoms(PhantomConfig(out=tmp_path, count=3, size_px=32), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


# ---- the same seed, the same bytes


def test_same_seed_same_bytes_in_another_process(tmp_path: Path) -> None:
    make_phantoms(PhantomConfig(out=tmp_path / "a", count=6, size_px=48, seed=7))
    code = (
        "import sys; from pathlib import Path; from pneumo_fast.phantoms.make import PhantomConfig, make_phantoms\n"
        "make_phantoms(PhantomConfig(out=Path(sys.argv[1]), count=6, size_px=48, seed=7))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b")], check=True, env=environment)
    assert len(digests(tmp_path / "a")) == 9
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_second_run_replaces_the_first(tmp_path: Path) -> None:
    config = PhantomConfig(out=tmp_path, count=4, size_px=32)
    make_phantoms(config)
    first = digests(tmp_path)
    next(tmp_path.rglob("*.dcm")).write_bytes(b"cut short")
    make_phantoms(config)
    assert digests(tmp_path) == first


def test_another_seed_makes_another_set(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_phantoms(PhantomConfig(out=tmp_path / str(seed), count=4, size_px=32, seed=seed))
    one, two = digests(tmp_path / "1"), digests(tmp_path / "2")
    assert not set(one.values()) & set(two.values())


def test_images_of_another_set_are_refused_and_kept(tmp_path: Path) -> None:
    make_phantoms(PhantomConfig(out=tmp_path, count=2, size_px=32, seed=1))
    before = digests(tmp_path)
    with pytest.raises(ConfigError, match=r"holds 2 DICOM files of another set, .* name another folder"):
        make_phantoms(PhantomConfig(out=tmp_path, count=2, size_px=32, seed=2))
    assert digests(tmp_path) == before


def test_interrupted_run_leaves_no_tables(tmp_path: Path) -> None:
    config = PhantomConfig(out=tmp_path, count=2, size_px=32)
    make_phantoms(config)

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_phantoms(config, interrupt)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".dcm"}


def test_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        make_phantoms(PhantomConfig(out=tmp_path / "out", count=1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", 0),
        ("size_px", 31),
        ("positive_fraction", 1.01),
        ("positive_fraction", float("nan")),
        ("images_per_patient", 0),
        ("seed", -1),
    ],
)
def test_impossible_options(field: str, value: float) -> None:
    options: dict[str, Any] = {"out": Path("unused"), field: value}
    with pytest.raises(ConfigError, match=f"{field} is {value}"):
        PhantomConfig(**options)


@pytest.mark.parametrize(("fraction", "positives"), [(0.0, 0), (0.5, 5), (1.0, 10)])
def test_positive_fraction_is_met_exactly(fraction: float, positives: int) -> None:
    cases = plan_cases(PhantomConfig(out=Path("unused"), count=10, positive_fraction=fraction))
    assert sum(case.finding == OPACITY for case in cases) == positives


# ---- the pictures


@given(
    seed=st.integers(0, 2**32),
    size=st.integers(32, 100),
    finding=st.sampled_from(CLASSES),
    view=st.sampled_from(["AP", "PA"]),
)
@settings(max_examples=60)
def test_any_picture_has_its_shape_and_boxes(seed: int, size: int, finding: str, view: str) -> None:
    image, boxes = draw(np.random.default_rng(seed), np.random.default_rng(seed + 1), size, finding=finding, view=view)
    assert image.shape == (size, size)
    assert image.dtype == np.uint8
    assert image.std() > 20
    assert len(boxes) in ({1, 2, 3} if finding == OPACITY else {0})
    assert all(x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= size and y + h <= size for x, y, w, h in boxes)


@pytest.mark.parametrize("rule", [np.mean, np.std, np.median, np.max, np.min])
def test_no_simple_rule_tells_the_label(rule: Any, phantoms: PhantomSet, pixels: dict[str, NDArray[np.uint8]]) -> None:
    images = read_labels(phantoms.labels).images
    scores = np.array([float(rule(pixels[image_id])) for image_id in images.image_id])
    assert 0.4 < auroc(scores, images.label.to_numpy() == 1) < 0.6


def test_opacities_show_where_their_boxes_are(phantoms: PhantomSet, pixels: dict[str, NDArray[np.uint8]]) -> None:
    table = read_labels(phantoms.labels)
    healthy = list(table.images.image_id[table.images.label == 0])
    scores = []
    for number, (image_id, *box) in enumerate(table.boxes.itertuples(index=False, name=None)):
        x, y, width, height = map(int, box)
        part = np.s_[y : y + height, x : x + width]
        pair = (pixels[image_id], pixels[healthy[number % len(healthy)]])
        scores += [(image[part].mean() - image.mean()) / image.std() for image in pair]
    assert auroc(np.array(scores), np.arange(len(scores)) % 2 == 0) > 0.75


def test_heart_is_larger_in_ap() -> None:
    means = []
    for view in ("PA", "AP"):
        image, _ = draw(np.random.default_rng(3), np.random.default_rng(4), 128, finding=NORMAL, view=view)
        means.append(image[60:100, 45:95].mean() - image.mean())
    assert means[1] > means[0]


# ---- one DICOM file


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">u2", "i2"])
def test_uncompressed_values_come_back(tmp_path: Path, dtype: str, transfer_syntax: str, photometric: str) -> None:
    stored = np.random.default_rng(0).integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (5, 7)).astype(dtype)
    write_dicom(tmp_path / "a.dcm", stored, transfer_syntax=transfer_syntax, photometric=photometric)
    file = pydicom.dcmread(tmp_path / "a.dcm")
    assert file.file_meta.TransferSyntaxUID == transfer_syntax
    assert file.PhotometricInterpretation == photometric
    np.testing.assert_array_equal(file.pixel_array, stored)


def test_jpeg_values_come_back_nearly(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(60), 2 * np.arange(70)).astype(np.uint8)
    write_dicom(tmp_path / "a.dcm", ramp, jpeg_quality=95)
    file = pydicom.dcmread(tmp_path / "a.dcm")
    assert (file.file_meta.TransferSyntaxUID, file.LossyImageCompression) == (JPEGBaseline8Bit, "01")
    assert np.abs(file.pixel_array.astype(int) - ramp).max() <= 3


def test_colour_is_written_as_it_is(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    write_dicom(tmp_path / "a.dcm", colour, transfer_syntax=ExplicitVRLittleEndian, photometric="RGB")
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "a.dcm").pixel_array, colour)


def test_attributes_replace_and_leave_out(tmp_path: Path) -> None:
    stored = np.zeros((4, 4), np.uint16)
    options: dict[str, Any] = {
        "BitsStored": 12,
        "HighBit": 11,
        "WindowCenter": 40.0,
        "Modality": None,
        "ViewPosition": None,
    }
    write_dicom(tmp_path / "a.dcm", stored, transfer_syntax=ExplicitVRLittleEndian, **options)
    file = pydicom.dcmread(tmp_path / "a.dcm")
    assert (file.BitsStored, file.HighBit, file.WindowCenter) == (12, 11, 40.0)
    assert "Modality" not in file
    assert "ViewPosition" not in file


@pytest.mark.parametrize(
    ("stored", "options", "message"),
    [
        (np.zeros((4, 4), np.uint16), {}, "JPEG Baseline takes uint8"),
        (np.zeros((4, 4, 3), np.uint8), {}, "JPEG Baseline takes uint8"),
        (np.zeros((4, 4), np.float32), {}, "pixels are float32"),
        (np.zeros(4, np.uint8), {}, r"pixels are uint8 \(4,\)"),
        (np.zeros((4, 4), np.uint8), {"transfer_syntax": JPEG2000Lossless}, "JPEG 2000 .* cannot be written"),
        (np.zeros((4, 4), np.uint8), {"WindowCentre": 1}, "WindowCentre is not a DICOM keyword"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, stored: NDArray[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_dicom(tmp_path / "a.dcm", stored, **options)
    assert not list(tmp_path.iterdir())
