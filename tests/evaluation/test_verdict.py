"""The verdict names the data, the result and the most important caution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.dataset.leaks import Overlap
from pneumo_fast.evaluation import verdict
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.evaluation.results import Evaluation
from pneumo_fast.evaluation.verdict import reach_verdict
from tests.support.untrained_run import config


@pytest.fixture
def evaluation(run: Path) -> Evaluation:
    return evaluate(config(run))


def test_few_images_come_before_all_else(evaluation: Evaluation) -> None:
    said = reach_verdict(evaluation)
    assert said.judged.startswith("11 images of 6 patients, 4 positive: validation split of ")
    assert said.judged.endswith("(the run's own data).")
    assert said.result.startswith("AUROC ")
    assert said.caution.startswith("Too few images to conclude anything: 11, of which 4 positive and 7 negative.")


def no_other_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("warn_of_few", "warn_of_useless_thresholds"):
        monkeypatch.setattr(verdict, name, lambda _: None)


SHARED = Overlap(patients=3, images=0, note="Of 3 patients, 3 are also in training.")
UNKNOWN = Overlap(patients=None, images=0, note="Patient overlap with training cannot be checked.")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "The checkpoint was selected on these images, so the metrics are optimistic."),
        ({"split": "train", "selected_on_this_data": False}, "The model was trained on these images"),
        ({"overlap": SHARED, "selected_on_this_data": None}, "The figures are too good. Of 3 patients, 3 are also"),
        ({"selected_on_this_data": False, "split": "test"}, "None found that is specific to this evaluation."),
        ({"overlap": UNKNOWN, "selected_on_this_data": False, "split": "test"}, "Patient overlap with training cannot"),
    ],
)
def test_the_most_important_caution(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    no_other_caution(monkeypatch)
    assert reach_verdict(replace(evaluation, **changes)).caution.startswith(said)


def test_of_few_images_an_overlap_with_training_is_said_all_the_same(evaluation: Evaluation) -> None:
    caution = reach_verdict(replace(evaluation, overlap=SHARED, selected_on_this_data=None)).caution
    assert caution.startswith("Too few images to conclude anything")
    assert "3 are also in training" in caution


def test_thresholds_of_no_use_are_a_caution(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "warn_of_few", lambda _: None)
    monkeypatch.setattr(verdict, "warn_of_useless_thresholds", lambda _: "No fixed threshold is useful.")
    assert reach_verdict(evaluation).caution == "No fixed threshold is useful."


def test_unknown_patients_are_a_caution(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    no_other_caution(monkeypatch)
    unknown = replace(evaluation.intervals, groups=None, unit="image")
    found = reach_verdict(replace(evaluation, intervals=unknown, selected_on_this_data=False, split="test"))
    assert "patients not known" in found.judged
    assert found.caution.startswith("Patients are not known")


def test_it_ends_the_output(run: Path, run_cli: Callable[..., Any]) -> None:
    ended = run_cli("evaluate", run, "--resamples", "100", "--device", "cpu")
    last = ended.out.strip().splitlines()
    begins = [line.split("  ")[0] for line in last if not line.startswith(" ")][-5:-1]
    assert begins == ["Evaluated", "Result", "Caution", "Research software: not for clinical use."]
    assert last[-1].startswith("Next: ")
    assert all(len(line) <= 80 for line in ended.out.splitlines() if "/" not in line)
