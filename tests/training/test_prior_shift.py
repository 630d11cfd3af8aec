"""Calibrated probabilities are right whatever the recipe of the training; the models here are perfect ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pneumo_fast.metrics.calibration import calibrate, judge_probability
from pneumo_fast.metrics.intervals import Bootstrap
from pneumo_fast.metrics.scored import Sample, sigmoid
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.setup import choose_pos_weight, choose_prior_shift
from tests.support.make_dataset import make_dataset

IMAGES = 20_000
CONFIG = TrainConfig(datasets=(Path("dataset"), Path("other")), out=Path("run"))


@dataclass(frozen=True)
class Recipe:
    """What training does to the odds beside what its options say."""

    config: TrainConfig
    shares: float = 1.0
    """How many times as often as by their number the images of the second dataset, rich in positives, are drawn."""


def recipe(*, smoothing: float = 0.0, shares: float = 1.0, **options: object) -> Recipe:
    both = {"label_smoothing": smoothing, "shares": (1.0, shares) if shares != 1 else (), **options}
    return Recipe(replace(CONFIG, **both), shares)  # type: ignore[arg-type]


RECIPES = {
    "plain": recipe(pos_weight=1.0),
    "pos_weight": recipe(),
    "pos_weight by hand": recipe(pos_weight=3.0),
    "weighted": recipe(order="weighted"),
    "weighted and pos_weight": recipe(order="weighted", pos_weight=2.0),
    "label smoothing": recipe(smoothing=0.1),
    "label smoothing alone": recipe(smoothing=0.1, pos_weight=1.0),
    "shares": recipe(shares=5.0),
    "shares without pos_weight": recipe(shares=5.0, pos_weight=1.0),
}


def logits_of(how: Recipe, prevalence: float, pos_weight: float, seed: int) -> Sample:
    """What a model says that has learnt the recipe's own odds without error, on images of the dataset."""
    rng = np.random.default_rng((round(100 * prevalence), seed))
    labels = (rng.random(IMAGES) < prevalence).astype(np.int64)
    image = rng.normal(2.0 * labels, 1.0)  # two deviations higher for a positive
    # a quarter of the images are of the second dataset, in which positives are three times as frequent
    poor, rich = prevalence / 1.5, 3 * prevalence / 1.5
    drawn = (0.75 * poor + 0.25 * how.shares * rich) / (0.75 + 0.25 * how.shares)
    if how.config.order == "weighted":
        drawn = 0.5
    posterior = sigmoid(2.0 * image - 2.0 + np.log(drawn / (1 - drawn)))
    target = posterior * (1 - how.config.label_smoothing) + how.config.label_smoothing / 2
    return Sample(labels=labels, logits=np.log(pos_weight * target / (1 - target)), groups=np.arange(IMAGES))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("positives", [1, 5], ids=["5 %", "25 %"])
def test_a_perfect_model_is_calibrated(name: str, positives: int, tmp_path: Path) -> None:
    how, labels = RECIPES[name], {"train": [1] * positives + [0] * (20 - positives), "val": [1, 0]}
    dataset = make_dataset(tmp_path / "dataset", labels=labels)
    pos_weight = choose_pos_weight(dataset, how.config)
    fitted_on, other = (logits_of(how, positives / 20, pos_weight, seed) for seed in (1, 2))

    calibration = calibrate(fitted_on, choose_prior_shift(dataset, how.config, pos_weight))

    assert calibration is not None
    judged = Sample(labels=other.labels, logits=calibration.apply(other.logits), groups=other.groups)
    assert judged.probabilities.mean() == pytest.approx(positives / 20, abs=0.01)
    assert (judge_probability(judged, Bootstrap(resamples=10, seed=0)).ece.value or 0.0) < 0.02


def test_one_dataset_drawn_by_label_has_a_known_shift(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", labels={"train": [1, 0, 0, 0], "val": [1, 0]})
    weighted = replace(RECIPES["weighted"].config, balance="view")
    assert choose_pos_weight(dataset, RECIPES["weighted"].config) == 1.0
    assert choose_pos_weight(dataset, weighted) == 3.0
    assert choose_prior_shift(dataset, RECIPES["weighted and pos_weight"].config, 2.0) == pytest.approx(math.log(6.0))
    assert choose_prior_shift(dataset, weighted, 3.0) is None
