"""Nothing that identifies a patient reaches any output: planted texts are searched for in every byte of them all."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from pneumo_fast.conversion.labels import read_labels
from pneumo_fast.dataset.pseudonyms import load_key, pseudonym
from pneumo_fast.errors import LabelError
from pneumo_fast.pacs.node import hushed
from pneumo_fast.phantoms.dicom_file import write_dicom
from tests.support.dicomweb_stub import Answer, Archive, Asked, stub_server
from tests.support.orthanc import free_port
from tests.support.serving import SENDER, journal, store, wait_until

NAME = "Zxqplanted^Wilhelmine"
MARKS = ("zxqplanted", "wilhelmine", "9876501234", "19470229")
"""Lower-case text or digits, one of which is in everything planted."""
UID = "1.2.826.0.1.9876501234.7"
IMAGES = 24
TEXTS = {
    "PatientName": NAME, "PatientID": "ZXQPLANTED9876501234", "PatientBirthDate": "19470229",
    "AccessionNumber": "9876501234", "InstitutionName": "Zxqplanted Hospital", "StudyDate": "19470229",
    "ReferringPhysicianName": NAME, "PatientAddress": "Zxqplanted Road 1", "PatientComments": "zxqplanted",
    "StudyDescription": "zxqplanted", "SeriesDescription": "zxqplanted, view: PA, Wilhelmine", "StudyID": "9876501234",
    "SeriesInstanceUID": UID, "StationName": "ZXQPLANTED", "ImageComments": "zxqplanted",
}  # fmt: skip
ODD = {
    "PatientAge": ("AS", "zxqplanted 51"), "PatientSex": ("CS", "zxqplanted lower case"),
    "ViewPosition": ("CS", "Zxqplanted PA"), "BurnedInAnnotation": ("CS", "zxqplanted"),
    "StudyTime": ("TM", "zxqplanted"), "PatientBirthTime": ("TM", "9876501234"), "PixelSpacing": ("DS", "zxqplanted"),
    "PresentationLUTShape": ("CS", "zxqplanted"), "VOILUTFunction": ("CS", "zxqplanted"),
}  # fmt: skip
"""Values that their VR forbids, so that pydicom warns of them and quotes them."""
SPOILERS: dict[str, tuple[str, Any]] = {
    "PhotometricInterpretation": ("CS", "ZXQPLANTED"),
    "NumberOfFrames": ("IS", "zxqplanted"),
    "RescaleSlope": ("DS", "zxqplanted"),
    "WindowCenter": ("DS", "zxqplanted"),
    "BitsStored": ("LO", "zxqplanted"),
    "SOPClassUID": ("UI", "zxqplanted"),
}
"""Values in attributes that are needed, so that the file is rejected, or read with a note."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hospital:
    """A folder of radiographs and tables full of planted texts."""

    folder: Path
    images: Path
    labels: Path


def plant(path: Path, *, number: int) -> None:
    """A radiograph with something planted wherever a file has room for it."""
    pixels = np.random.default_rng(number).integers(0, 255, (64, 64), dtype=np.uint8)
    attributes: dict[str, Any] = {**TEXTS, "SOPInstanceUID": f"{UID}.{number}"}
    syntax = JPEGBaseline8Bit if number % 2 else ExplicitVRLittleEndian
    write_dicom(path, pixels, transfer_syntax=syntax, **attributes)
    dataset = pydicom.dcmread(path)
    item = Dataset()
    item.PatientID, item.IssuerOfPatientID = "ZXQPLANTED", NAME
    dataset.OtherPatientIDsSequence = [item]
    for creator in ("ZXQPLANTED", "zxqplanted other"):
        dataset.private_block(0x0011, creator, create=True).add_new(1, "LO", NAME)
    if number % 3 == 0:
        for keyword, (vr, value) in ODD.items():
            dataset[keyword] = unchecked(keyword, vr, value)
    dataset.save_as(path)


def unchecked(keyword: str, vr: str, value: Any) -> DataElement:
    element = DataElement(keyword, "LO" if isinstance(value, str) else vr, value)
    element.VR = vr
    return element


def spoil(path: Path, keyword: str, vr: str, value: str) -> None:
    """Replace an element by one with a value that cannot be."""
    dataset = pydicom.dcmread(path)
    raw = value.encode() + b" " * (len(value) % 2)
    dataset._dict[pydicom.tag.Tag(keyword)] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(keyword), vr, len(raw), raw, 0, False, True
    )
    dataset.save_as(path)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Its files, too, are named by planted ids."""
    folder = tmp_path_factory.mktemp("hospital")
    images = folder / "images"
    (images / "deep").mkdir(parents=True)
    ids = [f"Zxqplanted_9876501234_{number:03d}" for number in range(IMAGES)]
    files = [images / f"{image_id}.dcm" for image_id in ids]
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")  # the planted values are what pydicom warns of
        for number, path in enumerate(files):
            plant(path, number=number)
        for path, (keyword, (vr, value)) in zip(files, SPOILERS.items(), strict=False):
            spoil(path, keyword, vr, value)
    files[6].write_text(f"PatientName,{NAME}\n" * 20)  # no DICOM
    files[7].write_bytes(files[7].read_bytes()[:-500])  # cut short
    files[8].write_bytes(files[9].read_bytes()[:600])  # cut short in the header
    (images / "deep" / files[10].name).write_bytes(files[10].read_bytes())  # two files of one row
    table = pd.DataFrame(
        {
            "patientId": ids,
            "Target": [number % 2 for number in range(IMAGES)],
            "mrn": [f"ZXQPLANTED-{number // 2}" for number in range(IMAGES)],
            "name": NAME,
            "born": "19470229",
        }
    )
    table.to_csv(folder / "labels.csv", index=False)
    return Hospital(folder=folder, images=images, labels=folder / "labels.csv")


ONE_BY_ONE = """
import json, sys
from pneumo_fast.cli.app import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["pneumo-fast", *words, "--json"]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
"""A program that runs several commands: what they import takes longer than what they do here."""


def run(folder: Path, *arguments: str | Path, expect: int = 0) -> None:
    """Run a command and keep what it prints in a folder, as one more output."""
    run_all(folder, [arguments], expect=expect)


def run_all(folder: Path, commands: Sequence[Sequence[str | Path]], expect: int = 0) -> None:
    """The same with several, one after the other, whose output is that of the first by its name."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, json.dumps([[str(word) for word in words] for words in commands])],
        env=os.environ | {"COLUMNS": "300", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    folder.mkdir(exist_ok=True)
    (folder / f"{commands[0][0]}.txt").write_bytes(done.stdout + done.stderr)
    assert done.returncode == expect, done.stderr.decode()


def leaks(*folders: Path) -> list[str]:
    """Where a mark stands: in a file's bytes (of archives, each member's) or in its name."""
    found = []
    for path in (path for folder in folders for path in folder.rglob("*")):
        texts = [str(path.relative_to(path.parents[1])).encode()]
        if path.is_file():
            texts.append(path.read_bytes())
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                texts += [archive.read(name) for name in archive.namelist()]
        found += [f"{path}: {mark}" for mark in MARKS for text in texts if mark.encode() in text.lower()]
    return found


def convert(hospital: Hospital, out: Path, *options: str, expect: int = 0) -> None:
    fixed = ["--group-column", "mrn", "--size", "32", "--val-fraction", "0.3", "--workers", "1"]
    run(out.parent / "said", "convert", hospital.images, hospital.labels, out, *fixed, *options, expect=expect)


def original_of_the_first(dataset: Path, hospital: Hospital, split: str) -> str:
    """The id, as the label table has it, of a split's first image."""
    index = pd.read_csv(dataset / "index.csv", dtype=str)
    stored = index.loc[index["split"] == split, "image_id"].iloc[0]
    ids = pd.read_csv(hospital.labels, dtype=str)["patientId"]
    return next(str(image_id) for image_id in ids if pseudonym(load_key(), "image", image_id) == stored)


@pytest.mark.parametrize("layout", ["shards", "folder"])
def test_convert_leaks_nothing(hospital: Hospital, layout: str, tmp_path: Path) -> None:
    convert(hospital, tmp_path / "dataset", "--layout", layout, "--max-rejects", "100%")

    assert not leaks(tmp_path)
    reasons = set(pd.read_csv(tmp_path / "dataset" / "rejects.csv")["reason"])
    assert {"not_dicom", "ambiguous", "corrupt", "unsupported", "bad_header"} <= reasons
    assert "converted" in (tmp_path / "said" / "convert.txt").read_text()
    index = pd.read_csv(tmp_path / "dataset" / "index.csv", dtype=str)
    written = (tmp_path / "dataset" / "index.csv").read_text() + (tmp_path / "dataset" / "manifest.json").read_text()
    assert index["group"].str.fullmatch("[0-9a-f]{16}").all()
    for group in pd.read_csv(hospital.labels)["mrn"]:
        assert hashlib.sha256(group.encode()).hexdigest()[:16] not in written, "without the key"


def test_paths_leak_nothing(hospital: Hospital, tmp_path: Path) -> None:
    table = pd.read_csv(hospital.labels)
    table["path"] = table.pop("patientId") + ".dcm"
    table.to_csv(tmp_path.parent / f"{tmp_path.name}.csv", index=False)
    by_path = replace(hospital, labels=tmp_path.parent / f"{tmp_path.name}.csv")
    convert(by_path, tmp_path / "dataset", "--path-column", "path", "--max-rejects", "100%")

    assert len(pd.read_csv(tmp_path / "dataset" / "rejects.csv")) > 5
    assert not leaks(tmp_path)


def test_failed_conversion_leaks_nothing(hospital: Hospital, tmp_path: Path) -> None:
    convert(hospital, tmp_path / "dataset", "--max-rejects", "0", expect=1)

    assert (tmp_path / "dataset" / "rejects.csv").exists()
    assert not leaks(tmp_path)


def test_training_and_judging_leak_nothing(hospital: Hospital, tmp_path: Path) -> None:
    convert(hospital, tmp_path / "dataset", "--max-rejects", "100%")
    train = ["--epochs", "1", "--batch-size", "4", "--device", "cpu"]
    asked = original_of_the_first(tmp_path / "dataset", hospital, split="val")
    predict: list[str | Path] = ["--out", tmp_path / "predictions", "--explain", "--device", "cpu", "--batch-size", "4"]
    table: list[str | Path] = ["--labels", hospital.labels, "--group-column", "mrn", "--resamples", "100"]
    objects = tmp_path.parent / f"{tmp_path.name}-objects"  # these alone name the patient
    commands: list[list[str | Path]] = [
        ["train", tmp_path / "dataset", "--out", tmp_path / "run", *train],
        ["evaluate", tmp_path / "run", "--device", "cpu", "--batch-size", "4"],
        ["explain", tmp_path / "run", "--id", asked, "--device", "cpu", "--resamples", "100"],
        ["report", tmp_path / "run"],
        ["export", tmp_path / "run", "--format", "onnx"],
        ["export", tmp_path / "run", "--format", "torch"],
        ["predict", tmp_path / "run", hospital.images, *predict, *table, "--workers", "1", "--dicom-out", objects],
    ]
    run_all(tmp_path / "said", commands)

    journalled = serve(hospital, tmp_path, objects / "served")
    assert journalled["received"] > 10
    assert journalled["scored"] > 10
    assert journalled["waiting"] == 0

    assert len(list((tmp_path / "predictions" / "explain").iterdir())) > 10
    assert leaks(objects)
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"best.pt", "eval", "explain", "report.html", "model_card.md", "model.onnx", "model.pt2"} <= written
    assert not leaks(tmp_path)


@pytest.mark.slow
def test_scoring_what_a_server_has_leaks_nothing(hospital: Hospital, tmp_path: Path) -> None:
    convert(hospital, tmp_path / "dataset", "--max-rejects", "100%")
    train = ["--epochs", "1", "--batch-size", "4", "--device", "cpu"]
    run(tmp_path / "said", "train", tmp_path / "dataset", "--out", tmp_path / "run", *train)
    archive = Archive(sorted(hospital.images.glob("*.dcm"))[9:])
    for known in archive.matches:
        known |= {"00100010": NAME, "00080050": TEXTS["AccessionNumber"], "0008103E": "zxqplanted"}
    reached, silent = threading.Event(), threading.Event()

    def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            return Answer(status=409, body=NAME.encode())
        if asked.path.endswith(".22"):
            reached.set()
            silent.wait(60)
            return Answer(status=500, body=NAME.encode())
        return archive(asked)

    options: list[str | Path] = ["--out", tmp_path / "predictions", "--device", "cpu", "--workers", "1", "--explain"]
    with stub_server(answer) as stub:
        query = ["--dicomweb", stub.url, "--query", f"PatientName={NAME}", "--match", "AccessionNumber", "--store"]
        words = [str(word) for word in ("predict", tmp_path / "run", *query, *options)]
        process = subprocess.Popen([sys.executable, "-m", "pneumo_fast", *words], stderr=subprocess.PIPE)
        assert reached.wait(120)
        process.send_signal(signal.SIGKILL)
        (tmp_path / "said" / "killed.txt").write_bytes(process.communicate()[1])
        found = leaks(tmp_path)
        assert found
        for_its_owner = ("/.predict/retrieved/", "/.predict/instances.json:")  # until it has ended
        assert all(any(kept in place for kept in for_its_owner) for place in found)
        silent.set()
        run(tmp_path / "said", *words, "--resume")
    assert not leaks(tmp_path)
    table = pd.read_csv(tmp_path / "predictions" / "predictions.csv", dtype=str)
    assert set(table["dicom"].dropna().str.split().str[0]) == {"not_stored"}
    assert list(table["reject"].dropna()) == ["not_retrieved"]


def serve(hospital: Hospital, folder: Path, objects: Path) -> dict[str, Any]:
    """Send the images to the run as a DICOM node, whose spool and messages lie in a folder; the journal's counts."""
    port = free_port()
    options = ["--allow", SENDER, "--port", port, "--spool", folder / "spool", "--dicom-out", objects]
    command = [sys.executable, "-m", "pneumo_fast", "serve", folder / "run", *options, "--device", "cpu", "--json"]
    with (folder / "said" / "serve.txt").open("wb") as said, (folder / "said" / "serve.json").open("wb") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=said)
    try:
        wait_until(lambda: b"listens at" in (folder / "said" / "serve.txt").read_bytes())
        for path in sorted(hospital.images.glob("*.dcm")):
            with hushed(), suppress(InvalidDicomError, ValueError, EOFError, NameError):  # what pynetdicom cannot send
                store(port, pydicom.dcmread(path))
        wait_until(lambda: journal(folder / "spool", "SELECT 1 FROM instances WHERE state = 'waiting'") == [])
    finally:
        process.terminate()
        assert process.wait(60) == 143
    counts: dict[str, Any] = json.loads((folder / "said" / "serve.json").read_text())["counts"]
    return counts


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("patientId,Target,mrn\na,0,Zxqplanted\na,0,Wilhelmine\n", {"group_column": "mrn"}),
        ("patientId,Target\nZxqplanted/x,0\n", {}),
        ("patientId,Target\na,Zxqplanted\n", {}),
        ("patientId,Target\nZxqplanted,0\nZxqplanted,1\n", {}),
        ("path,Target\n../Zxqplanted.dcm,0\n", {"path_column": "path"}),
        ("patientId,Target,x,y,width,height\na,1,Zxqplanted,1,1,1\n", {}),
        ("patientId,Target\na,0\nb,0,Zxqplanted,9876501234\n", {}),
        ("patientId,Target\na,0\nb,0,\"Zxqplanted\n", {}),
    ],
)  # fmt: skip
def test_messages_about_tables_quote_no_patient(text: str, options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(LabelError) as error:
        read_labels(tmp_path / "labels.csv", **options)
    assert not [mark for mark in MARKS if mark in str(error.value).lower()]


def test_leaks_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"x{NAME}x")
    (tmp_path / "zxqplanted").mkdir()
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", "19470229" * 100)
    assert len(leaks(tmp_path)) == 4
