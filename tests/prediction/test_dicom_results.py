"""DICOM objects of what was scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pydicom
import pytest
from pydicom.uid import EnhancedSRStorage

from pneumo_fast.errors import PredictError
from pneumo_fast.folders import locked, mode_for_others
from pneumo_fast.prediction import dicom_results
from pneumo_fast.prediction import predict as predict_module
from pneumo_fast.prediction.model import Model
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.prediction.predict import predict
from tests.dicom_out.test_objects import errors_of, needs_validator

pytestmark = pytest.mark.usefixtures("shared_worker")
Options = Callable[..., PredictConfig]


def objects(folder: Path) -> dict[str, pydicom.Dataset]:
    return {path.name: pydicom.dcmread(path) for path in sorted(folder.iterdir())}


def test_each_scored_image_has_a_report_and_a_capture(options: Options, some: Path, tmp_path: Path) -> None:
    files = sorted(some.iterdir())[:3]
    (some / "0.txt").write_text("no DICOM")
    paths = (options().runs[0], *files, some / "0.txt")
    predict(options(inputs=paths, dicom_out=tmp_path / "results", keep_ids=False))

    table = pd.read_csv(tmp_path / "out" / "predictions.csv", dtype=str, keep_default_na=False)
    made = objects(tmp_path / "results")
    assert len(made) == 6
    numbers = [number for number, reject in enumerate(table["reject"]) if not reject]
    for number, file in zip(numbers, files, strict=True):
        source = pydicom.dcmread(file)
        for name in ("capture", "report"):
            assert made[f"{number:07d}-{name}.dcm"].StudyInstanceUID == source.StudyInstanceUID
            assert made[f"{number:07d}-{name}.dcm"].PatientID == source.PatientID
        assert table["dicom"][number].split()[0] == "written"


def test_it_is_said_that_they_name_the_patient(
    options: Options, some: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "open").mkdir(0o755)
    for name, said in (("new", "PATIENT\n"), ("open", "PATIENT, and the folder is OPEN TO OTHER USERS (mode 0755)\n")):
        caplog.clear()
        inputs = (options().runs[0], next(some.iterdir()))
        predict(options(inputs=inputs, dicom_out=tmp_path / name, out=tmp_path / f"out-{name}"))
        assert f"carry the identity of their source's {said}" in caplog.text
    assert mode_for_others(tmp_path / "new") == ""


def test_the_same_image_gives_the_same_uids(options: Options, some: Path, tmp_path: Path) -> None:
    paths = (options().runs[0], next(some.iterdir()))
    for name in ("one", "two"):
        predict(options(inputs=paths, dicom_out=tmp_path / name, out=tmp_path / f"out-{name}"))
    one, two = objects(tmp_path / "one"), objects(tmp_path / "two")
    assert [made.SOPInstanceUID for made in one.values()] == [made.SOPInstanceUID for made in two.values()]


def test_another_threshold_gives_other_uids(
    options: Options, some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PACS keeps the first object of a UID, so that one with another class would be lost."""
    monkeypatch.setattr(Model, "operating_point", None)
    paths = (options().runs[0], next(some.iterdir()))
    for threshold in (0.5, 0.05):
        folder = tmp_path / f"{threshold}"
        predict(options(inputs=paths, thresholds=(threshold,), dicom_out=folder, out=tmp_path / f"out-{threshold}"))
    one, two = objects(tmp_path / "0.5"), objects(tmp_path / "0.05")
    assert not {made.SOPInstanceUID for made in one.values()} & {made.SOPInstanceUID for made in two.values()}
    assert (tmp_path / "0.5").stat().st_mode & 0o777 == 0o700


def test_objects_are_on_disk_before_the_table_says_so(
    options: Options, some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[Path, int, bool]] = []
    tables = tmp_path / "out" / ".predict"

    def flush(folder: Path) -> None:
        flushed.append((folder, len(list(folder.rglob("*.dcm"))), any(tables.glob("*.csv"))))

    monkeypatch.setattr(predict_module, "sync_filesystem", flush)
    paths = (options().runs[0], next(some.iterdir()))
    predict(options(inputs=paths, dicom_out=tmp_path / "results"))
    assert flushed == [(tmp_path / "results", 2, False)]


def test_results_below_the_scanned_folder_are_no_files_to_score(
    options: Options, some: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in sorted(some.iterdir())[3:]:
        path.unlink()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_module, "_join", fail)
    with pytest.raises(KeyboardInterrupt):
        predict(options(dicom_out=some / "results"))
    monkeypatch.undo()
    assert len(objects(some / "results")) == 6
    assert predict(options(dicom_out=some / "results", resume=True)).counts.files == 3


def test_nothing_is_written_among_other_files(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine").write_text("")
    with pytest.raises(PredictError, match="holds files: name an empty or a new folder with --dicom-out"):
        predict(options(dicom_out=tmp_path / "results"))
    with pytest.raises(PredictError, match="is a file: name a folder"):
        predict(options(dicom_out=tmp_path / "results" / "mine"))
    monkeypatch.setattr(dicom_results, "find_spec", lambda _name: None)
    with pytest.raises(PredictError, match="needs highdicom, which is not installed: pip install highdicom"):
        predict(options(dicom_out=tmp_path / "new"))
    assert not (tmp_path / "out").exists()


def test_resuming_what_was_not_begun_replaces_no_objects(options: Options, some: Path, tmp_path: Path) -> None:
    """Objects are named by the row's number: another table's would replace those of another patient."""
    one, two = sorted(some.iterdir())[:2]
    run, folder = options().runs[0], tmp_path / "results"
    predict(options(inputs=(run, one), dicom_out=folder, resume=True))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert len(before) == 2
    with pytest.raises(PredictError, match="holds files: name an empty or a new folder with --dicom-out"):
        predict(options(inputs=(run, two), dicom_out=folder, resume=True, out=tmp_path / "other"))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "other").exists()
    with pytest.raises(PredictError, match="is finished: there is nothing to resume"):
        predict(options(inputs=(run, one), dicom_out=folder, resume=True))


def test_two_predictions_do_not_write_into_one_folder(options: Options, tmp_path: Path) -> None:
    with locked(tmp_path / "results"):
        with pytest.raises(PredictError, match="results: another process writes there: wait for its end"):
            predict(options(dicom_out=tmp_path / "results"))
        assert not (tmp_path / "out").exists()


@needs_validator
@pytest.mark.parametrize("sample", ["rsna_sample", "rsna16"])
def test_real_headers_become_valid_objects(options: Options, tmp_path: Path, shared_data: Path, sample: str) -> None:
    files = sorted((shared_data / sample / "stage_2_train_images").iterdir())[:4]
    predict(options(inputs=(options().runs[0], *files), dicom_out=tmp_path / "results"))
    made = objects(tmp_path / "results")
    assert len(made) == 8
    for name, dataset in made.items():
        assert errors_of(tmp_path / "results" / name) == []
        if dataset.SOPClassUID == EnhancedSRStorage:
            assert dataset.PatientAge.endswith("Y")
