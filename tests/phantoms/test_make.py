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
from numpy.typing import NDArray
from pydicom.uid import JPEGBaseline8Bit

from pneumo_fast.conversion.labels import read_labels
from pneumo_fast.errors import ConfigError
from pneumo_fast.phantoms.make import PhantomSet, make_phantoms, plan_cases
from pneumo_fast.phantoms.options import PhantomConfig
from pneumo_fast.phantoms.thorax import NORMAL, NOT_NORMAL, OPACITY
from tests.support.judged import mann_whitney
from tests.support.repository import ROOT

COUNT, SIZE = 300, 64


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
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
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


@pytest.mark.parametrize("rule", [np.mean, np.std, np.median, np.max, np.min])
def test_no_simple_rule_tells_the_label(rule: Any, phantoms: PhantomSet, pixels: dict[str, NDArray[np.uint8]]) -> None:
    images = read_labels(phantoms.labels).images
    scores = np.array([float(rule(pixels[image_id])) for image_id in images.image_id])
    assert 0.4 < mann_whitney(images.label.to_numpy(), scores) < 0.6


def test_opacities_show_where_their_boxes_are(phantoms: PhantomSet, pixels: dict[str, NDArray[np.uint8]]) -> None:
    table = read_labels(phantoms.labels)
    healthy = list(table.images.image_id[table.images.label == 0])
    scores = []
    for number, (image_id, *box) in enumerate(table.boxes.itertuples(index=False, name=None)):
        x, y, width, height = map(int, box)
        part = np.s_[y : y + height, x : x + width]
        pair = (pixels[image_id], pixels[healthy[number % len(healthy)]])
        scores += [(image[part].mean() - image.mean()) / image.std() for image in pair]
    assert mann_whitney(np.arange(1, len(scores) + 1) % 2, np.array(scores)) > 0.75
