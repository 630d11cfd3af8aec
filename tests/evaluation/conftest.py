"""A dataset and a run to evaluate."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pneumo_fast.evaluation import results
from pneumo_fast.run.folder import write_config
from pneumo_fast.run.layout import BEST
from tests.support.untrained_run import make_dataset, make_run


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, from which the tests take the checkpoint: making one takes a second."""
    folder = tmp_path_factory.mktemp("untrained")
    return make_run(folder / "run", make_dataset(folder / "dataset"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset")


@pytest.fixture
def drawn_run(tmp_path: Path, dataset: Path, untrained: Path) -> Path:
    """A run whose figures are drawn."""
    run = tmp_path / "run"
    run.mkdir()
    os.link(untrained / BEST, run / BEST)  # checkpoints are replaced, never changed in place
    write_config(run, {"config": {"datasets": [str(dataset)]}})
    return run


@pytest.fixture
def run(drawn_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose figures are not drawn, which takes most of the time."""
    for name in ("draw_roc", "draw_precision_recall", "draw_confusion"):
        monkeypatch.setattr(results, name, lambda *_: b"figure")
    return drawn_run
