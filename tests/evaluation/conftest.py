"""A dataset and a run to evaluate."""

from __future__ import annotations

from pathlib import Path

import pytest

from pneumo_fast.evaluation import results
from tests.support.untrained_run import make_dataset, make_run


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset")


@pytest.fixture
def drawn_run(tmp_path: Path, dataset: Path) -> Path:
    """A run whose figures are drawn."""
    return make_run(tmp_path / "run", dataset)


@pytest.fixture
def run(drawn_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose figures are not drawn, which takes most of the time."""
    for name in ("draw_roc", "draw_precision_recall", "draw_confusion"):
        monkeypatch.setattr(results, name, lambda *_: b"figure")
    return drawn_run
