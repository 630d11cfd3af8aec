"""What of a source's header its results repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from pneumo_fast.dicom_out.source import IDENTITY, read_source
from pneumo_fast.errors import RejectedImageError
from pneumo_fast.phantoms.dicom_file import write_dicom
from tests.contracts.test_patient_data import unchecked

UIDS: dict[str, Any] = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}


def planted(path: Path, keyword: str, vr: str, value: Any) -> Path:
    """A radiograph with a value that is written as it is."""
    write_dicom(path, np.zeros((64, 64), dtype=np.uint8), **UIDS)
    with pydicom.config.disable_value_validation():
        dataset = pydicom.dcmread(path)
        if vr == "PN":
            dataset.PatientName = value
        else:
            dataset[keyword] = unchecked(keyword, vr, value)
        dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "expected", "note"),
    [
        ("PatientAge", "AS", "051Y", "051Y", ""),
        ("PatientAge", "AS", "51", "051Y", "PatientAge_corrected"),
        ("PatientAge", "AS", "7M", "007M", "PatientAge_corrected"),
        ("PatientAge", "AS", "old", None, "PatientAge_left_out"),
        ("PatientSex", "CS", "F", "F", ""),
        ("PatientSex", "CS", "female", "F", "PatientSex_corrected"),
        ("PatientSex", "CS", "??", "", "PatientSex_left_out"),
        ("StudyDate", "DA", "20261125", "20261125", ""),
        ("StudyDate", "DA", "25.11.2026", "", "StudyDate_left_out"),
        ("PatientBirthDate", "DA", "19470229", "", "PatientBirthDate_left_out"),
        ("StudyTime", "TM", "noon", "", "StudyTime_left_out"),
        ("StudyID", "SH", "longer than sixteen characters", "", "StudyID_left_out"),
        ("PatientName", "PN", "Doe^Jane", "Doe^Jane", ""),
        ("PatientName", "PN", "", "", ""),
        ("PatientID", "LO", "x" * 65, "", "PatientID_left_out"),
        ("StudyDescription", "LO", "chest", "chest", ""),
    ],
)
def test_values(tmp_path: Path, keyword: str, vr: str, value: str, expected: str | None, note: str) -> None:
    source = read_source(planted(tmp_path / "a", keyword, vr, value), 1 << 20)
    assert source.dataset.get(keyword) == expected
    assert list(source.notes) == [note] * bool(note)
    assert all(name in source.dataset for name in IDENTITY)


@pytest.mark.parametrize("keyword", [*UIDS, "SOPClassUID"])
@pytest.mark.parametrize("value", ["", "no uid", "1.2." + "3" * 70])
def test_without_a_valid_uid_there_is_nothing_to_refer_to(tmp_path: Path, keyword: str, value: str) -> None:
    with pytest.raises(RejectedImageError, match=f"no_source_object: no valid {keyword}"):
        read_source(planted(tmp_path / "a", keyword, "UI", value), 1 << 20)


def test_what_is_no_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG" + bytes(200))
    for path in (tmp_path / "a.png", tmp_path / "missing"):
        with pytest.raises(RejectedImageError, match=r"not_dicom|not_readable"):
            read_source(path, 1 << 20)
