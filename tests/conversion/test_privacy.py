"""No byte of a dataset names a patient, and ids stand in it only where that is asked for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import ConvertError
from pneumo_fast.phantoms.dicom_file import write_dicom
from pneumo_fast.vocabulary import Layout
from tests.support.conversions import LAYOUTS, run, write_input

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


@pytest.mark.usefixtures("shared_worker")
@LAYOUTS
def test_no_byte_names_a_patient(secretive: ConvertConfig, layout: Layout) -> None:
    run(secretive, layout=layout)
    index = Dataset.open(secretive.out).index
    assert len(index) == 11
    assert set(index["view"]) == {"AP"}
    assert index["group"].nunique() == 4
    assert_free_of(secretive.out, [*SECRETS[:5], SECRETS[5][:7]])


@pytest.mark.usefixtures("shared_worker")
def test_pseudonyms_depend_on_the_key(secretive: ConvertConfig, tmp_path: Path) -> None:
    groups: list[list[str]] = []
    for number in (0, 0, 1):
        run(secretive, hash_key=tmp_path / f"{number}.key", out=tmp_path / "out", overwrite=bool(groups))
        groups.append(Dataset.open(tmp_path / "out").index.set_index("image_id")["group"].sort_index().tolist())
    assert groups[0] == groups[1]
    assert not set(groups[0]) & set(groups[2])
    assert Counter(Counter(groups[0]).values()) == Counter(Counter(groups[2]).values())


def test_records_of_an_unfinished_conversion_hold_no_hash_without_the_key(tmp_path: Path) -> None:
    config = write_input(tmp_path)
    file = next(config.images.iterdir())
    hashed = hashlib.sha256(str(dcmread(file).SOPInstanceUID).encode()).hexdigest()[:16]
    bad = config.images / "i99.dcm"
    bad.write_text("no radiograph")
    with config.labels.open("a") as table:
        table.write("i99,0\n")
    with pytest.raises(ConvertError, match="1 of 13 files were rejected"):
        run(config, max_rejects=0, shard_size=2)
    records = "".join(path.read_text() for path in (config.out / ".convert").glob("*.json"))
    assert '"uid_hash": "' in records
    assert hashed not in records
