"""The first screen: the data, what counts as positive, whose images they are; and what is left out of too few."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.records import plain
from pneumo_fast.reporting.data_facts import UNKNOWN, input_facts, overview
from pneumo_fast.reporting.sources import read_run
from pneumo_fast.vocabulary import NOT_CLINICAL
from tests.support.make_run import change_json, make_run
from tests.support.report_page import made


def change_manifest(run: Path, **values: Any) -> None:
    """Change the dataset, and its identity where the evaluation states it."""
    manifest, metrics = run.parent / "dataset" / "manifest.json", run / "eval" / "dataset-val" / "metrics.json"
    change_json(manifest, **values)
    identity = hashlib.sha256(manifest.read_bytes()).hexdigest()
    change_json(metrics, dataset={**json.loads(metrics.read_text())["dataset"], "identity": identity})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "column 'Target' is 1"),
        ({"label_column": "y"}, "column 'y' is 1"),
        ({"positive": ["Pneumonia", "Edema"]}, "column 'Target' holds 'Pneumonia' or 'Edema'"),
    ],
)
def test_what_counts_as_positive(run: Path, options: dict[str, Any], said: str) -> None:
    change_manifest(run, arguments={"options": options})
    assert dict(overview(read_run(run)))["Counts as positive"] == said


@pytest.mark.parametrize(
    ("marked", "said"),
    [(0, "none marked as synthetic"), (1, "1 of "), (..., "synthetic: all are marked as phantoms")],
)
def test_synthetic_images_are_told(run: Path, marked: Any, said: str) -> None:
    content = json.loads((run.parent / "dataset" / "manifest.json").read_text())
    images = sum(sum(counts.values()) for counts in content["counts"].values())
    change_manifest(run, input={**content["input"], "quality_control": images if marked is ... else marked})
    assert str(dict(overview(read_run(run)))["Images"]).startswith(said)


def test_the_day_of_the_evaluation_and_the_patients_are_plain(run: Path) -> None:
    os.utime(run / "eval" / "dataset-val" / "metrics.json", (86400, 86400))
    found = dict(overview(read_run(run)))
    assert found["Evaluated"] == "1970-01-02"
    assert str(found["Patients"]).isdecimal()


def test_pseudonyms_come_with_the_way_back(run: Path) -> None:
    manifest = read_run(run).sources[0].manifest
    pseudonyms, kept = (dict(input_facts(replace(manifest, ids=ids)))["Image ids"] for ids in ("pseudonyms", "kept"))
    assert "pneumo-fast ids" in str(pseudonyms)
    assert "explain --id" in str(pseudonyms)
    assert kept == "as in the label table"


def test_a_dataset_that_is_gone_is_named_all_the_same(run: Path) -> None:
    (run.parent / "dataset" / "manifest.json").unlink()
    found = dict(overview(read_run(run)))
    assert (found["Data"], found["Images"]) == ("dataset", UNKNOWN)


def test_the_first_screen_and_the_card_say_the_same(run: Path) -> None:
    _, page = made(run)
    card = (run / "model_card.md").read_text()
    assert page.words.count(NOT_CLINICAL) == 1
    assert page.words.index("AUROC 0.") < page.words.index("Model and baselines")
    for _, value in overview(read_run(run)):
        assert str(value) in page.words
        assert str(value) in card
    assert "Too few images" not in page.words


def test_of_few_images_nothing_is_concluded_or_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path, images=16)
    _, page = made(run)
    assert "Too few images to conclude anything: 16, of which 4 positive and 12 negative." in page.words
    assert "Too few images to conclude anything" in (run / "model_card.md").read_text()
    assert page.words.count("Nothing is drawn: there are fewer than 10 images of a class.") == 4
    drawn = {
        str(drawing.get("aria-label")).partition(".")[0] for drawing in page.all("svg") if drawing.get("aria-label")
    }
    assert drawn == {"Loss", "Validation figures"}


def test_small_subgroups_are_grey_and_without_a_figure(run: Path) -> None:
    metrics = run / "eval" / "dataset-val" / "metrics.json"
    groups = json.loads(metrics.read_text())["subgroups"]
    groups[0] |= {"value": "small", "n": 20, "positives": 9, "against_all": False}
    groups[1] |= {"value": "one", "n": 9, "positives": 9, "against_all": True}
    groups[2] |= {"value": "large", "n": 30, "positives": 15, "against_all": False}
    change_json(metrics, subgroups=groups[:3])
    _, page = made(run)
    assert [row["class"] for row in page.all("tr") if row.get("class")] == ["few", "few"]
    assert page.words.count("too few of a class for a figure") == 2
    assert (run / "model_card.md").read_text().count("| too few of a class |") == 2


@pytest.mark.parametrize(("reached", "missed"), [(0.8999, True), (0.9, False), (0.9 - 1e-12, False)])
def test_a_target_that_is_missed_is_marked(run: Path, reached: float, missed: bool) -> None:
    metrics = run / "eval" / "dataset-val" / "metrics.json"
    chosen = json.loads(metrics.read_text())["chosen_thresholds"]
    entry = next(each for each in chosen if each["name"] == "sensitivity at least 0.9")
    entry["recall"]["value"] = reached
    change_json(metrics, chosen_thresholds=[entry], options=plain(EvaluateConfig(target_sensitivity=0.9)))
    _, page = made(run)
    for text in (page.words, (run / "model_card.md").read_text()):
        assert ("ensitivity at least 0.9: target missed" in text) == missed
