"""Runs to report on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.reporting.report import ReportSummary, report
from tests.support.make_run import make_run
from tests.support.report_page import Page


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything there; not to be changed."""
    return make_run(tmp_path_factory.mktemp("whole"), hostile=True)


@pytest.fixture(scope="session")
def summary(whole_run: Path) -> ReportSummary:
    return report(ReportConfig(run=whole_run))


@pytest.fixture(scope="session")
def page(summary: ReportSummary) -> Page:
    return Page(summary.page.read_text())


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> Path:
    """A run to be changed."""
    shutil.copytree(whole_run.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("report.html", "model_card.md"))
    copied = tmp_path / "copy" / "run"
    for name in ("eval/dataset-val/metrics.json", "explain/explain.json", "config.json"):
        path = copied / name
        path.write_text(path.read_text().replace(str(whole_run.parent), str(tmp_path / "copy")))
    return copied
