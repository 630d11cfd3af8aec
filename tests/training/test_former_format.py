"""A run that the release before left in format 2 goes on, and is judged; its files are in ``data/format-2``.

They were made by that release, stopped after the eighth of fifteen steps: the options of ``test_session`` with all
states, on the images of the fixture ``noise``.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pneumo_fast.errors import RunError
from pneumo_fast.evaluation import inference
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.run.checkpoint import load_resumable, load_trained
from pneumo_fast.run.folder import write_config
from pneumo_fast.run.layout import BEST, CHECKPOINT_FORMAT, FORMER_FORMAT, LAST
from pneumo_fast.training import setup
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train
from tests.support.make_dataset import as_former
from tests.support.training import results, weights
from tests.training.test_session import ALL_STATES, Dropping

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def noise(noise: Path, tmp_path: Path) -> Path:
    """The dataset as the release before wrote it, in its format 1."""
    folder = Path(shutil.copytree(noise, tmp_path / "noise"))
    manifest = as_former(folder, 1)
    del manifest["ids"]
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return folder


@pytest.fixture
def config(noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setattr(setup, "build_model", lambda *_: Dropping())
    return TrainConfig(
        datasets=(noise,), out=tmp_path / "run", epochs=3, batch_size=4, lr=1e-3, device="cpu", seed=1, **ALL_STATES
    )


@pytest.fixture
def run(noise: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    shutil.copytree(Path(__file__).parent / "data" / "format-2", run)
    write_config(run, {"config": {"datasets": [str(noise)]}})
    return run


def test_a_run_in_the_former_format_goes_on(config: TrainConfig, run: Path, tmp_path: Path) -> None:
    assert torch.load(run / LAST, weights_only=True)["format"] == FORMER_FORMAT
    done: list[int] = []
    train(replace(config, resume=True), on_progress=lambda *_: done.append(1))
    assert len(done) == 7, "no step is done again"
    train(replace(config, out=tmp_path / "whole"))
    assert torch.load(run / LAST, weights_only=True)["format"] == CHECKPOINT_FORMAT
    for name in (BEST, LAST):
        assert_nearly_equal(weights(run / name), weights(tmp_path / "whole" / name))
    last, expected = load_resumable(run / LAST), load_resumable(tmp_path / "whole" / LAST)
    average, other = last.learner["ema"]["model"], expected.learner["ema"]["model"]
    assert_nearly_equal(
        *(torch.cat([values.flatten().double() for values in each.values()]) for each in (average, other))
    )
    assert last.learner["steps_done"] == 15
    for record, same in zip(results(run), results(tmp_path / "whole"), strict=True):
        assert record == pytest.approx(same, abs=1e-3)


def assert_nearly_equal(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Another processor or version of PyTorch rounds otherwise, and Adam makes a step of that where a gradient is 0."""
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)
    assert ((found - expected).abs() > 1e-4).double().mean() < 0.2


def test_other_settings_are_refused(config: TrainConfig, run: Path) -> None:
    with pytest.raises(RunError, match=r"was trained with ema 0\.9, now it is 0\.8"):
        train(replace(config, resume=True, ema=0.8))
    assert run.exists()


def test_a_best_checkpoint_in_the_former_format_is_judged(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "build_model", lambda *_: Dropping())
    evaluation = evaluate(EvaluateConfig(run=run, device="cpu", resamples=100))
    (expected,) = load_trained(run / BEST).history
    assert evaluation.figures.ranking.auroc.value == pytest.approx(expected["val_auroc"])


@pytest.mark.parametrize("missing", ["step", "skipped", "buffers", "arch"])
def test_a_field_that_is_missing(run: Path, missing: str) -> None:
    content = torch.load(run / LAST, weights_only=True)
    del content[missing]
    torch.save(content, run / LAST)
    with pytest.raises(RunError, match=rf"last\.pt (lacks a field|is damaged) \(.*{missing}.*\): train again"):
        load_resumable(run / LAST)
