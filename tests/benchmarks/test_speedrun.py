"""The speedrun judges who it says, and tells a record from a miss."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import speedrun
from benchmarks.speedrun import LABELS, TRACKS, Settings, keep, main, prepare, run_once, summary, verdict
from pneumo_fast.dataset.folder import Dataset

RUN = {"seconds": 20.0, "start_up_s": 4.0, "convert_s": 6.0, "train_s": 10.0, "best_epoch": 2.0}


def test_a_run_converts_trains_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speedrun, "PHANTOMS", 120)
    prepare(TRACKS["phantom"], None, tmp_path / "data")
    found = run_once(TRACKS["phantom"], tmp_path / "data", tmp_path, 0, Settings(epochs=1, batch_size=16))
    assert 0 <= found["auroc"] <= 1
    assert all(found[f"{part}_s"] > 0 for part in ("convert", "prepare", "train", "evaluate"))
    index = Dataset.open(tmp_path / "dataset").index
    assert index["split"].value_counts(normalize=True)["test"] == pytest.approx(0.2, abs=0.02)
    assert index.groupby("group")["split"].nunique().max() == 1


def test_patients_of_the_recipes_table_are_left_out(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "rsna_lungs"
    prepare(TRACKS["cpu"], source, tmp_path / "data")
    kept = pd.read_csv(tmp_path / "data" / LABELS)["patientId"]
    every = pd.read_csv(source / LABELS)["patientId"]
    assert set(kept) < set(every)
    assert kept.nunique() / every.nunique() == pytest.approx(0.8, abs=0.001)
    mapped = json.loads((source / "mappings.json").read_text())
    patients = {row["subset_img_id"]: row["img_id"].split("_")[0] for row in mapped}
    assert not {patients[i] for i in kept} & {patients[i] for i in set(every) - set(kept)}


@pytest.mark.parametrize(("auroc", "reached"), [((0.86, 0.87), True), ((0.88, 0.83), False)])
def test_the_mean_over_runs_decides(auroc: tuple[float, float], *, reached: bool) -> None:
    found = summary(TRACKS["cpu"], [RUN | {"auroc": value} for value in auroc])
    assert found["reached"] is reached
    assert ("NOT reached" in verdict(TRACKS["cpu"], found)) is not reached


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cpu", "--data", "nowhere"], "speedrun.py: "),
        (["cpu"], "--data DIR is needed"),
        (["phantom", "--record", "x", "--runs", "1"], "--record with --runs 1: at least 5 expected"),
    ],
)
def test_what_cannot_work_is_a_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["speedrun.py", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert message in f"{ended.value.code}{capsys.readouterr().err}"


def test_a_record_holds_figures_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speedrun, "RECORDS", tmp_path)
    runs = [RUN | {"auroc": 0.87}]
    keep("first", "cpu", summary(TRACKS["cpu"], runs))
    (folder,) = tmp_path.glob("*_first")
    assert json.loads((folder / "record.json").read_text())["runs"] == runs
    log = (folder / "log.txt").read_text()
    assert log.startswith("  20.0 s  AUROC 0.8700  (start-up 4.0, convert 6.0, train 10.0)")
    assert "class Settings" in log
