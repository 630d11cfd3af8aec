"""Runs on phantoms whose DICOM files can be scored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.run.checkpoint import load_trained
from pneumo_fast.run.layout import BEST
from pneumo_fast.run.model_input import ModelInput
from pneumo_fast.vocabulary import Dtype
from tests.support.untrained_run import change, config, make_run


@pytest.fixture(scope="session")
def make_judged(
    convert_phantoms: Callable[[Dtype], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Makes a run on the phantoms, of other weights for another seed, and evaluates it."""

    def make(dtype: Dtype, seed: int = 0, **values: Any) -> Path:
        folder = convert_phantoms(dtype)
        dataset = Dataset.open(folder)
        run = make_run(tmp_path_factory.mktemp("judged") / f"run{seed}", folder)
        state = load_trained(run / BEST).model
        torch.manual_seed(seed)
        state["fc.weight"] += 0.5 * torch.randn_like(state["fc.weight"])
        change(run, model=state, **{"mean": dataset.mean, "std": dataset.std, "input": ModelInput.of(dataset)} | values)
        evaluate(config(run))
        return run

    return make


@pytest.fixture(scope="session")
def judged(make_judged: Callable[..., Path]) -> Path:
    """A run on the phantoms that was evaluated; not to be changed."""
    return make_judged("float16")


@pytest.fixture(scope="session")
def other(make_judged: Callable[..., Path]) -> Path:
    """Another on the same dataset; not to be changed."""
    return make_judged("float16", seed=1, mean=0.4, std=0.3)


@pytest.fixture
def run(judged: Path, tmp_path: Path) -> Path:
    """A copy of the first, to be changed."""
    return Path(shutil.copytree(judged, tmp_path / "run", copy_function=os.link))


@pytest.fixture
def some(phantoms: PhantomSet, tmp_path: Path) -> Path:
    """A folder with twenty of the phantoms."""
    folder = tmp_path / "some"
    folder.mkdir()
    for path in sorted(phantoms.images.iterdir())[:20]:
        os.link(path, folder / path.name)
    return folder


@pytest.fixture
def options(judged: Path, some: Path, tmp_path: Path) -> Callable[..., PredictConfig]:
    """Options that score the twenty by the first run, with some changed."""

    def make(**values: Any) -> PredictConfig:
        fixed: dict[str, Any] = {"inputs": (judged, some), "out": tmp_path / "out", "keep_ids": True, "workers": 1}
        return PredictConfig(**fixed | {"device": "cpu", "resamples": 100} | values)

    return make
