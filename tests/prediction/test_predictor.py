"""Scoring files from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import pneumo_fast as pf
from pneumo_fast.prediction.options import PredictConfig

pytestmark = pytest.mark.usefixtures("shared_worker")


def test_a_loaded_run_scores_as_the_command_does(judged: Path, some: Path, tmp_path: Path) -> None:
    (some / "notes.txt").write_text("no DICOM")
    pf.predict(PredictConfig(inputs=(judged, some), out=tmp_path / "out", keep_ids=True, device="cpu", workers=1))
    written = pd.read_csv(tmp_path / "out" / "predictions.csv")

    table = pf.load(judged, device="cpu").predict(some, workers=1)
    assert list(table.columns) == list(written.columns)
    assert table["probability"].to_numpy() == pytest.approx(written["probability"].to_numpy(), nan_ok=True)
    assert table["class"].isna().sum() == 1
    assert list(table["path"]) == list(written["path"])


def test_paths_may_be_texts(judged: Path, some: Path) -> None:
    paths = sorted(map(str, some.iterdir()))[:2]
    table = pf.load(str(judged), device="cpu").predict(paths, thresholds=(0.3,), workers=1)
    assert list(table["path"]) == paths
    assert "class_at_0.3" in table


def test_nothing_to_score_is_said(judged: Path, tmp_path: Path) -> None:
    with pytest.raises(pf.PredictError, match="is not there"):
        pf.load(judged, device="cpu").predict(tmp_path / "missing")


@pytest.mark.parametrize(
    "given",
    [
        {"dicom_out": Path("results")}, {"explain": True}, {"labels": Path("labels.csv")}, {"store": True},
        {"dicomweb": "https://pacs.example", "query": ("StudyDate=20260101",)}, {"keep_ids": False},
    ],
)  # fmt: skip
def test_what_a_loaded_model_does_not_do_is_refused(judged: Path, some: Path, given: dict[str, Any]) -> None:
    names = " and ".join(given)
    with pytest.raises(pf.ConfigError, match=f"^{names}: not for a loaded model.*; use predict"):
        pf.load(judged, device="cpu").predict(some, **given)


def test_a_loaded_model_needs_its_run_no_more(run: Path, some: Path, tmp_path: Path) -> None:
    model = pf.load(run, device="cpu")
    run.rename(tmp_path / "moved")
    assert model.predict(min(some.iterdir()), workers=1)["probability"].notna().all()


def test_what_is_given_to_a_loaded_model_is_checked(judged: Path, some: Path) -> None:
    model = pf.load(judged, device="cpu")
    with pytest.raises(pf.ConfigError, match="is given more than once"):
        model.predict(some, thresholds=(0.3, 0.3))
    with pytest.raises(pf.ConfigError, match="batch size 0 is too small"):
        model.predict(some, batch_size=0)
    with pytest.raises(pf.PredictError, match="no file is in an empty list"):
        model.predict([])
