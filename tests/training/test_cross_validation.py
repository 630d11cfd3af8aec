"""Every fold of a cross-validation: the same as one by one, stopped and resumed, and what is refused beforehand."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.errors import ConfigError, DatasetError, PneumoError, RunError, TrainingStoppedError
from pneumo_fast.run.layout import BEST, CONFIG, LAST
from pneumo_fast.training.cross_validation import cross_validate
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.plan import TrainPlan
from pneumo_fast.training.train import train
from tests.support.make_dataset import make_dataset
from tests.support.training import check_same, network, small
from tests.support.untrained_run import LABELS
from tests.support.untrained_run import make_dataset as make_patients

STEPS = 3  # in an epoch: 22 or 23 images by 8
plain_step = Learner.step


@pytest.fixture
def folds(config: TrainConfig, tmp_path: Path) -> Iterator[TrainConfig]:
    """Three folds of two epochs."""
    with network(small):
        yield replace(config, out=tmp_path / "run", folds=3)


@pytest.fixture(scope="module")
def whole(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three, trained without an interruption. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    with network(small):
        cross_validate(replace(config, out=run, folds=3))
    return run


@pytest.fixture
def trained(folds: TrainConfig, whole: Path) -> TrainConfig:
    """Three folds that were trained already."""
    shutil.copytree(whole, folds.out)
    return folds


def stop_after_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send this process a signal after one of all the steps, counted from 1."""
    steps = iter(range(1, 1000))

    def spy(*arguments: Any) -> Any:
        result = plain_step(*arguments)
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(Learner, "step", spy)


def folders(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir()) if run.exists() else []


def test_each_fold_is_what_train_makes_of_it_alone(folds: TrainConfig, tmp_path: Path) -> None:
    plans: list[TrainPlan] = []
    summary = cross_validate(folds, on_start=plans.append)
    assert [fold.run for fold in summary.folds] == [folds.out / f"fold-{fold}" for fold in (1, 2, 3)]
    assert [plan.config.fold for plan in plans] == [1, 2, 3]
    assert folders(folds.out) == ["fold-1", "fold-2", "fold-3"]
    train(replace(folds, fold=2, out=tmp_path / "alone"))
    for name in (BEST, LAST):
        check_same(folds.out / "fold-2" / name, tmp_path / "alone" / name)


@pytest.mark.parametrize("step", [8, 2 * STEPS])
def test_resuming_skips_finished_folds_and_trains_the_rest(
    folds: TrainConfig, whole: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Stopped within the second fold, and in the last step of the first, when that has nothing left to stop."""
    with monkeypatch.context() as patch:
        stop_after_step(patch, step)
        with pytest.raises(TrainingStoppedError, match="resume with --resume") as stopped:
            cross_validate(folds)
    assert stopped.value.exit_code == 128 + signal.SIGINT
    assert "fold-3" not in folders(folds.out)
    before = (folds.out / "fold-1" / LAST).stat().st_mtime_ns
    plans: list[TrainPlan] = []
    summary = cross_validate(replace(folds, resume=True), on_start=plans.append)
    assert [plan.config.fold for plan in plans] == [2, 3]
    assert (folds.out / "fold-1" / LAST).stat().st_mtime_ns == before
    assert [fold.epochs for fold in summary.folds] == [2, 2, 2]
    for fold in (1, 2, 3):
        check_same(folds.out / f"fold-{fold}" / BEST, whole / f"fold-{fold}" / BEST)


def test_a_finished_one_is_resumed_without_a_step(trained: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Learner, "step", None)
    assert len(cross_validate(replace(trained, resume=True)).folds) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resume": True, "lr": 2e-3}, "fold-1 was trained with lr 0.001, now it is 0.002: resume with the same"),
        ({"resume": True, "folds": 4}, "fold-1 was trained with folds 3, now it is 4"),
        ({"resume": True, "folds": 2}, "holds fold-3, which is none of 2 folds: move it away, or name another"),
        ({}, "fold-1 holds a run: give --resume"),
    ],
)
def test_an_earlier_one_is_not_continued_otherwise(trained: TrainConfig, change: dict[str, Any], message: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.out.rglob("*")}
    with pytest.raises(RunError, match=message):
        cross_validate(replace(trained, **change))
    assert {path: path.stat().st_mtime_ns for path in trained.out.rglob("*")} == before


def test_a_later_fold_of_other_settings_is_found_before_the_first_is_trained(folds: TrainConfig) -> None:
    train(replace(folds, fold=3, out=folds.out / "fold-3", lr=5e-3))
    with pytest.raises(RunError, match=r"fold-3 was trained with lr 0.005, now it is 0.001"):
        cross_validate(replace(folds, resume=True))
    assert folders(folds.out) == ["fold-3"]


def test_overwriting_replaces_all_of_it_and_nothing_else(trained: TrainConfig) -> None:
    (trained.out / "eval" / "data-val").mkdir(parents=True)
    for name in ("eval/data-val/metrics.json", "report.html", "notes.txt"):
        (trained.out / name).write_text("old")
    cross_validate(replace(trained, folds=2, lr=2e-3, overwrite=True))
    assert folders(trained.out) == ["fold-1", "fold-2", "notes.txt"]


def test_overwriting_begins_when_nothing_stands_in_the_way(trained: TrainConfig) -> None:
    with pytest.raises(PneumoError, match="batch"):
        cross_validate(replace(trained, batch_size=500, overwrite=True))
    assert folders(trained.out) == ["fold-1", "fold-2", "fold-3"]


@pytest.mark.parametrize(
    ("name", "message"),
    [(CONFIG, "holds a run that is no cross-validation: name another --out"), ("notes.txt", "is not empty: name")],
)
def test_a_folder_of_something_else_is_left_alone(folds: TrainConfig, name: str, message: str) -> None:
    folds.out.mkdir()
    (folds.out / name).write_text("{}")
    with pytest.raises(RunError, match=message):
        cross_validate(replace(folds, overwrite=True))
    assert folders(folds.out) == [name]


def test_a_run_does_not_go_into_the_folder_of_a_cross_validation(trained: TrainConfig) -> None:
    with pytest.raises(RunError, match="is not empty: name another --out"):
        train(replace(trained, folds=None, overwrite=True))


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        ([0, 1] * 5, 9, "fold . of 9 gets no image of dataset .*: use fewer --folds"),
        ([0] * 12 + [1], 3, "images of label 0 only: use fewer --folds"),
        ([0, 1], 30, "30 folds of .* patients in dataset .*: use fewer --folds"),
    ],
)
def test_folds_that_are_too_small(
    folds: TrainConfig, tmp_path: Path, labels: list[int], count: int, message: str
) -> None:
    make_dataset(tmp_path / "small", size=32, labels={"train": labels, "val": labels[:2]})
    with pytest.raises(DatasetError, match=message):
        cross_validate(replace(folds, datasets=(tmp_path / "small",), folds=count))
    assert not folds.out.exists()


def test_a_fold_of_one_patient(folds: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LABELS, "val", [0, 1] * 5)
    make_patients(tmp_path / "patients")
    with pytest.raises(DatasetError, match=r"fold 1 of 7 has a single patient in dataset .*: use fewer --folds"):
        cross_validate(replace(folds, datasets=(tmp_path / "patients",), folds=7))


def test_train_takes_one_fold_and_cross_validate_all(folds: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="folds 3 without fold: name one"):
        train(folds)
    with pytest.raises(ConfigError, match="folds 3 with fold 1: cross_validate takes folds, and no fold"):
        cross_validate(replace(folds, fold=1))
