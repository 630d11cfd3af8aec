"""Recipes: named options, of which those that are given singly count more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pneumo_fast.errors import ConfigError
from pneumo_fast.training.options import TrainConfig, describe_recipe, recipe
from pneumo_fast.training.recipes import RECIPES

RECOMMENDED = RECIPES["recommended"]


def test_the_reference_is_the_default() -> None:
    assert recipe("reference") == TrainConfig()
    assert {name: getattr(TrainConfig(), name) for name in RECIPES["reference"]} == RECIPES["reference"]
    assert RECOMMENDED.keys() == RECIPES["reference"].keys()


def test_options_that_are_given_override_the_recipe() -> None:
    made = recipe("recommended", epochs=5, seed=3)
    assert {name: getattr(made, name) for name in RECOMMENDED} == RECOMMENDED | {"epochs": 5}
    assert (made.recipe, made.seed, made.model) == ("recommended", 3, "resnet18")
    assert describe_recipe(made) == (
        "recommended: augment strong, optimizer adamw, lr 0.001, weight-decay 0.02, schedule onecycle, ema 0.999, "
        "pos-weight auto; overridden: epochs 5"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: recipe("best"), "recipe 'best' is unknown: use one of reference, recommended"),  # type: ignore[arg-type]
        (
            lambda: TrainConfig(recipe="recommended"),
            "with none of its options: from Python pneumo_fast.recipe",
        ),
        (lambda: TrainConfig(recipe="recommended", epochs=3), "recipe recommended with none of its options"),
    ],
)
def test_a_recipe_that_is_none(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
