"""Subgroups: who is in which, and figures that are those of their own images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pneumo_fast.metrics.intervals import percentile_interval
from pneumo_fast.metrics.ranking import rank, resampled
from pneumo_fast.metrics.scored import Sample
from pneumo_fast.metrics.subgroups import ViewOnly, bands, judge_subgroups, judge_view
from pneumo_fast.metrics.thresholds import at_threshold
from pneumo_fast.records import build
from tests.support.judged import FEW, drawn, mann_whitney, rows_of, sample_of


@pytest.mark.parametrize(
    ("age", "band"),
    [("0", "0-17"), ("17", "0-17"), ("18", "18-39"), ("59", "40-59"), ("80", "80+"), ("120", "80+"), ("", "unknown")],
)
def test_age_bands(age: str, band: str) -> None:
    assert bands(pd.Series([age], dtype=str)).tolist() == [band]


def test_a_subgroup_is_judged_by_its_own_images() -> None:
    sample = drawn(2, 30, 50, 1.0)
    sex = ["M" if i % 3 else "F" for i in range(80)]
    found = judge_subgroups(sample, rows_of(sample, sex=sex), 0.5, FEW)
    assert [(g.column, g.value, g.n) for g in found] == [("sex", "F", 27), ("sex", "M", 53)]
    for group in found:
        own = sample.take(pd.Series(sex).eq(group.value).to_numpy())
        assert group.auroc == rank(own, FEW).auroc
        assert group.sensitivity == at_threshold(own, 0.5, FEW).recall
        assert group.prevalence.value == own.positives / own.n
        assert not group.against_all


def test_a_class_of_negatives_is_ranked_against_all_positives() -> None:
    sample = sample_of([(1, 2.0), (1, 0.0), (0, 1.0), (0, -1.0), (0, -2.0)])
    found = judge_subgroups(sample, rows_of(sample, **{"class": ["ill", "ill", "other", "other", "well"]}), 0.5, FEW)
    by_name = {g.value: g for g in found}
    assert all(g.against_all for g in found)
    assert by_name["other"].auroc.value == pytest.approx(0.75)
    assert by_name["well"].auroc.value == 1.0
    assert by_name["other"].sensitivity.value is None
    assert by_name["other"].specificity.value == 0.5


def test_unknown_values_are_a_subgroup_and_unknown_columns_are_left_out() -> None:
    sample = sample_of([(1, 2.0), (0, 0.0), (0, 1.0)])
    found = judge_subgroups(sample, rows_of(sample, view=["AP", "", "AP"]), 0.5, FEW)
    assert [(g.column, g.value, g.n) for g in found] == [("view", "AP", 2), ("view", "unknown", 1)]


def test_a_subgroup_of_one_has_figures_without_a_claim() -> None:
    sample = sample_of([(1, 2.0), (0, 0.0), (0, 1.0)])
    alone = judge_subgroups(sample, rows_of(sample, sex=["F", "M", "M"]), 0.5, FEW)[0]
    assert (alone.n, alone.sensitivity.value, alone.specificity.value) == (1, 1.0, None)
    assert alone.prevalence.low is None


def test_view_only_scores_by_the_shares_of_training() -> None:
    sample = sample_of([(1, 0.0), (1, 0.0), (0, 0.0), (0, 0.0), (0, 0.0)])
    rows = rows_of(sample, view=["AP", "PA", "AP", "PA", "LL"])
    train = pd.DataFrame({"view": ["AP", "AP", "PA", "PA", "PA", "PA"], "label": [1, 1, 1, 0, 0, 0]})
    view = judge_view(sample, rows, train, FEW)
    assert view is not None
    assert view.rates == {"AP": 1.0, "PA": 0.25}
    scores = pd.Series([1.0, 0.25, 1.0, 0.25, 0.5]).to_numpy()  # an unseen view gets the overall share
    assert view.auroc.value == pytest.approx(mann_whitney(sample.labels, scores), abs=1e-6)


def test_the_difference_from_the_view_draws_the_same_patients_for_both() -> None:
    sample = drawn(3, 40, 60, 1.0)
    views = ["AP" if row % 3 else "PA" for row in range(100)]
    rows = rows_of(sample, view=views)
    same = judge_view(sample, rows, rows, FEW)
    assert same is not None
    assert same.difference is not None
    by_view = pd.Series(views).map(same.rates).to_numpy()
    again = [resampled(sample.labels, scores, sample.groups, FEW)[:, 0] for scores in (sample.logits, by_view)]
    assert (same.difference.low, same.difference.high) == percentile_interval(again[0] - again[1])
    assert same.auroc == rank(Sample(labels=sample.labels, logits=by_view, groups=sample.groups), FEW).auroc
    assert same.difference.value == pytest.approx((rank(sample, FEW).auroc.value or 0) - (same.auroc.value or 0))


def test_a_baseline_of_an_earlier_release_has_no_difference() -> None:
    assert build({"auroc": {"value": 0.6, "low": 0.5, "high": 0.7}, "rates": {"AP": 0.4}}, ViewOnly).difference is None


def test_a_model_as_good_as_the_view_is_seldom_said_to_be_better() -> None:
    # the view is right with 0.7 of positives and 0.65 of negatives: AUROC 0.675, as of normal scores 0.6417 apart
    above = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        labels = (rng.random(300) < 0.3).astype(np.int64)
        views = np.where(rng.random(300) < np.where(labels == 1, 0.7, 0.35), "AP", "PA").tolist()
        logits = rng.standard_normal(300) + 0.6417 * labels
        sample = Sample(labels=labels, logits=logits, groups=np.arange(300))
        found = judge_view(sample, rows_of(sample, view=views), rows_of(sample, view=views), FEW)
        assert found is not None
        assert found.difference is not None
        above += (found.difference.low or 0.0) > 0
    assert above / 300 < 0.05  # the interval of the model alone: 0.08


@pytest.mark.parametrize("views", [["AP"] * 5, [""] * 5])
def test_one_view_is_no_baseline(views: list[str]) -> None:
    sample = sample_of([(1, 0.0), (1, 0.0), (0, 0.0), (0, 0.0), (0, 0.0)])
    rows = rows_of(sample, view=views)
    assert judge_view(sample, rows, rows, FEW) is None
