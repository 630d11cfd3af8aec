"""The objects, read back and looked at by a validator."""

from __future__ import annotations

import copy
import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import EnhancedSRStorage, SecondaryCaptureImageStorage

from pneumo_fast.dicom_out.source import Source, read_source
from pneumo_fast.phantoms.dicom_file import write_dicom

pytest.importorskip("highdicom", reason="the extra dicom is not installed")
from pneumo_fast.dicom_out.objects import SCHEME, Finding, make_capture, make_report

KEY = b"k" * 32
FINDING = Finding(
    probability=0.75, calibrated=0.25, threshold=0.5, model="resnet18", checksums=("ab" * 32,), scorer="ef" * 32
)
needs_validator = pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    uids: dict[str, Any] = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}
    names: dict[str, Any] = {
        "PatientName": "Grün^Jörg",
        "PatientID": "4711",
        "AccessionNumber": "A1",
        "StudyDate": "20261125",
    }
    path = tmp_path / "source.dcm"
    write_dicom(path, np.zeros((64, 64), np.uint8), SpecificCharacterSet="ISO_IR 192", **uids, **names)
    return read_source(path, 1 << 20)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def errors_of(path: Path) -> list[str]:
    done = subprocess.run([shutil.which("dciodvfy") or "", path], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def both(source: Source, finding: Finding = FINDING, key: bytes = KEY) -> tuple[pydicom.Dataset, pydicom.Dataset]:
    return make_capture(source, finding, png(), key), make_report(source, finding, key)


def texts(dataset: pydicom.Dataset) -> dict[str, str]:
    """What a report says, by the meaning of each item's name."""
    found = {}
    for item in dataset.get("ContentSequence", []):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        if "MeasuredValueSequence" in item:
            found[name] = str(item.MeasuredValueSequence[0].NumericValue)
        elif "ConceptCodeSequence" in item:
            found[name] = item.ConceptCodeSequence[0].CodeMeaning
        elif "TextValue" in item:
            found[name] = found.get(name, "") + item.TextValue + "\n"
        found |= texts(item)
    return found


def test_they_lie_in_the_study_of_their_source(source: Source) -> None:
    for made in both(source):
        assert (made.StudyInstanceUID, made.PatientID, made.AccessionNumber) == ("1.2.3", "4711", "A1")
        assert str(made.PatientName) == "Grün^Jörg"
        assert made.SeriesInstanceUID not in {"1.2.3.4", ""}
        assert "RESEARCH, NOT FOR CLINICAL USE" in made.SeriesDescription


def test_the_capture_shows_the_overlay_and_names_its_source(source: Source) -> None:
    capture, _ = both(source)
    assert capture.SOPClassUID == SecondaryCaptureImageStorage
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    assert np.array_equal(capture.pixel_array, np.asarray(Image.open(io.BytesIO(png()))))


def test_the_report_gives_the_figures_and_names_its_source(source: Source) -> None:
    _, report = both(source)
    found = texts(report)
    assert report.SOPClassUID == EnhancedSRStorage
    assert found["Probability of pneumonia"] == "0.75"
    assert found["Calibrated probability of pneumonia"] == "0.25"
    assert found["Threshold on the probability"] == "0.5"
    assert found["Class at the threshold"] == "Positive"
    assert found["Algorithm Name"].strip() == "pneumo-fast resnet18"
    assert "not for clinical use" in found["Algorithm Parameters"]
    assert "ab" * 32 in found["Algorithm Parameters"]
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == SCHEME


@pytest.mark.parametrize(("probability", "said"), [(0.4999, "Negative"), (0.5, "Positive")])
def test_it_is_positive_from_the_threshold_on(source: Source, probability: float, said: str) -> None:
    found = texts(make_report(source, replace(FINDING, probability=probability, calibrated=None), KEY))
    assert found["Class at the threshold"] == said
    assert "Calibrated probability of pneumonia" not in found


def test_uids_are_those_of_image_scorer_and_key(source: Source) -> None:
    def uids_of(*arguments: Any) -> set[str]:
        return {uid for made in both(*arguments) for uid in (made.SOPInstanceUID, made.SeriesInstanceUID)}

    uids = uids_of(source)
    assert len(uids) == 4, "an object and a series for the capture, and others for the report"
    assert uids == uids_of(source, replace(FINDING, probability=0.1))
    image = copy.deepcopy(source)
    image.dataset.SOPInstanceUID = "1.2.3.4.6"
    for other in (image,), (source, replace(FINDING, scorer="cd" * 32)), (source, FINDING, b"other" * 8):
        assert not uids & uids_of(*other)
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)


@needs_validator
def test_a_validator_finds_no_error(source: Source, tmp_path: Path) -> None:
    for number, made in enumerate(both(source)):
        made.save_as(tmp_path / f"{number}.dcm")
        assert errors_of(tmp_path / f"{number}.dcm") == []


@needs_validator
def test_the_validator_finds_what_is_wrong(source: Source, tmp_path: Path) -> None:
    capture, _ = both(source)
    del capture.ConversionType
    capture.save_as(tmp_path / "wrong.dcm")
    assert errors_of(tmp_path / "wrong.dcm")
