"""An export of 50 objects of all kinds: the frontal chest radiographs are stored, each other kind is counted apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import ConvertError
from pneumo_fast.phantoms.dicom_file import write_dicom
from tests.support.conversions import rejects, run

pytestmark = pytest.mark.usefixtures("shared_worker")
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "": (20, {"Modality": "DX", "ViewPosition": "PA"}),
    "unstated": (6, {"Modality": "OT", "ViewPosition": None, "BodyPartExamined": None}),
    "other_modality": (7, {"Modality": "CT", "NumberOfFrames": "1"}),
    "other_view": (8, {"ViewPosition": "LL"}),
    "other_body_part": (5, {"BodyPartExamined": "HAND"}),
    "not_an_image": (4, {"Modality": "SR"}),
}


@pytest.fixture
def export(tmp_path: Path) -> ConvertConfig:
    (tmp_path / "images").mkdir()
    names = [f"{kind or 'frontal'}-{number}" for kind, (count, _) in KINDS.items() for number in range(count)]
    attributes = [values for count, values in KINDS.values() for _ in range(count)]
    for seed, (name, values) in enumerate(zip(names, attributes, strict=True)):
        path = tmp_path / "images" / f"{name}.dcm"
        write_dicom(path, np.random.default_rng(seed).integers(0, 256, (48, 64), dtype=np.uint8), **values)
        if values.get("Modality") == "SR":
            report = pydicom.dcmread(path)
            del report.PixelData
            report.save_as(path)
    rows = "".join(f"{name},{number % 2}\n" for number, name in enumerate(names))
    (tmp_path / "labels.csv").write_text("patientId,Target\n" + rows)
    return ConvertConfig(
        images=tmp_path / "images", labels=tmp_path / "labels.csv", out=tmp_path / "dataset", size=32,
        val_fraction=0.25, workers=1, keep_ids=True, max_rejects=0,
    )  # fmt: skip


def test_what_is_not_wanted_is_counted_and_does_not_end_the_conversion(export: ConvertConfig) -> None:
    assert sum(count for count, _ in KINDS.values()) == 50
    manifest = run(export).manifest
    index = Dataset.open(export.out).index
    assert Counter(name.split("-")[0] for name in index["image_id"]) == {"frontal": 20, "unstated": 6}
    unwanted = sorted(KINDS.keys() - {"", "unstated"})
    assert manifest.rejects == {kind: KINDS[kind][0] for kind in unwanted}
    assert all(path.startswith(reason) for path, reason in rejects(export.out))
    unknown = {name: count for name, count in manifest.input.items() if name.startswith("unknown")}
    assert unknown["unknown_modality"] == 6
    assert unknown["unknown_body_part"] == 6


def test_a_fault_counts_as_ever(export: ConvertConfig) -> None:
    (export.images / "frontal-3.dcm").write_bytes(b"no DICOM at all")
    with pytest.raises(ConvertError, match="1 of 50 files were rejected, 0 are allowed"):
        run(export)
    assert run(export, max_rejects=1, resume=True).manifest.rejects["not_dicom"] == 1


def test_laterals_and_hands_on_request(export: ConvertConfig) -> None:
    manifest = run(replace(export, views=("LL",), body_parts=("CHEST", "HAND"))).manifest
    assert manifest.rejects == {"not_an_image": 4, "other_modality": 7, "other_view": 20}
