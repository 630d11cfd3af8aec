"""Figures of folds, how far they are apart, and what is said where pooling hides them."""

from __future__ import annotations

import numpy as np
import pytest

from pneumo_fast.evaluation.notes import fold_notes
from pneumo_fast.metrics.folds import BY_FOLD, judge_folds, spread_of
from pneumo_fast.metrics.ranking import rank
from pneumo_fast.metrics.scored import Sample
from tests.support.judged import FEW, sample_of

FOLDS = np.array([1, 1, 1, 1, 2, 2, 2, 2])


def of_two_folds(apart: float) -> Sample:
    """Each fold ranks its own images without a mistake; the second one's logits are higher by ``apart``."""
    own = [(0, -1.0), (0, -0.5), (1, 0.5), (1, 1.0)]
    return sample_of([*own, *((label, logit + apart) for label, logit in own)])


def test_each_fold_has_its_own_images() -> None:
    one, other = judge_folds(of_two_folds(10.0), FOLDS, 0.5, FEW)
    assert [(fold.fold, fold.n, fold.positives, fold.auroc.value) for fold in (one, other)] == [
        (1, 4, 2, 1.0),
        (2, 4, 2, 1.0),
    ]
    assert (one.specificity.value, other.specificity.value) == (1.0, 0.0)


def test_the_spread() -> None:
    spread = {each.key: each for each in spread_of(judge_folds(of_two_folds(10.0), FOLDS, 0.5, FEW))}
    assert list(spread) == [metric.key for metric in BY_FOLD]
    specificity = spread["specificity"]
    assert (specificity.mean, specificity.least, specificity.most) == (0.5, 0.0, 1.0)
    assert specificity.sd == pytest.approx(0.5**0.5)


def test_a_figure_that_a_fold_does_not_define_has_no_spread() -> None:
    sample = sample_of([(0, 0.0), (1, 1.0), (0, 0.0), (0, 1.0)])
    spread = spread_of(judge_folds(sample, np.array([1, 1, 2, 2]), 0.5, FEW))
    assert (spread[0].mean, spread[0].sd, spread[0].least, spread[0].most) == (None,) * 4
    assert spread[2].mean is not None


@pytest.mark.parametrize(("apart", "said"), [(0.0, "can be below the mean"), (10.0, "is below that of every fold")])
def test_it_is_said_where_pooling_hides_the_ranking(apart: float, said: str) -> None:
    sample = of_two_folds(apart)
    notes = fold_notes("auroc", rank(sample, FEW), judge_folds(sample, FOLDS, 0.5, FEW))
    assert said in notes[2]
