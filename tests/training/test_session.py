"""Nothing is lost: a run that was stopped or killed anywhere goes on as if it never had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pneumo_fast.errors import RunError, TrainingError, TrainingStoppedError
from pneumo_fast.loading.loader import Loader
from pneumo_fast.run.checkpoint import EpochRecord, load_resumable, load_trained
from pneumo_fast.run.layout import BEST, LAST
from pneumo_fast.training import setup
from pneumo_fast.training import train as training
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.session import Session
from pneumo_fast.training.train import train, validate
from tests.support.repository import ROOT
from tests.support.training import check_same, check_same_run, history_of, network, one_thread

plain_step = Learner.step
STEPS = 5  # in an epoch: 21 images by 4, of which the last holds five

OPTIONS: dict[str, Any] = {
    "out": Path("unset"), "epochs": 3, "batch_size": 4, "lr": 1e-3, "device": "cpu", "seed": 1,
}  # fmt: skip
ALL_STATES: dict[str, Any] = {
    "ema": 0.9, "schedule": "cosine", "warmup_epochs": 0.5, "optimizer": "adamw", "weight_decay": 0.01,
    "clip_norm": 1.0, "label_smoothing": 0.1, "augment": "light", "accumulate": 2,
}  # fmt: skip


class Dropping(nn.Module):
    """A small network with all kinds of state: weights, BatchNorm's statistics, random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(4 * 7 * 7, 1),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(images)
        return out


@pytest.fixture
def config(noise: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainConfig]:
    """Three epochs of five steps on one thread, of a network that is quick; each test names its own run folder."""
    monkeypatch.setattr(setup, "build_model", lambda *_: Dropping())
    with one_thread():
        yield TrainConfig(datasets=(noise,), **OPTIONS)


@pytest.fixture(scope="module")
def whole(noise: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with all states. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    with network(Dropping):
        train(TrainConfig(datasets=(noise,), **OPTIONS | ALL_STATES | {"out": run}))
    return run


def after_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    """Do something in the middle of a run, right after one of its steps, counted from 1."""
    steps = iter(range(1, 1000))

    def spy(learner: Learner, images: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        result = plain_step(learner, images, labels, *rest)
        if next(steps) == step:
            act()
        return result

    monkeypatch.setattr(Learner, "step", spy)


@contextmanager
def heard(number: int) -> Iterator[None]:
    """Have a signal heeded though the tests were started with ``nohup``."""
    before = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", [1, 4, 5, 8, 14])
def test_a_signal_stops_after_the_step_and_the_rest_is_the_same(
    config: TrainConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: int
) -> None:
    config = replace(config, **ALL_STATES)
    run = tmp_path / "run"
    with monkeypatch.context() as patch, heard(number):
        after_step(patch, step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(TrainingStoppedError, match="resume with --resume") as stopped:
            train(replace(config, out=run))
    assert stopped.value.exit_code == 128 + number
    assert load_resumable(run / LAST).learner["steps_done"] == step
    assert bool(load_resumable(run / LAST).loader) == (step % STEPS > 0)
    done: list[int] = []
    train(replace(config, out=run, resume=True), on_progress=lambda *_: done.append(1))
    assert len(done) == 3 * STEPS - step, "no step is done again"
    check_same_run(run, whole)


def test_an_epoch_that_ends_with_a_signal_is_told_of(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the history, and no later process tells of it."""
    told: list[float] = []

    def note(record: EpochRecord) -> None:
        told.append(record["epoch"])

    with monkeypatch.context() as patch:
        after_step(patch, STEPS, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(TrainingStoppedError, match="after epoch 1"):
            train(replace(config, out=tmp_path / "run"), note)
    assert told == [1]
    train(replace(config, out=tmp_path / "run", resume=True), note)
    assert told == [1, 2, 3]


def test_a_signal_in_the_last_epochs_end_changes_nothing(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_step(monkeypatch, 3 * STEPS, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert train(replace(config, out=tmp_path / "run")).epochs == 3


KILLED = """
import os, signal, sys, torch
sys.path.insert(0, {root!r})
from pathlib import Path
from pneumo_fast.training import setup
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train, validate
from tests.training.test_session import ALL_STATES, Dropping
torch.set_num_threads(1)
setup.build_model = lambda *_: Dropping()
steps, plain = iter(range(1, 1000)), Learner.step
def step(*arguments):
    result = plain(*arguments)
    if next(steps) == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
Learner.step = step
config = TrainConfig(datasets=(Path({data!r}),), out=Path({run!r}), epochs=3, batch_size=4, lr=1e-3, device="cpu",
                     seed=1, resume=True, checkpoint_minutes=1e-9, **ALL_STATES)
train(config)
"""


@pytest.mark.parametrize("step", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (2, 6, 13))])
def test_a_run_killed_by_the_system_goes_on(
    config: TrainConfig, noise: Path, whole: Path, tmp_path: Path, step: int
) -> None:
    """It saves after every step; the kill comes before the step's own save, so that step is done again."""
    config = replace(config, **ALL_STATES)
    run = tmp_path / "run"
    code = KILLED.format(root=str(ROOT), step=step, data=str(noise), run=str(run))
    for _ in range(2):  # killed, and killed again further on
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        if step > 3 * STEPS // 2:
            break
    assert load_resumable(run / LAST).learner["steps_done"] >= step - 1
    train(replace(config, out=run, resume=True))
    check_same_run(run, whole)


def test_the_state_is_saved_by_the_clock(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    save = Session.save

    def spy(session: Session, loader: dict[str, Any]) -> None:
        steps.append(session.learner.steps_done)
        save(session, loader)

    monkeypatch.setattr(Session, "save", spy)
    train(replace(config, out=tmp_path / "rarely", epochs=1))
    assert steps == [STEPS]
    steps.clear()
    after_step(monkeypatch, 2, lambda: time.sleep(1.5))
    train(replace(config, out=tmp_path / "often", epochs=1, checkpoint_minutes=1.5 / 60))
    assert steps[0] == 2


def test_other_threads_are_allowed_and_said(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    train(replace(config, out=run, epochs=1))
    torch.set_num_threads(2)
    train(replace(config, out=run, epochs=2, resume=True))
    assert "resumed with other threads: the result will not be the same to the last bit" in caplog.text


def spoil(monkeypatch: pytest.MonkeyPatch, *bad: int) -> None:
    """Let the images of some steps, counted from 1, be no numbers."""
    steps = iter(range(1, 1000))

    def spy(learner: Learner, images: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        if next(steps) in bad:
            images = torch.full_like(images, torch.nan)
        return plain_step(learner, images, labels, *rest)

    monkeypatch.setattr(Learner, "step", spy)


def test_steps_without_a_finite_gradient_are_left_out_and_counted_by_epoch(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 3, 4, 8)
    progress = iter(range(1, 1000))

    def stop(*_: object) -> None:
        if next(progress) == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingStoppedError, match="after step 2 of epoch 2"):
        train(replace(config, out=tmp_path / "run"), on_progress=stop)
    history = train(replace(config, out=tmp_path / "run", resume=True)).history
    assert [record["skipped_steps"] for record in history] == [2, 1, 0]
    assert all(torch.isfinite(torch.tensor(list(record.values()))).all() for record in history)
    assert all(value.isfinite().all() for value in load_trained(tmp_path / "run" / LAST).model.values())


def test_too_many_of_them_stop_the_run_and_the_last_good_state_is_kept(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        spoil(patch, 7, 8, 9)
        with pytest.raises(TrainingError, match=r"3 of the first 5 steps of epoch 2 had a gradient .* 2 are allowed"):
            train(replace(config, out=run, max_skipped=2))
    assert len(history_of(run)) == 1
    train(replace(config, out=run, resume=True))
    train(replace(config, out=tmp_path / "whole"))
    check_same(run / LAST, tmp_path / "whole" / LAST)


def test_an_epoch_without_a_finite_loss_ends_the_run(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, *range(STEPS + 1, 2 * STEPS + 1))
    with pytest.raises(TrainingError, match="no step of epoch 2 had a finite loss: lower --lr or omit --amp"):
        train(replace(config, out=tmp_path / "run", max_skipped=STEPS))
    assert len(history_of(tmp_path / "run")) == 1


def test_the_number_of_epochs_may_grow_only_where_no_schedule_depends_on_it(
    config: TrainConfig, tmp_path: Path
) -> None:
    train(replace(config, out=tmp_path / "plain", epochs=1))
    assert train(replace(config, out=tmp_path / "plain", epochs=2, resume=True)).epochs == 2
    train(replace(config, out=tmp_path / "falling", epochs=1, schedule="cosine"))
    with pytest.raises(RunError, match="was trained with epochs 1, now it is 2"):
        train(replace(config, out=tmp_path / "falling", epochs=2, schedule="cosine", resume=True))


def pretend(monkeypatch: pytest.MonkeyPatch, figures: Mapping[str, Sequence[float]]) -> None:
    """Let the validation have other figures, one for each epoch."""

    def given(learner: Learner, loader: Loader, epoch: int) -> EpochRecord:
        return validate(learner, loader, epoch) | {name: values[epoch] for name, values in figures.items()}

    monkeypatch.setattr(training, "validate", given)


def test_patience_ends_a_run_that_gets_no_better(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [0.5, 0.7, 0.4, 0.41, 0.42, 0.1]
    pretend(monkeypatch, {"val_loss": losses})
    config = replace(config, out=tmp_path / "run", epochs=6, monitor="loss", patience=2)
    summary = train(config)
    assert (summary.epochs, summary.best_epoch, summary.best) == (5, 3, 0.4)
    assert load_trained(tmp_path / "run" / BEST).epoch == 3
    assert train(replace(config, resume=True)).epochs == 5, "it has ended"


@pytest.mark.parametrize(("monitor", "expected"), [("auroc", 1), ("ap", 2), ("accuracy", 3), ("loss", 3)])
def test_the_monitored_figure_decides(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, monitor: Any, expected: int
) -> None:
    figures = {"val_auroc": [0.9, 0.8, 0.7], "val_ap": [0.1, 0.9, 0.9], "val_accuracy": [0, 0.5, 0.6]}
    figures["val_loss"] = [3, 2, 1]
    pretend(monkeypatch, figures)
    summary = train(replace(config, out=tmp_path / "run", monitor=monitor))
    assert (summary.best_epoch, load_trained(tmp_path / "run" / BEST).epoch) == (expected, expected)


def test_the_average_is_what_is_validated_and_kept(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, out=tmp_path / "run", epochs=1, ema=0.999))
    best, last = load_trained(tmp_path / "run" / BEST), load_resumable(tmp_path / "run" / LAST)
    average = last.learner["ema"]
    for name, value in best.model.items():
        assert torch.equal(value, average["model"][name])
    assert not torch.equal(best.model["layers.0.weight"], last.trained.model["layers.0.weight"])
    assert average["updates"] == STEPS
