"""Judging a checkpoint: on which images, with what was chosen on which, and what is said about it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pneumo_fast.dataset.folder import Dataset, write_table
from pneumo_fast.dataset.selection import open_datasets
from pneumo_fast.errors import RunError
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.evaluation.notes import origin_note
from pneumo_fast.run.folder import write_config
from pneumo_fast.run.layout import METRICS, PREDICTIONS
from tests.support.make_run import change_json
from tests.support.untrained_run import change, config, evaluated, leave_old_result, make_dataset, read_csv, read_json


@pytest.mark.parametrize(("split", "selected"), [("val", True), ("train", False), ("test", False)])
def test_only_val_selected_the_checkpoint(run: Path, split: str, selected: bool) -> None:
    result = evaluate(config(run, split=split))
    assert result.selected_on_this_data is selected
    assert result.notes[0] == origin_note(split, "auroc", trained_on=True, has_test=True)


def test_one_class_has_no_curves_and_old_ones_go(run: Path) -> None:
    leave_old_result(run, "test")
    result = evaluate(config(run, split="test"))
    assert {path.name for path in evaluated(run).iterdir()} == {METRICS, PREDICTIONS, "confusion.png"}
    assert read_json(run)["ranking"]["auroc"] == {"value": None, "low": None, "high": None}
    assert any(note.startswith("All 3 images are labelled negative") for note in result.notes)
    thresholds = result.figures.thresholds
    assert [t.accuracy.value for t in thresholds] == [t.specificity.value for t in thresholds]


# ---- chosen on one part, judged on another


def test_thresholds_are_chosen_on_one_half_of_the_patients_and_judged_on_the_other(run: Path, dataset: Path) -> None:
    result = evaluate(config(run, cost_ratio=3.0))
    table = read_csv(evaluated(run) / PREDICTIONS)
    groups = Dataset.open(dataset).rows("val")["group"]
    parts = {
        part: {g for row, g in zip(table, groups, strict=True) if row["part"] == part} for part in ("choose", "report")
    }
    assert parts["choose"]
    assert parts["report"]
    assert not parts["choose"] & parts["report"]
    judged = [(int(r["label"]), float(r["probability"])) for r in table if r["part"] == "report"]
    assert result.figures.parts is not None
    assert (result.figures.parts.n, "other half") == (len(judged), result.figures.parts.reported_on[4:14])
    for chosen in result.figures.chosen_thresholds:
        assert chosen.confusion.tp == sum(label and p >= chosen.threshold for label, p in judged)
        assert chosen.confusion.tn == sum(not label and p < chosen.threshold for label, p in judged)
    chose = {float(r["probability"]) for r in table if r["part"] == "choose"}
    assert {t.threshold for t in result.figures.chosen_thresholds} <= chose
    assert result.figures.chosen_thresholds[-1].name == "least cost, a false negative worth 3 false positives"


def test_another_split_is_judged_whole_with_what_was_chosen_on_validation_images(run: Path) -> None:
    result = evaluate(config(run, split="train"))
    assert result.figures.parts is not None
    assert (result.figures.parts.chosen_on, result.figures.parts.n) == ("split 'val' (11 images)", 4)
    assert {row["part"] for row in read_csv(evaluated(run) / PREDICTIONS)} == {"report"}
    threshold = result.figures.chosen_thresholds[0].threshold
    evaluate(config(run))
    assert str(threshold) in {row["probability"] for row in read_csv(evaluated(run) / PREDICTIONS)}


def test_the_calibrated_probability_follows_from_the_logit(run: Path) -> None:
    change(run, pos_weight=2.0, prior_shift=math.log(2.0))
    evaluate(config(run))
    calibration = read_json(run)["calibration"]
    assert calibration["shift"] == pytest.approx(math.log(2.0))
    for row in read_csv(evaluated(run) / PREDICTIONS):
        logit = (float(row["logit"]) - calibration["shift"]) / calibration["temperature"]
        assert float(row["calibrated_probability"]) == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-9)


def test_other_data_are_judged_with_what_the_run_keeps(run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", mean=0.1, std=0.9)
    without = evaluate(config(run, dataset=other))
    assert without.figures.calibration is None
    assert without.figures.chosen_thresholds == ()
    own = evaluate(config(run))
    judged = evaluate(config(run, dataset=other)).figures
    assert own.figures.calibration is not None
    assert judged.calibration is not None
    assert judged.calibration.temperature == own.figures.calibration.temperature
    assert [t.threshold for t in judged.chosen_thresholds] == [t.threshold for t in own.figures.chosen_thresholds]
    assert judged.parts is not None
    assert judged.parts.n == 11
    change(run, epoch=4)  # another checkpoint: what was fitted for the old one is not for it
    assert evaluate(config(run, dataset=other)).figures.calibration is None


def test_a_damaged_operating_file_is_named(run: Path, tmp_path: Path) -> None:
    (run / "operating.json").write_text("{")
    with pytest.raises(RunError, match=r"operating.json is damaged \(Expecting .*\): remove it and evaluate"):
        evaluate(config(run, dataset=make_dataset(tmp_path / "other", mean=0.1)))


def test_shared_patients_and_pixels_are_counted(run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", mean=0.1)  # the same groups and no hash key at all: comparable
    result = evaluate(config(run, dataset=other))
    assert result.overlap is not None
    assert (result.overlap.patients, read_json(run)["shared_patients"]) == (6, 6)
    assert result.overlap.note in result.notes
    assert result.figures.view_only is None
    assert any(note.startswith("The baseline of the view position alone is left out") for note in result.notes)


def test_what_datasets_as_one_share_between_their_splits_is_counted(run: Path, dataset: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other")
    index = Dataset.open(other).index
    table = index.assign(group=index["group"].mask(index["split"] == "test", "train0"))
    tables = json.loads((other / "manifest.json").read_text())["tables"]
    change_json(other / "manifest.json", tables=tables | {"index.csv": write_table(other, "index.csv", table)})
    change(run, dataset_identity=open_datasets([dataset, other]).identity)
    write_config(run, {"config": {"datasets": [str(dataset), str(other)]}})
    result = evaluate(config(run, split="test"))
    assert result.overlap is not None
    assert (result.overlap.patients, read_json(run)["shared_patients"]) == (1, 1)
    assert result.notes[0] == result.overlap.note
    assert evaluate(config(run)).overlap is None
