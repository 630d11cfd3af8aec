"""Those who look on while a run trains: TensorBoard and a profiler."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pneumo_fast.errors import ConfigError
from pneumo_fast.run.layout import TENSORBOARD, TRACE
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train
from tests.support.training import history_of

pytestmark = pytest.mark.usefixtures("one_thread", "quick")

MODULE = "torch.utils.tensorboard"
Scalars = dict[tuple[str, int], float]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, Scalars]:
    """What a stand-in for TensorBoard's writer was given, by folder."""
    folders: dict[str, Scalars] = {}

    class Writer:
        def __init__(self, folder: str) -> None:
            self.scalars = folders.setdefault(folder, {})

        def __enter__(self) -> Writer:
            return self

        def __exit__(self, *_: object) -> None:
            self.scalars["closed", 0] = 1

        def add_scalar(self, name: str, value: float, step: int) -> None:
            assert (name, step) not in self.scalars
            self.scalars[name, step] = value

    module: Any = ModuleType(MODULE)
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, MODULE, module)
    return folders


def test_figures_go_to_tensorboard(config: TrainConfig, tmp_path: Path, written: dict[str, Scalars]) -> None:
    train(replace(config, out=tmp_path / "without"))
    assert not written
    run = tmp_path / "run"
    train(replace(config, out=run, tensorboard=True, epochs=1))
    train(replace(config, out=run, tensorboard=True, resume=True))
    expected = {
        (name.replace("_", "/", 1), record["epoch"]): value
        for record in history_of(run)
        for name, value in record.items()
    }
    assert written == {str(run / TENSORBOARD): expected | {("closed", 0): 1}}
    assert ("val/auroc", 2) in expected


def test_events_that_tensorboard_itself_reads(config: TrainConfig, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(replace(config, out=tmp_path / "run", tensorboard=True))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / TENSORBOARD)).Reload()
    found = [event.value for event in events.Scalars("train/loss")]
    assert found == pytest.approx([record["train_loss"] for record in history_of(tmp_path / "run")])


def test_tensorboard_that_is_not_installed(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(ConfigError, match=r"tensorboard, which is not installed: pip install tensorboard"):
        train(replace(config, out=tmp_path / "run", tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_a_few_steps_are_traced(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, epochs=1, batch_size=2)
    train(replace(config, out=tmp_path / "without"))
    train(replace(config, out=tmp_path / "run", profile=True))
    assert not (tmp_path / "without" / TRACE).exists()
    events = json.loads((tmp_path / "run" / TRACE).read_text())["traceEvents"]
    names = {str(event.get("name")) for event in events}
    assert {name for name in names if name.startswith("ProfilerStep")} == {f"ProfilerStep#{n}" for n in range(4, 8)}
    assert "aten::convolution" in names


def test_a_run_too_short_for_a_trace(config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(replace(config, out=tmp_path / "run", profile=True, epochs=1))
    assert not (tmp_path / "run" / TRACE).exists()
    assert "no trace: it begins after 4 steps, and the run had only 3" in caplog.text
