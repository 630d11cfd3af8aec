"""What is said where something of a run is missing or damaged."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.errors import RunError
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.reporting.page import SECTIONS
from pneumo_fast.reporting.report import report
from tests.support.make_run import change_json, make_run
from tests.support.report_page import made


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("eval/dataset-val/predictions.csv", "predictions.csv is missing"),
        ("explain", "run pneumo-fast explain "),
        ("config.json", "config.json is missing or damaged"),
        ("history.jsonl", "history.jsonl is missing"),
        ("best.pt", "best.pt is not there"),
        ("../dataset", "Dataset dataset is not where it was"),
    ],
)
def test_missing_files_are_named_and_the_rest_is_told(run: Path, name: str, said: str) -> None:
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    summary, page = made(run)

    assert [said in remark for remark in summary.remarks] == [True]
    assert said in page.words
    assert page.text("h2") == list(SECTIONS.values())
    assert "#" in summary.card.read_text()


@pytest.mark.parametrize("change", ["split", "dataset"])
def test_heat_maps_of_other_images_are_said_to_be_so(run: Path, change: str) -> None:
    path = run / "explain" / "explain.json"
    explained = json.loads(path.read_text())
    value = "test" if change == "split" else {**explained["dataset"], "identity": "0" * 64}
    change_json(path, **{change: value})

    summary, page = made(run)

    where = "test split" if change == "split" else "validation split of another dataset"
    said = f"The heat maps are of the {where}, the figures of the validation split"
    assert [said in remark for remark in summary.remarks] == [True]
    assert said in page.words
    assert "run pneumo-fast explain run --split val" in page.words


def test_a_command_names_the_run_as_it_was_given_and_on_the_page_by_its_name(run: Path) -> None:
    named = run.rename(run.with_name("ö x"))
    shutil.rmtree(named / "explain")
    summary, page = made(named)
    assert f"run pneumo-fast explain '{named}', then" in summary.remarks[0]
    assert "run pneumo-fast explain 'ö x', then" in page.words
    assert str(named.parent) not in page.source


def test_a_command_names_the_data_that_the_figures_are_of(run: Path) -> None:
    path = run / "eval" / "dataset-val" / "metrics.json"
    elsewhere = {"path": "/data/at b/other", "identity": "0" * 64, "trained_on": False}
    change_json(path, dataset={**json.loads(path.read_text())["dataset"], **elsewhere})
    summary, page = made(run)
    assert any(f"explain {run} --dataset '/data/at b/other' --split val" in remark for remark in summary.remarks)
    assert "explain run --dataset other --split val" in page.words


def test_everything_but_the_metrics_missing(run: Path) -> None:
    shutil.rmtree(run / "explain")
    shutil.rmtree(run.parent / "dataset")
    for name in ("eval/dataset-val/predictions.csv", "config.json", "history.jsonl", "best.pt"):
        (run / name).unlink()

    summary, page = made(run)

    assert len(summary.remarks) == 6
    assert page.text("h2") == list(SECTIONS.values())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("eval/dataset-val/predictions.csv", "image_id,label\na,1\n", "predictions.csv cannot be read (ValueError)"),
        ("eval/dataset-val/predictions.csv", "label,logit,probability\n1,0.0,0.5\n", "does not belong to metrics.json"),
        ("explain/explain.json", "{", "explain.json is damaged"),
        ("history.jsonl", '{"epoch": 1}\n{"epo', "history.jsonl is missing, empty or damaged"),
        ("best.pt", "other weights", "The figures are of another checkpoint"),
        ("../dataset/manifest.json", "{}", "Dataset dataset is not where it was"),
    ],
)
def test_damaged_files_are_named_and_the_rest_is_told(run: Path, name: str, content: str, said: str) -> None:
    (run / name).write_text(content)

    summary, page = made(run)

    assert [said in remark for remark in summary.remarks] == [True]
    assert said in page.words


@pytest.mark.parametrize("moved", ["config.json", "eval/dataset-val/metrics.json"])
def test_a_dataset_that_moved_is_found_where_the_evaluation_or_the_training_had_it(run: Path, moved: str) -> None:
    place = run.parent / "dataset"
    (run.parent / "new").mkdir()
    here = place.rename(run.parent / "new" / "m2")
    for name in {"config.json", "eval/dataset-val/metrics.json"} - {moved}:
        (run / name).write_text((run / name).read_text().replace(str(place), str(here)))

    summary, page = made(run)

    assert summary.remarks == ()
    assert "not_dicom" in page.words


def test_another_dataset_in_its_place_is_not_told_of(run: Path) -> None:
    change_json(run.parent / "dataset" / "manifest.json", mean=0.1)

    summary, page = made(run)

    assert ["no longer the one that was evaluated on" in remark for remark in summary.remarks] == [True]
    assert "not_dicom" not in page.words
    assert "config.json has them" in page.words


def test_heat_maps_of_another_checkpoint_are_shown_with_a_warning(run: Path) -> None:
    told = json.loads((run / "explain" / "explain.json").read_text())
    change_json(run / "explain" / "explain.json", run={**told["run"], "sha256": "f" * 64})

    summary, page = made(run)

    assert ["heat maps are of another checkpoint (ffffffffffff…)" in remark for remark in summary.remarks] == [True]
    assert [a for _, a in page.elements if a.get("class") == "warning"]
    assert page.all("img")


def test_a_run_folder_whose_name_is_no_text_has_a_report(run: Path) -> None:
    summary, page = made(run.rename(run.with_name("r\udcff")))
    assert "r?" in page.words
    assert summary.size_bytes == summary.page.stat().st_size


def test_an_explanation_of_another_version_is_not_read(run: Path) -> None:
    change_json(run / "explain" / "explain.json", format_version=7)

    summary, page = made(run)

    assert ["has format version 7" in remark for remark in summary.remarks] == [True]
    assert not page.all("img")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), r"was not evaluated .*: run pneumo-fast evaluate"),
        (lambda path: path.write_text("{"), r"metrics.json cannot be read .*: run pneumo-fast evaluate"),
        (lambda path: path.write_text("[]"), r"cannot be read \(\$: expected `object`, got `array`\): run pneumo-fast"),
        (lambda path: change_json(path, format="other"), r"holds no metrics .*: run pneumo-fast evaluate"),
        (
            lambda path: change_json(path, thresholds=[]),
            r"\(\$\.thresholds: at least one expected\): run pneumo-fast evaluate",
        ),
        (lambda path: change_json(path, format_version=1), r"format version 1, this release reads 3: run pneumo-fast"),
        (
            lambda path: change_json(path, subgroups=..., notes=...),
            r"\(\$: object missing required field `subgroups`\): run pneumo",
        ),
        (
            lambda path: change_json(path, ranking={}),
            r"cannot be read \(\$\.ranking: object missing required field `auroc`\): run pneumo-fast",
        ),
    ],
)
def test_metrics_that_cannot_be_used(run: Path, change: Callable[[Path], object], said: str) -> None:
    change(run / "eval" / "dataset-val" / "metrics.json")
    with pytest.raises(RunError, match=said):
        report(ReportConfig(run=run))
    assert not (run / "report.html").exists()


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run .*/nowhere does not exist: name a run folder"):
        report(ReportConfig(run=tmp_path / "nowhere"))


def test_no_calibration_no_views_no_subgroups(run: Path) -> None:
    nothing: dict[str, Any] = {"calibration": None, "parts": None, "chosen_thresholds": [], "view_only": None}
    change_json(run / "eval" / "dataset-val" / "metrics.json", subgroups=[], **nothing)

    _, page = made(run)

    for said in ("There is no calibration", "No threshold could be chosen", "Neither sex, age"):
        assert said in page.words


def test_images_of_one_class(tmp_path: Path) -> None:
    _, page = made(make_run(tmp_path, one_class=True, pictures=1))
    for said in ("The images are all of one class", "There is no calibration", "No threshold could be chosen"):
        assert said in page.words
    assert "Called positive" in page.text("th")


def test_the_command_tells_where_and_what_is_missing(run: Path, run_cli: Callable[..., Any]) -> None:
    shutil.rmtree(run / "explain")
    ended = run_cli("report", run)
    assert ended.code == 0
    assert f"Report: {run / 'report.html'} (" in ended.out
    assert f"run pneumo-fast explain {run}, then" in ended.out


def test_the_command_fails_in_one_line(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    ended = run_cli("report", tmp_path)
    assert ended.code == 1
    assert re.search(r"^error: .* was not evaluated .* pneumo-fast evaluate \S+$", ended.err)
