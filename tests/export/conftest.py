"""Runs to export; making and evaluating one takes seconds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.export.export import ExportSummary, export_model
from pneumo_fast.export.options import ExportConfig
from pneumo_fast.run.checkpoint import load_trained
from pneumo_fast.run.layout import BEST
from pneumo_fast.vocabulary import ExportFormat
from tests.support.untrained_run import change, config, make_dataset, make_run


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was evaluated, with a shift, beside its dataset; not to be changed."""
    folder = tmp_path_factory.mktemp("judged")
    run = make_run(folder / "run", make_dataset(folder / "dataset"))
    change(run, prior_shift=0.7)
    evaluate(config(run))
    return run


@pytest.fixture(scope="session")
def other(judged: Path) -> Path:
    """Another run on the same dataset, with other weights, normalization and shift; not to be changed."""
    run = make_run(judged.parent / "other", judged.parent / "dataset")
    state = load_trained(run / BEST).model
    torch.manual_seed(1)
    state["fc.weight"] += 0.05 * torch.randn_like(state["fc.weight"])
    change(run, model=state, mean=0.4, std=0.3, prior_shift=-0.4)
    evaluate(config(run))
    return run


@pytest.fixture
def run(judged: Path, tmp_path: Path) -> Path:
    """A copy of the evaluated run, to be changed."""
    own = tmp_path / "run"
    shutil.copytree(judged, own, copy_function=os.link)  # files are replaced, never changed in place
    return own


@pytest.fixture(scope="session")
def exported(judged: Path) -> dict[ExportFormat, ExportSummary]:
    """The evaluated run in both formats; not to be changed."""
    return {name: export_model(ExportConfig(runs=(judged,), format=name)) for name in ("onnx", "torch")}
