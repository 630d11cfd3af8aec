"""Files find their rows by name, path or attribute; several files of a row by a stated rule; none is lost silently."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom import Dataset as Header
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from pneumo_fast.conversion import matching
from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.lookup import look_up_ids
from pneumo_fast.conversion.options import ConvertConfig, IdsConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.verify import verify
from pneumo_fast.errors import ConfigError, ConvertError, LabelError
from pneumo_fast.phantoms.dicom_file import write_dicom
from tests.support.conversions import LAYOUTS, contents, rejects

pytestmark = pytest.mark.usefixtures("shared_worker")

STUDIES = 8


def write(path: Path, seed: int, **attributes: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dicom(path, np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8), **attributes)


@pytest.fixture
def export(tmp_path: Path) -> ConvertConfig:
    """Studies of one PA each, named as no id is; a table of accession numbers with a row that has no file."""
    for number in range(STUDIES):
        folder = tmp_path / "images" / f"study{number}"
        write(folder / "IM0001", number, AccessionNumber=f"A{number} ", ViewPosition="PA", SeriesNumber=2)
    rows = "".join(f"A{number},{number % 2}\n" for number in range(STUDIES + 1))
    (tmp_path / "labels.csv").write_text("accession,Target\n" + rows)
    return ConvertConfig(
        images=tmp_path / "images", labels=tmp_path / "labels.csv", out=tmp_path / "dataset", size=32, workers=1,
        id_column="accession", match="AccessionNumber", val_fraction=0.25, keep_ids=True, max_rejects=10,
    )  # fmt: skip


def index_of(config: ConvertConfig) -> pd.DataFrame:
    return Dataset.open(config.out).index


def test_an_attribute_finds_the_row(export: ConvertConfig) -> None:
    (export.images / "notes.txt").write_text("no DICOM")
    os.mkfifo(export.images / "pipe")
    manifest = convert(export).manifest
    assert set(index_of(export)["image_id"]) == {f"A{number}" for number in range(STUDIES)}
    assert index_of(export).set_index("image_id")["label"].to_dict() == {f"A{n}": n % 2 for n in range(STUDIES)}
    assert (manifest.input["rows_without_file"], manifest.input["files_without_row"]) == (1, 2)
    assert (export.out / "files_without_row.csv").read_text() == "path\nnotes.txt\npipe\n"
    assert (export.out / "unmatched.csv").read_text() == f"image_id\nA{STUDIES}\n"
    assert verify(export.out) == []


def test_many_headers_are_read_by_several_processes(export: ConvertConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [str(path.relative_to(export.images)) for path in sorted(export.images.rglob("IM*"))]
    here = list(matching.read_identities(files, export))
    monkeypatch.setattr(matching, "FEW_FILES", 1)
    assert list(matching.read_identities(files, replace(export, workers=2))) == here
    assert [(one.value, one.series) for one in here] == [(f"A{number}", 2) for number in range(STUDIES)]


@pytest.mark.parametrize("name", ["numpy", "pickle", "pneumo_fast"])
def test_processes_that_read_headers_run_nothing_that_lies_in_the_working_directory(
    name: str, export: ConvertConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\nraise ImportError\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(matching, "FEW_FILES", 1)
    files = ["study0/IM0001", "study1/IM0001"]
    assert [one.value for one in matching.read_identities(files, replace(export, workers=2))] == ["A0", "A1"]
    assert not (tmp_path / "was_run").exists()


def test_a_process_that_ends_while_it_reads_headers_is_said_to(
    export: ConvertConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "FEW_FILES", 1)
    monkeypatch.setattr(matching, "partial", lambda *_, **_options: os._exit)
    with pytest.raises(ConvertError, match="a process that read headers ended unexpectedly"):
        list(matching.read_identities(cast("list[str]", [1, 1]), replace(export, workers=2)))


def test_unwanted_files_of_a_study_do_not_count(export: ConvertConfig) -> None:
    write(export.images / "study0" / "IM0002", 50, AccessionNumber="A0", ViewPosition="LL")
    write(export.images / "study1" / "IM0000", 51, AccessionNumber="A1", Modality="CT")
    convert(export)
    assert len(index_of(export)) == STUDIES
    assert rejects(export.out) == [("study0/IM0002", "other_view"), ("study1/IM0000", "other_modality")]


@pytest.mark.parametrize("modality", ["SR", "PR", "DX"])
@pytest.mark.parametrize("several", ["reject", "first", "all"])
def test_an_object_without_pixels_is_no_candidate(export: ConvertConfig, several: Any, modality: str) -> None:
    """Reports and presentation states often have a lower series number than the radiograph beside them."""
    report = pydicom.dcmread(export.images / "study0" / "IM0001")
    report.SeriesNumber, report.Modality, report.ViewPosition = 1, modality, None
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(report, keyword)
    report.save_as(export.images / "study0" / "IM0000")
    convert(replace(export, several=several, max_rejects=0))
    assert "A0" in set(index_of(export)["image_id"])
    assert rejects(export.out) == [("study0/IM0000", "not_an_image")]


@pytest.fixture
def two_of_a_study(export: ConvertConfig) -> ConvertConfig:
    """The first study has three wanted files; in order of series and instance the middle one by name comes first."""
    write(export.images / "study0" / "IM0002", 60, AccessionNumber="A0", SeriesNumber=1, InstanceNumber=2)
    write(export.images / "study0" / "IM0003", 61, AccessionNumber="A0", SeriesNumber=1, InstanceNumber=10)
    return export


def test_several_files_of_a_row_are_ambiguous_by_default(two_of_a_study: ConvertConfig) -> None:
    convert(two_of_a_study)
    assert "A0" not in set(index_of(two_of_a_study)["image_id"])
    assert [reason for _, reason in rejects(two_of_a_study.out)] == ["ambiguous"] * 3
    with pytest.raises(
        ConvertError,
        match=r"3 of 10 files were rejected, 0 are allowed .ambiguous 3.: see .*; or begin again "
        r".--overwrite. with --several first or --several all for ambiguous$",
    ):
        convert(replace(two_of_a_study, max_rejects=0, overwrite=True))


def test_the_first_by_series_and_instance_is_taken(two_of_a_study: ConvertConfig) -> None:
    convert(replace(two_of_a_study, several="first", max_rejects=0))
    assert len(index_of(two_of_a_study)) == STUDIES
    left = [("study0/IM0001", "not_the_first"), ("study0/IM0003", "not_the_first")]
    assert rejects(two_of_a_study.out) == left


@LAYOUTS
def test_the_next_is_taken_where_the_first_cannot_be_read(two_of_a_study: ConvertConfig, layout: Any) -> None:
    first = two_of_a_study.images / "study0" / "IM0002"
    first.write_bytes(first.read_bytes()[:-400])
    manifest = convert(replace(two_of_a_study, several="first", layout=layout)).manifest
    assert rejects(two_of_a_study.out) == [("study0/IM0001", "not_the_first"), ("study0/IM0002", "corrupt")]
    assert manifest.rejects == {"corrupt": 1, "not_the_first": 1}
    assert len(index_of(two_of_a_study)) == STUDIES
    assert verify(two_of_a_study.out) == []
    with pytest.raises(ConvertError, match=r"1 of 10 files were rejected, 0 are allowed .corrupt 1."):
        convert(replace(two_of_a_study, several="first", layout=layout, max_rejects=0, overwrite=True))


def test_all_become_images_of_one_patient(two_of_a_study: ConvertConfig) -> None:
    convert(replace(two_of_a_study, several="all"))
    index = index_of(two_of_a_study)
    ours = index[index["image_id"].str.startswith("A0")]
    assert sorted(ours["image_id"]) == ["A0-1", "A0-2", "A0-3"]
    assert ours["split"].nunique() == ours["group"].nunique() == ours["label"].nunique() == 1
    assert ours["group"].iloc[0] != ""
    assert len(index) == STUDIES + 2


def test_an_id_that_is_made_must_be_new(two_of_a_study: ConvertConfig) -> None:
    with two_of_a_study.labels.open("a") as table:
        table.write("A0-2,0\n")
    write(two_of_a_study.images / "x", 70, AccessionNumber="A0-2")
    with pytest.raises(ConvertError, match="is another row's id: use --several first"):
        convert(replace(two_of_a_study, several="all"))


def test_boxes_of_several_files_cannot_be_told_apart(two_of_a_study: ConvertConfig) -> None:
    two_of_a_study.labels.write_text("accession,Target,x,y,width,height\nA0,1,1,1,5,5\nA1,0,,,,\nA2,0,,,,\n")
    with pytest.raises(ConvertError, match=r"3 images .* and the boxes cannot be assigned to files"):
        convert(replace(two_of_a_study, several="all"))
    convert(replace(two_of_a_study, several="first"))


def test_pseudonyms_are_looked_up_for_all_of_them(two_of_a_study: ConvertConfig, tmp_path: Path) -> None:
    key = tmp_path / "hash.key"
    config = replace(two_of_a_study, several="all", keep_ids=False, hash_key=key)
    convert(config)
    for path in config.out.rglob("*.csv"):
        assert "A0" not in path.read_text()
        assert f"A{STUDIES}" not in path.read_text()
    summary = look_up_ids(IdsConfig(dataset=config.out, labels=config.labels, hash_key=key, out=tmp_path / "ids.csv"))
    assert summary.found == {"image": STUDIES + 2, "row": 1}
    assert summary.unknown == {"image": 0, "row": 0}
    found = pd.read_csv(tmp_path / "ids.csv", dtype=str)["id"]
    assert {"A0-1", "A0-2", "A0-3", f"A{STUDIES}"} <= set(found)


def test_a_resumed_conversion_is_the_same(two_of_a_study: ConvertConfig, tmp_path: Path) -> None:
    config = replace(two_of_a_study, several="first")
    convert(config)
    convert(replace(config, out=tmp_path / "again"))
    again = contents(tmp_path / "again")
    assert again == contents(config.out)
    with pytest.raises(ConvertError, match=r"what differs: .*several"):
        convert(replace(config, several="all", resume=True))


@pytest.mark.parametrize("attribute", ["SOPInstanceUID", "StudyInstanceUID"])
def test_uids_find_rows_too(export: ConvertConfig, attribute: Any) -> None:
    for number in range(STUDIES):  # whose UIDs come from their names
        write(export.images / "uids" / f"u{number}", number)
    files = sorted(export.images.rglob("u?"))
    uids = [one.value for one in matching.read_identities([str(f) for f in files], replace(export, match=attribute))]
    assert len(set(uids)) == STUDIES
    export.labels.write_text("uid,Target\n" + "".join(f"{uid},{k % 2}\n" for k, uid in enumerate(uids)))
    convert(replace(export, match=attribute, id_column="uid"))
    assert set(index_of(export)["image_id"]) == set(uids)


# ---- paths


@pytest.mark.parametrize("as_written", [lambda path, _: str(path), lambda path, root: str(path.relative_to(root))])
def test_the_id_column_can_hold_paths(export: ConvertConfig, as_written: Callable[[Path, Path], str]) -> None:
    files = sorted(export.images.rglob("IM*"))
    rows = "".join(f"{as_written(path, export.images)},{k % 2}\n" for k, path in enumerate(files))
    export.labels.write_text("file,Target\n" + rows)
    convert(replace(export, match="path", id_column="file"))
    assert set(index_of(export)["image_id"]) == {f"study{number}__IM0001" for number in range(STUDIES)}


def test_full_paths_go_through_a_link_to_the_folder(export: ConvertConfig, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(export.images)
    files = sorted(export.images.rglob("IM*"))
    for root in (tmp_path / "link", export.images):
        rows = "".join(f"{root / path.relative_to(export.images)},{k % 2}\n" for k, path in enumerate(files))
        export.labels.write_text("file,Target\n" + rows)
        convert(replace(export, images=tmp_path / "link", match="path", id_column="file", overwrite=True))
        assert len(index_of(export)) == STUDIES


@pytest.mark.parametrize("path", ["/etc/passwd", "IMAGES/../labels.csv", "../labels.csv"])
def test_paths_that_leave_the_folder_are_refused(export: ConvertConfig, path: str) -> None:
    export.labels.write_text(f"file,Target\n{path.replace('IMAGES', str(export.images))},0\n")
    with pytest.raises(LabelError, match="a path below the images folder"):
        convert(replace(export, match="path", id_column="file"))


def test_a_path_column_goes_with_no_attribute(export: ConvertConfig) -> None:
    with pytest.raises(ConfigError, match="match AccessionNumber with path-column"):
        replace(export, path_column="file")


# ---- what lies among the files


def deflated_bomb() -> bytes:
    """A data set of 4 MB in a few kB."""
    header = Header()
    header.AccessionNumber = "A0"
    header.EncapsulatedDocument = bytes(4_000_000)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    stream = io.BytesIO()
    header.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["deflated bomb", "deep", "cut"])
def test_hostile_headers_have_no_row(export: ConvertConfig, kind: str) -> None:
    data = (export.images / "study0" / "IM0001").read_bytes()
    bad = {
        "deflated bomb": deflated_bomb(),
        "deep": data[:132] + b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 2000,
        "cut": data[:200],
    }[kind]
    (export.images / "bad.dcm").write_bytes(bad)
    manifest = convert(replace(export, max_pixels=10_000)).manifest
    assert manifest.input["files_without_row"] == 1
    assert json.loads((export.out / "manifest.json").read_text())["counts"]
