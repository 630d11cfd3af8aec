"""What a report says of how the model was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.reporting.report import report
from pneumo_fast.reporting.sources import read_run
from pneumo_fast.reporting.training_facts import training_sentences
from pneumo_fast.training.options import TrainConfig, recipe
from pneumo_fast.training.recipes import RECIPES
from tests.support.make_run import change_json
from tests.support.report_page import Page

TAUGHT = "Trained with auxiliary supervision by boxes (weight 2) and classes (weight 1)"


def record(run: Path, config: TrainConfig) -> None:
    """Let the run's description say that it was trained with these options."""
    path = run / "config.json"
    names = (*RECIPES["recommended"], "recipe", "flip", "teach", "teach_boxes_weight")
    recorded = json.loads(path.read_text())["config"] | {name: getattr(config, name) for name in names}
    change_json(path, config=recorded)


@pytest.mark.parametrize(
    ("options", "said", "not_said"),
    [
        ({}, ["Recipe recommended", "lr 0.001", "ema 0.999", "augment strong"], ["label smoothing", "auxiliary"]),
        ({"flip": True, "ema": None}, ["flip,"], ["flip True", "ema"]),
        ({"teach": ("classes", "boxes"), "teach_boxes_weight": 2.0}, [TAUGHT], []),
    ],
)
def test_page_and_card_name_the_options_that_made_the_model(
    options: dict[str, Any], said: list[str], not_said: list[str], run: Path
) -> None:
    record(run, recipe("recommended", **options))
    sentences = " ".join(training_sentences(read_run(run)))
    assert all(words in sentences for words in said), sentences
    assert not [words for words in not_said if words in sentences]
    made = report(ReportConfig(run=run))
    assert all(words in Page(made.page.read_text()).words for words in said)
    assert "Recipe recommended" in made.card.read_text()


def test_without_a_description_nothing_is_said(run: Path) -> None:
    (run / "config.json").unlink()
    assert training_sentences(read_run(run)) == []
