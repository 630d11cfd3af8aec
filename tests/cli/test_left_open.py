"""What a command line of ``train`` leaves open comes from its recipe, or from an earlier run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.configuration import arguments_of
from pneumo_fast.errors import RunError
from pneumo_fast.run.checkpoint import load_trained
from pneumo_fast.run.layout import CONFIG, LAST
from pneumo_fast.training.options import TrainConfig, recipe
from pneumo_fast.training.recipes import RECIPES
from pneumo_fast.training.train import train
from tests.support.training import history_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_command_line_takes_a_recipe_but_for_what_is_given(config_of: Any) -> None:
    assert config_of("train", "--recipe", "recommended") == recipe("recommended")
    assert config_of("train", "--recipe", "reference") == TrainConfig()
    some = config_of("train", "--lr", "0.0001", "--recipe", "recommended", "--augment", "none", "--batch-size", "9")
    assert some == recipe("recommended", lr=1e-4, augment="none", batch_size=9)
    assert config_of("train", "--recipe", "recommended", "--ema", "0").ema == 0.0, "which is none"


def test_an_unknown_recipe_is_one_line(run_cli: Any) -> None:
    ended = run_cli("train", "--recipe", "best")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "'best' is not one of 'reference', 'recommended'" in ended.err


def test_a_configuration_is_repeated_with_its_recipe_or_another(config_of: Any, tmp_path: Path) -> None:
    saved = {**RECIPES["recommended"], "recipe": "recommended", "lr": 0.5, "seed": 4}
    (tmp_path / CONFIG).write_text(json.dumps({"config": saved}))
    assert config_of("train", "--config", tmp_path) == recipe("recommended", lr=0.5, seed=4)
    again = config_of("train", "--config", tmp_path, "--recipe", "reference", "--ema", "0.5")
    assert again == recipe("reference", ema=0.5, seed=4)


@pytest.mark.parametrize("saved", [{"weights": 1.5}, {"epochs": "ten"}, {"seed": 0.5}, {"shares": 1}, {"amp": "yes"}])
def test_an_option_of_another_type_is_one_line(run_cli: Any, tmp_path: Path, saved: dict[str, Any]) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"config": saved}))
    ended = run_cli("train", "--config", tmp_path)
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    (name,) = saved
    assert f"{CONFIG} is damaged ({name}: expected `" in ended.err


def test_the_words_of_a_report_give_the_same_options(config_of: Any) -> None:
    """An option that was put back to its default included."""
    made = recipe("recommended", lr=1e-4, epochs=3)
    words = arguments_of(replace(made, recipe="reference"))
    assert replace(config_of("train", *words), recipe="recommended") == made


@pytest.mark.parametrize("folder", ["", "fold-1"])
def test_what_is_resumed_keeps_its_recipe(config_of: Any, tmp_path: Path, folder: str) -> None:
    """A run's stands in its own configuration, a cross-validation's in that of its first fold."""
    run = tmp_path / "run" / folder
    run.mkdir(parents=True)
    (run / CONFIG).write_text(json.dumps({"config": {"recipe": "recommended"}}))
    resumed = config_of("train", "--out", tmp_path / "run", "--folds", "3", "--resume")
    assert resumed == recipe("recommended", out=tmp_path / "run", folds=3, resume=True)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("repeated", [False, True])
def test_a_run_is_resumed_with_its_recipe_repeated_or_not(
    noise: Path, tmp_path: Path, run_cli: Any, repeated: bool
) -> None:
    run = tmp_path / "run"
    common = [noise, "--out", run, "--device", "cpu", "--batch-size", "8", "--epochs", "2"]
    train(recipe("recommended", datasets=(noise,), out=run, device="cpu", batch_size=8, epochs=2, patience=1))
    assert json.loads((run / CONFIG).read_text())["config"]["recipe"] == "recommended"
    assert load_trained(run / LAST).settings["lr"] == 1e-3
    words = [*(["--recipe", "recommended"] if repeated else []), "--patience", "1", "--resume"]
    ended = run_cli("train", *common, *words)
    assert ended.code == 0, ended.err
    assert len(history_of(run)) <= 2
    with pytest.raises(RunError, match="was trained with augment 'strong', now it is 'none'"):
        train(TrainConfig(datasets=(noise,), out=run, device="cpu", batch_size=8, patience=1, resume=True))
