"""What a threshold gives, and how it is chosen: counts by hand, rates by torchmetrics, choices by trying every one."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torchmetrics.functional import classification as tm

from pneumo_fast.evaluation.compute import judge
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.metrics.intervals import Bootstrap, wilson_interval
from pneumo_fast.metrics.thresholds import Confusion, always_negative, at_threshold, choose, net_benefits, rates
from tests.support.judged import FEW, IMAGES, both_classes, drawn, rows_of, sample_of

WORKED = [
    # (label, logit), threshold, (tn, fp, fn, tp), (accuracy, precision, recall, specificity, npv, f1)
    ([(0, -1.0), (0, 1.0), (1, -1.0), (1, 1.0)], 0.5, (1, 1, 1, 1), (0.5, 0.5, 0.5, 0.5, 0.5, 0.5)),
    ([(0, -1.0), (0, -1.0), (0, 1.0), (1, 1.0)], 0.5, (2, 1, 0, 1), (0.75, 0.5, 1.0, 2 / 3, 1.0, 2 / 3)),
    ([(0, -1.0), (1, -1.0), (1, -1.0), (1, 1.0)], 0.5, (1, 0, 2, 1), (0.5, 1.0, 1 / 3, 1.0, 1 / 3, 0.5)),
    ([(0, -1.0), (1, -1.0), (1, -1.0), (1, 1.0)], 0.25, (0, 1, 0, 3), (0.75, 0.75, 1.0, 0.0, None, 6 / 7)),
    ([(0, -9.0), (1, -9.0)], 0.5, (1, 0, 1, 0), (0.5, None, 0.0, 1.0, 0.5, 0.0)),  # nothing called positive
    ([(0, -9.0), (0, 9.0)], 0.5, (1, 1, 0, 0), (0.5, 0.0, None, 0.5, 1.0, 0.0)),  # no positives
    ([(0, -9.0)], 0.5, (1, 0, 0, 0), (1.0, None, None, 1.0, 1.0, None)),
    ([(1, 9.0)], 0.5, (0, 0, 0, 1), (1.0, 1.0, 1.0, None, None, 1.0)),  # no negatives
]


@pytest.mark.parametrize(("images", "threshold", "counts", "values"), WORKED)
def test_worked_confusion_matrices(
    images: list[tuple[int, float]],
    threshold: float,
    counts: tuple[int, int, int, int],
    values: tuple[float | None, ...],
) -> None:
    t = at_threshold(sample_of(images), threshold, FEW)
    assert t.confusion == Confusion(**dict(zip(("tn", "fp", "fn", "tp"), counts, strict=True)))
    found = (t.accuracy, t.precision, t.recall, t.specificity, t.npv, t.f1)
    assert tuple(e.value for e in found) == values


@pytest.mark.parametrize(
    ("logit", "threshold", "positive"),
    [(0.0, 0.5, 1), (-1e-7, 0.5, 0), (-200.0, 0.0, 1), (200.0, 1.0, 1), (9.0, 1.0, 0)],
)
def test_a_probability_equal_to_the_threshold_is_positive(logit: float, threshold: float, positive: int) -> None:
    assert at_threshold(sample_of([(1, logit)]), threshold, FEW).confusion.tp == positive


def test_logits_that_all_look_like_probabilities_are_still_logits() -> None:
    sample = sample_of([(0, 0.2), (1, 0.4)])  # sigmoid: 0.55, 0.60
    assert at_threshold(sample, 0.5, FEW).confusion == Confusion(tn=0, fp=1, fn=0, tp=1)


@given(IMAGES.filter(both_classes), st.floats(0, 1))
def test_rates_agree_with_torchmetrics(images: list[tuple[int, float]], threshold: float) -> None:
    sample = sample_of(images)
    t = at_threshold(sample, threshold, FEW)
    called, target = torch.from_numpy(sample.probabilities >= threshold).long(), torch.from_numpy(sample.labels)
    ours = [t.accuracy, t.precision, t.recall, t.specificity, t.f1, t.npv]
    theirs = [
        f(called, target).item()
        for f in (tm.binary_accuracy, tm.binary_precision, tm.binary_recall, tm.binary_specificity, tm.binary_f1_score)
    ]
    theirs.append(tm.binary_precision(1 - called, 1 - target).item())
    assert [e.value or 0.0 for e in ours] == pytest.approx(theirs, abs=1e-6)
    if t.mcc.value is not None:
        assert t.mcc.value == pytest.approx(tm.binary_matthews_corrcoef(called, target).item(), abs=1e-5)
    else:
        assert len(set(called.tolist())) == 1


@given(IMAGES, st.lists(st.floats(0, 1), min_size=1, max_size=4, unique=True))
def test_counts_add_up_and_sensitivity_never_falls_with_the_threshold(
    images: list[tuple[int, float]], thresholds: list[float]
) -> None:
    sample = sample_of(images)
    results = [at_threshold(sample, t, FEW) for t in sorted(thresholds, reverse=True)]
    for result in (*results, always_negative(sample, FEW)):
        c = result.confusion
        assert (c.tn + c.fp, c.fn + c.tp) == (sample.n - sample.positives, sample.positives)
    for higher, lower in pairwise(r.confusion for r in results):
        assert lower.tp >= higher.tp
        assert lower.tn <= higher.tn


@given(IMAGES)
def test_intervals_are_in_order_and_of_figures_that_have_a_value(images: list[tuple[int, float]]) -> None:
    t = at_threshold(sample_of(images), 0.5, FEW)
    for e in (t.accuracy, t.precision, t.recall, t.specificity, t.npv, t.f1, t.mcc):
        assert e.low is None or (e.value is not None and e.high is not None and e.low < e.high)


def test_a_share_of_one_has_the_score_interval_of_its_patients() -> None:
    sample = sample_of([(1, 5.0), (1, 5.0), (1, 4.0), (0, -5.0)], groups=[0, 0, 1, 2])
    t = at_threshold(sample, 0.5, FEW)
    assert (t.recall.low, t.recall.high) == wilson_interval(2, 2)
    assert (t.specificity.low, t.specificity.high) == wilson_interval(1, 1)
    missed = at_threshold(sample, 0.999, FEW)
    assert (missed.recall.low, missed.recall.high) == wilson_interval(0, 2)


def test_intervals_of_rates_cover_the_truth() -> None:
    truth = {
        "recall": 0.8413,
        "specificity": 0.6915,
    }  # the threshold lies 1 below one mean, 0.5 above the other
    covered: dict[str, list[bool]] = {name: [] for name in truth}
    for seed in range(200):
        t = at_threshold(drawn(seed, 80, 120, 1.5), 1 / (1 + math.exp(-0.5)), Bootstrap(resamples=300, seed=seed))
        for name, value in truth.items():
            e = getattr(t, name)
            covered[name].append(e.low <= value <= e.high)
    assert all(0.90 <= np.mean(c) <= 0.985 for c in covered.values()), covered


def test_predictive_values_at_another_prevalence_follow_bayes() -> None:
    # sensitivity 0.8, specificity 0.9; of 1,000 with prevalence 0.05: 40 of 50 found, 95 of 950 false alarms
    counts = np.array([[90.0, 10.0, 20.0, 80.0]])
    found = rates(counts, 0.5, prevalence=0.05)
    assert found["ppv_at_prevalence"][0] == pytest.approx(40 / (40 + 95))
    assert found["npv_at_prevalence"][0] == pytest.approx(855 / (855 + 10))
    own = rates(counts, 0.5, prevalence=0.5)
    for stated, plain in (("ppv_at_prevalence", "precision"), ("npv_at_prevalence", "npv")):
        assert own[stated] == pytest.approx(own[plain])
    assert "ppv_at_prevalence" not in rates(counts, 0.5)


@pytest.mark.parametrize("prevalence", [0.01, 0.1, 0.3])
def test_predictive_values_without_a_wrong_call_are_exactly_one(prevalence: float) -> None:
    right = np.arange(1.0, 30.0)
    none, some = np.zeros_like(right), np.full_like(right, 5.0)
    npv = rates(np.stack([right, 30 - right, none, some], axis=1), None, prevalence)["npv_at_prevalence"]
    ppv = rates(np.stack([some, none, 30 - right, right], axis=1), None, prevalence)["ppv_at_prevalence"]
    assert set(npv) == set(ppv) == {1.0}


def test_net_benefit_worked_example() -> None:
    # 100 images at threshold 0.2: 15 found, 20 false alarms, each worth a quarter: (15 - 20 / 4) / 100
    assert rates(np.array([[55.0, 20.0, 10.0, 15.0]]), 0.2)["net_benefit"][0] == pytest.approx(0.10)


def test_the_net_benefit_weighs_by_the_calibrated_probability() -> None:
    sample = sample_of([(1, 2.0), (0, 2.0), (0, -2.0), (0, -2.0)])
    assert at_threshold(sample, 0.5, FEW, risk=0.2).net_benefit.value == pytest.approx((1 - 0.25) / 4)
    assert at_threshold(sample, 0.5, FEW).net_benefit.value is None


@given(IMAGES.filter(both_classes))
def test_the_decision_curve_is_the_net_benefit_at_each_threshold(images: list[tuple[int, float]]) -> None:
    sample = sample_of(images)
    at = (0.1, 0.5, 0.9)
    model, treat_all = net_benefits(sample, at)
    assert model == pytest.approx([at_threshold(sample, t, FEW, risk=t).net_benefit.value for t in at])
    everyone = np.array([[0.0, sample.n - sample.positives, 0.0, sample.positives]])
    assert treat_all == pytest.approx([rates(everyone, t)["net_benefit"][0] for t in at])


def test_always_negative_is_right_about_every_negative() -> None:
    t = always_negative(sample_of([(1, 9.0), (0, 9.0), (0, 9.0), (0, 9.0)]), FEW)
    assert t.confusion == Confusion(tn=3, fp=0, fn=1, tp=0)
    assert (t.name, t.threshold) == ("always negative", None)
    values = (t.accuracy, t.recall, t.specificity, t.precision, t.f1, t.net_benefit)
    assert [e.value for e in values] == [0.75, 0.0, 1.0, None, 0.0, 0.0]


def test_always_negative_has_the_predictive_values_of_a_threshold_that_calls_none() -> None:
    sample = sample_of([(1, 1.0), (0, 0.0), (0, -1.0)])
    found = judge(sample, rows_of(sample), EvaluateConfig(thresholds=(1.0,), prevalence=0.1, resamples=100))
    never = found.always_negative
    assert never.npv_at_prevalence is not None
    assert never.npv_at_prevalence.value == pytest.approx(0.9)
    at_one = found.thresholds[0]
    assert (never.ppv_at_prevalence, never.npv_at_prevalence) == (at_one.ppv_at_prevalence, at_one.npv_at_prevalence)


@given(IMAGES.filter(both_classes), st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0.1, 20))
def test_no_other_threshold_would_have_been_better(
    images: list[tuple[int, float]], sensitivity: float, specificity: float, ratio: float
) -> None:
    sample = sample_of(images)
    tried = {}
    for threshold in np.unique(sample.probabilities).tolist():
        c = at_threshold(sample, threshold, FEW).confusion
        tried[threshold] = (c.tp / (c.tp + c.fn), c.tn / (c.tn + c.fp), ratio * c.fn + c.fp)
    chosen = {c.name.split()[0]: c.threshold for c in choose(sample, sensitivity, specificity, ratio)}
    j = [sens + spec for sens, spec, _ in tried.values()]
    assert sum(tried[chosen["Youden's"]][:2]) == pytest.approx(max(j))
    assert chosen["sensitivity"] == max(t for t, v in tried.items() if v[0] >= sensitivity - 1e-9)
    reaching = [t for t, v in tried.items() if v[1] >= specificity - 1e-9]
    assert chosen.get("specificity") == min(reaching, default=None)
    assert tried[chosen["least"]][2] == pytest.approx(min(v[2] for v in tried.values()))


# 1/3 + 1 from the highest logit on, 2/3 + 2/3 from the next: as floats the latter is larger by a rounding
@example(images=[(1, 3.0), (1, 1.0), (0, 1.0), (1, -1.0), (0, -1.0), (0, -1.0)])
@given(images=IMAGES.filter(both_classes))
def test_youdens_j_in_fractions_is_the_largest_and_of_equals_the_highest_threshold_is_chosen(
    images: list[tuple[int, float]],
) -> None:
    sample = sample_of(images)
    p, ill = sample.probabilities, sample.labels == 1
    j = [
        (
            Fraction(int((p[ill] >= t).sum()), sample.positives)
            - Fraction(int((p[~ill] >= t).sum()), int((~ill).sum())),
            t,
        )
        for t in np.unique(p).tolist()
    ]
    assert choose(sample, 0.9, 0.9, None)[0].threshold == max(j)[1]


def test_no_cost_no_threshold_for_it() -> None:
    names = [c.name for c in choose(drawn(0, 9, 9, 1.0), 0.9, 0.95, None)]
    assert names == ["Youden's J", "sensitivity at least 0.9", "specificity at least 0.95"]
