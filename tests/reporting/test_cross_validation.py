"""The report on a cross-validation: one page over the pooled predictions, with a table by fold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.errors import RunError
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.explanation.explain import explain
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.reporting.report import report
from pneumo_fast.run.layout import BEST
from tests.support.folds import make_folds
from tests.support.report_page import Page
from tests.support.untrained_run import change, make_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluated and explained cross-validation. Not to be changed."""
    folder = tmp_path_factory.mktemp("folds")
    run = make_folds(folder / "run", make_dataset(folder / "dataset"))
    evaluate(EvaluateConfig(run=run, device="cpu", resamples=100))
    explain(ExplainConfig(run=run, device="cpu", resamples=100, count=1))
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made.parent / "dataset", tmp_path / "dataset")
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_the_page_says_what_it_is_and_has_a_table_by_fold(run: Path) -> None:
    summary = report(ReportConfig(run=run))
    assert summary.remarks == ()
    text = Page(summary.page.read_text()).words
    assert "cross-validation of 3 folds" in text
    assert "each image by the model of the fold that was not trained on it" in text
    for word in ("By fold", "Standard deviation", "Lowest", "checkpoint of fold 3", "pneumo-fast train"):
        assert word in text
    assert "--folds 3" in text
    assert "--fold 1" not in text
    card = summary.card.read_text()
    assert "one model for each of 3 folds" in card
    assert card.count("\n| Standard deviation | | | |") == 1


def test_a_page_on_images_that_all_folds_judged(run: Path) -> None:
    evaluated = evaluate(EvaluateConfig(run=run, split="test", device="cpu", resamples=100))
    summary = report(ReportConfig(run=run, evaluation=evaluated.folder.name))
    text = Page(summary.page.read_text()).words
    assert "each image by the mean of 3 folds' logits" in text
    assert "split test" in text
    assert "By fold" not in text
    assert "Each fold was trained by itself" in text
    card = summary.card.read_text()
    assert "one model for each of 3 folds" in card
    assert "| Standard deviation |" not in card
    (remark,) = summary.remarks
    assert f"run pneumo-fast report {run} --evaluation dataset-val." in remark
    assert "run pneumo-fast report run --evaluation dataset-val." in text
    assert report(ReportConfig(run=run, evaluation="dataset-val")).remarks == ()
    shutil.rmtree(run / "eval" / "dataset-val")
    assert f"run pneumo-fast evaluate {run}, which names" in report(ReportConfig(run=run)).remarks[0]


def test_another_checkpoint_of_one_fold_is_told(run: Path) -> None:
    change(run / "fold-2", epoch=2, best_epoch=2)
    assert any("of another checkpoint" in remark for remark in report(ReportConfig(run=run)).remarks)
    (run / "fold-3" / BEST).unlink()
    assert any("best.pt is not there" in remark for remark in report(ReportConfig(run=run)).remarks)


@pytest.mark.parametrize(
    "tamper", [lambda content: content["run"]["folds"].pop(), lambda content: content["spread"].pop()]
)
def test_figures_that_do_not_belong_together(run: Path, tamper: Callable[[Any], Any]) -> None:
    path = run / "eval" / "dataset-val" / "metrics.json"
    content = json.loads(path.read_text())
    tamper(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"folds: none, or one for each of run.folds, and their spread, expected"):
        report(ReportConfig(run=run))
    assert not (run / "report.html").exists()
