"""The figures, each against a second way to get them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.functional import classification as tm

from pneumo_fast.intervals import Labels, Logits, delong_interval, wilson_interval
from pneumo_fast.metrics import (
    Confusion,
    Metrics,
    at_threshold,
    judge,
    precision_recall_curve,
    roc_curve,
    sigmoid,
    tradeoff,
    tradeoffs,
)

Z = NormalDist().inv_cdf(0.975)

LOGITS = st.floats(-40, 40, width=32)
# A few distinct values, so that ties within and between the classes are common.
TIED = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 17.0, 25.0, 31.0])
IMAGES = st.lists(st.tuples(st.integers(0, 1), st.one_of(LOGITS, TIED)), min_size=1, max_size=40)


def arrays(images: list[tuple[int, float]]) -> tuple[Labels, Logits]:
    labels, logits = zip(*images, strict=True)
    return np.array(labels, dtype=np.int64), np.array(logits, dtype=np.float32)


def both_classes(images: list[tuple[int, float]]) -> bool:
    return len({label for label, _ in images}) == 2


def drawn(seed: int, positives: int, negatives: int, apart: float) -> tuple[Labels, Logits]:
    """Scores of two normal distributions that lie ``apart`` standard deviations from each other."""
    rng = np.random.default_rng(seed)
    logits = np.concatenate([rng.normal(apart, 1, positives), rng.normal(0, 1, negatives)])
    return np.repeat([1, 0], [positives, negatives]), logits.astype(np.float32)


def mann_whitney(labels: Labels, logits: Logits) -> float:
    """AUROC as the share of (positive, negative) pairs that are ranked right; a tie is half a pair."""
    difference = np.sign(logits[labels == 1][:, None].astype(float) - logits[labels == 0][None, :])
    return float((difference + 1).mean() / 2)


def average_precision_by_hand(labels: Labels, logits: Logits) -> float:
    """Walk down the distinct scores; add the precision there, times the share of positives found there."""
    total = 0.0
    for score in sorted(set(logits.tolist()), reverse=True):
        called = logits >= score
        total += labels[called].mean() * labels[logits == score].sum() / labels.sum()
    return total


@given(IMAGES.filter(both_classes))
def test_auroc_is_the_mann_whitney_count(images: list[tuple[int, float]]) -> None:
    labels, logits = arrays(images)
    assert judge(labels, logits, (0.5,)).auroc == pytest.approx(mann_whitney(labels, logits), abs=1e-6)


@given(IMAGES.filter(both_classes))
def test_average_precision_is_the_sum_by_hand(images: list[tuple[int, float]]) -> None:
    labels, logits = arrays(images)
    expected = average_precision_by_hand(labels, logits)
    assert judge(labels, logits, (0.5,)).average_precision == pytest.approx(expected, abs=1e-6)


def test_average_precision_worked_example() -> None:
    # Found at ranks 1, 3 and 4 of 5: precisions 1/1, 2/3, 3/4.
    labels, logits = arrays([(1, 3.0), (0, 2.0), (1, 1.0), (1, 0.0), (0, -1.0)])
    assert judge(labels, logits, (0.5,)).average_precision == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, abs=1e-6)


def test_logits_that_share_a_float32_probability_are_still_ranked() -> None:
    labels, logits = arrays([(1, 30.0), (0, 25.0)])
    assert torch.from_numpy(logits).sigmoid().tolist() == [1.0, 1.0]
    assert judge(labels, logits, (0.5,)).auroc == 1.0


def test_logits_that_all_look_like_probabilities_are_still_logits() -> None:
    labels, logits = arrays([(0, 0.2), (1, 0.4)])  # sigmoid: 0.55, 0.60
    assert judge(labels, logits, (0.5,)).thresholds[0].confusion == Confusion(tn=0, fp=1, fn=0, tp=1)


WORKED = [
    # (label, logit), threshold, (tn, fp, fn, tp), accuracy, precision, recall, specificity, f1
    ([(0, -1.0), (0, 1.0), (1, -1.0), (1, 1.0)], 0.5, (1, 1, 1, 1), 0.5, 0.5, 0.5, 0.5, 0.5),
    ([(0, -1.0), (0, -1.0), (0, 1.0), (1, 1.0)], 0.5, (2, 1, 0, 1), 0.75, 0.5, 1.0, 2 / 3, 2 / 3),
    ([(0, -1.0), (1, -1.0), (1, -1.0), (1, 1.0)], 0.5, (1, 0, 2, 1), 0.5, 1.0, 1 / 3, 1.0, 0.5),
    ([(0, -1.0), (1, -1.0), (1, -1.0), (1, 1.0)], 0.25, (0, 1, 0, 3), 0.75, 0.75, 1.0, 0.0, 6 / 7),
    ([(0, -9.0), (1, -9.0)], 0.5, (1, 0, 1, 0), 0.5, None, 0.0, 1.0, 0.0),  # nothing called positive
    ([(0, -9.0), (0, 9.0)], 0.5, (1, 1, 0, 0), 0.5, 0.0, None, 0.5, 0.0),  # no positives
    ([(0, -9.0)], 0.5, (1, 0, 0, 0), 1.0, None, None, 1.0, None),
    ([(1, 9.0)], 0.5, (0, 0, 0, 1), 1.0, 1.0, 1.0, None, 1.0),  # no negatives
]


@pytest.mark.parametrize(
    ("images", "threshold", "counts", "accuracy", "precision", "recall", "specificity", "f1"), WORKED
)
def test_worked_confusion_matrices(
    images: list[tuple[int, float]],
    threshold: float,
    counts: tuple[int, int, int, int],
    accuracy: float,
    precision: float | None,
    recall: float | None,
    specificity: float | None,
    f1: float | None,
) -> None:
    labels, logits = arrays(images)
    result = at_threshold(labels, sigmoid(logits), threshold)
    c = result.confusion
    assert (c.tn, c.fp, c.fn, c.tp) == counts
    found = (result.accuracy, result.precision, result.recall, result.specificity, result.f1)
    assert found == (accuracy, precision, recall, specificity, f1)


@pytest.mark.parametrize(
    ("logit", "threshold", "positive"),
    [(0.0, 0.5, 1), (-1e-7, 0.5, 0), (-200.0, 0.0, 1), (200.0, 1.0, 1), (9.0, 1.0, 0)],
)
def test_a_probability_equal_to_the_threshold_is_positive(logit: float, threshold: float, positive: int) -> None:
    labels, logits = arrays([(1, logit)])
    assert at_threshold(labels, sigmoid(logits), threshold).confusion.tp == positive


@given(IMAGES.filter(both_classes), st.floats(0, 1))
def test_rates_agree_with_torchmetrics(images: list[tuple[int, float]], threshold: float) -> None:
    labels, logits = arrays(images)
    result = at_threshold(labels, sigmoid(logits), threshold)
    called, target = torch.from_numpy(sigmoid(logits) >= threshold).long(), torch.from_numpy(labels)
    ours = (result.accuracy, result.precision or 0.0, result.recall, result.specificity, result.f1)
    theirs = [
        f(called, target).item()
        for f in (tm.binary_accuracy, tm.binary_precision, tm.binary_recall, tm.binary_specificity, tm.binary_f1_score)
    ]
    assert ours == pytest.approx(theirs, abs=1e-6)


@given(IMAGES, st.lists(st.floats(0, 1), min_size=1, max_size=4, unique=True))
def test_counts_add_up_and_sensitivity_never_falls_with_the_threshold(
    images: list[tuple[int, float]], thresholds: list[float]
) -> None:
    labels, logits = arrays(images)
    metrics = judge(labels, logits, sorted(thresholds, reverse=True))
    for result in (*metrics.thresholds, metrics.always_negative):
        c = result.confusion
        assert (c.tn + c.fp, c.fn + c.tp) == (metrics.negatives, metrics.positives)
    assert metrics.negatives + metrics.positives == metrics.n == len(images)
    for higher, lower in pairwise(r.confusion for r in metrics.thresholds):
        assert lower.tp >= higher.tp
        assert lower.tn <= higher.tn


@given(IMAGES)
def test_every_interval_holds_its_figure(images: list[tuple[int, float]]) -> None:
    metrics = judge(*arrays(images), (0.5, 0.25))
    if metrics.auroc_interval is not None and metrics.auroc is not None:
        assert 0 < metrics.auroc_interval[0] < metrics.auroc < metrics.auroc_interval[1] < 1
    for result in (*metrics.thresholds, metrics.always_negative):
        values = asdict(result)
        for name in ("accuracy", "precision", "recall", "specificity"):
            value, interval = values[name], values[f"{name}_interval"]
            assert (value is None) == (interval is None)
            assert value is None or 0 <= interval[0] <= value <= interval[1] <= 1


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),  # Newcombe 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(part: int, whole: int, low: float, high: float) -> None:
    assert wilson_interval(part, whole) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_are_where_the_score_test_just_rejects(count: tuple[int, int]) -> None:
    part, whole = count
    for end in wilson_interval(part, whole):
        distance = abs(part / whole - end)
        assert distance == pytest.approx(Z * math.sqrt(end * (1 - end) / whole), abs=1e-9)


def delong_variance_by_pairs(labels: Labels, logits: Logits) -> float:
    """Variance from the table of all pairs, as in the paper's equations, in plain loops."""
    positive, negative = logits[labels == 1], logits[labels == 0]
    wins = [[1.0 if p > n else 0.5 if p == n else 0.0 for n in negative] for p in positive]
    area = sum(map(sum, wins)) / (len(positive) * len(negative))
    rows = [sum(row) / len(negative) for row in wins]
    columns = [sum(column) / len(positive) for column in zip(*wins, strict=True)]

    def spread(values: list[float]) -> float:
        return sum((v - area) ** 2 for v in values) / (len(values) - 1) / len(values)

    return spread(rows) + spread(columns)


@pytest.mark.parametrize(
    ("seed", "positives", "negatives", "apart"), [(1, 20, 30, 1.0), (2, 5, 60, 0.3), (3, 40, 7, 2.0)]
)
def test_delong_interval_from_all_pairs(seed: int, positives: int, negatives: int, apart: float) -> None:
    labels, logits = drawn(seed, positives, negatives, apart)
    logits = np.round(logits, 1)  # ties
    area, error = mann_whitney(labels, logits), math.sqrt(delong_variance_by_pairs(labels, logits))
    middle, half = math.log(area / (1 - area)), Z * error / (area * (1 - area))
    expected = [1 / (1 + math.exp(-end)) for end in (middle - half, middle + half)]
    assert delong_interval(labels, logits) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("apart", [0.5, 1.5, 2.5])
def test_delong_interval_covers_the_truth_as_often_as_it_says(apart: float) -> None:
    truth = NormalDist().cdf(apart / math.sqrt(2))
    intervals = [delong_interval(*drawn(seed, 40, 80, apart)) for seed in range(400)]
    covered = [interval[0] <= truth <= interval[1] for interval in intervals if interval is not None]
    assert len(covered) > 390
    assert 0.92 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize(
    "images",
    [
        [(1, 1.0), (0, 0.0), (0, 2.0)],  # one positive
        [(1, 1.0), (1, 2.0), (0, 1.5)],  # one negative
        [(1, 1.0), (1, 2.0), (0, 0.0), (0, -1.0)],  # separated
        [(1, 0.0), (1, 0.0), (0, 0.0), (0, 0.0)],  # all the same
    ],
)
def test_an_interval_that_would_claim_certainty_is_none_with_a_note(images: list[tuple[int, float]]) -> None:
    metrics = judge(*arrays(images), (0.0,))
    assert metrics.auroc is not None
    assert metrics.auroc_interval is None
    assert any("no DeLong interval" in note for note in metrics.notes)


@pytest.mark.parametrize(("label", "kind"), [(0, "negative"), (1, "positive")])
def test_one_class_has_rates_but_no_auroc(label: int, kind: str) -> None:
    metrics = judge(*arrays([(label, 1.0), (label, 2.0)]), (0.5,))
    assert (metrics.auroc, metrics.auroc_interval, metrics.average_precision) == (None, None, None)
    assert metrics.notes[0].startswith(f"All 2 images are labelled {kind}")
    assert metrics.thresholds[0].accuracy == label


def test_a_precision_without_a_value_is_noted() -> None:
    metrics = judge(*arrays([(0, -9.0), (1, 0.0), (0, -8.0), (1, -8.5)]), (0.9, 0.5))
    assert [note for note in metrics.notes if "precision" in note] == [
        "At threshold 0.9 no image is called positive: the precision has no value."
    ]


def test_always_negative_is_right_about_every_negative() -> None:
    metrics = judge(*arrays([(1, 9.0), (0, 9.0), (0, 9.0), (0, 9.0)]), (0.5,))
    baseline = metrics.always_negative
    assert baseline.confusion == Confusion(tn=3, fp=0, fn=1, tp=0)
    assert (baseline.threshold, baseline.accuracy, baseline.recall, baseline.specificity) == (None, 0.75, 0.0, 1.0)
    assert (baseline.precision, baseline.f1) == (None, 0.0)


def counted(threshold: float, tn: int, fp: int, fn: int, tp: int) -> Metrics:
    """Predictions with exactly these counts at this threshold."""
    labels = np.repeat([0, 0, 1, 1], [tn, fp, fn, tp])
    return judge(labels, np.repeat(np.array([-99, 99, -99, 99], np.float32), [tn, fp, fn, tp]), (threshold,))


SENTENCES = [
    # (tn, fp, fn, tp) at 0.5 and at 0.25, what was gained, what was paid
    (
        ((110, 10, 16, 24), (90, 30, 4, 36)),
        "found 12 more of 40 positives (sensitivity 0.60 → 0.90)",
        " at the cost of 20 more false alarms among 120 negatives (specificity 0.92 → 0.75).",
    ),
    (((5, 1, 2, 3), (5, 1, 2, 3)), "changed nothing: no image has a probability between the two.", ""),
    (
        ((5, 0, 2, 2), (5, 0, 1, 3)),
        "found 1 more of 4 positives (sensitivity 0.50 → 0.75)",
        " without one more false alarm among 5 negatives (specificity stays at 1.00).",
    ),
    (
        ((5, 0, 0, 1), (4, 1, 0, 1)),
        "found no more of 1 positive (sensitivity stays at 1.00)",
        " at the cost of 1 more false alarm among 5 negatives (specificity 1.00 → 0.80).",
    ),
    (
        ((4, 0, 0, 0), (2, 2, 0, 0)),
        "could find nothing, for there are no positives,",
        " at the cost of 2 more false alarms among 4 negatives (specificity 1.00 → 0.50).",
    ),
    (
        ((0, 0, 3, 1), (0, 0, 2, 2)),
        "found 1 more of 4 positives (sensitivity 0.25 → 0.50)",
        "; there are no negatives that could have been false alarms.",
    ),
    (
        ((999, 1, 1, 1), (998, 2, 0, 2)),
        "found 1 more of 2 positives (sensitivity 0.50 → 1.00)",
        " at the cost of 1 more false alarm among 1000 negatives (specificity 0.999 → 0.998).",
    ),
]


@pytest.mark.parametrize(("counts", "gained", "paid"), SENTENCES)
def test_the_sentence_about_a_lower_threshold(
    counts: tuple[tuple[int, int, int, int], tuple[int, int, int, int]], gained: str, paid: str
) -> None:
    higher, lower = (counted(t, *c).thresholds[0] for t, c in zip((0.5, 0.25), counts, strict=True))
    assert tradeoff(higher, lower) == f"Lowering the threshold from 0.5 to 0.25 {gained}{paid}"


def test_one_sentence_for_each_step_down_whatever_the_order() -> None:
    results = [counted(t, 3, 1, 1, 3).thresholds[0] for t in (0.25, 0.75, 0.5)]
    starts = [s.split(" changed")[0] for s in tradeoffs(results)]
    assert starts == ["Lowering the threshold from 0.75 to 0.5", "Lowering the threshold from 0.5 to 0.25"]
    assert tradeoffs(results[:1]) == ()


def area_under(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


@given(IMAGES.filter(both_classes))
def test_the_drawn_curves_hold_the_areas(images: list[tuple[int, float]]) -> None:
    labels, logits = arrays(images)
    roc, steps = roc_curve(labels, logits), precision_recall_curve(labels, logits)
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert area_under(roc.x, roc.y) == pytest.approx(mann_whitney(labels, logits), abs=1e-6)
    assert (np.diff(steps.x) >= 0).all()
    area = float((np.diff(steps.x, prepend=0.0) * steps.y).sum())
    assert area == pytest.approx(average_precision_by_hand(labels, logits), abs=1e-6)


def test_metrics_survive_json() -> None:
    metrics = judge(*arrays([(0, -1.0), (1, 1.0), (1, -2.0), (0, 0.5)]), (0.5, 0.25))
    text = json.dumps(asdict(metrics), allow_nan=False)
    assert json.loads(text)["thresholds"][0]["confusion"] == {"tn": 1, "fp": 1, "fn": 1, "tp": 1}


def test_arrays_that_may_not_be_written_are_judged_without_a_warning() -> None:
    labels, logits = arrays([(0, -1.0), (1, 1.0), (1, -2.0), (0, 0.5)])
    labels.flags.writeable = logits.flags.writeable = False
    torch.set_warn_always(True)
    try:
        assert judge(labels, logits, (0.5,)).n == 4
        roc_curve(labels, logits)
        precision_recall_curve(labels, logits)
    finally:
        torch.set_warn_always(False)


@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        ([], [], "n >= 1"),
        ([1], [0.0, 1.0], "same shape"),
        ([2], [0.0], "0 and 1 only"),
        ([1], [math.nan], "finite"),
        ([1], [math.inf], "finite"),
    ],
)
def test_arrays_that_cannot_be_judged(labels: list[int], logits: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge(np.array(labels, dtype=np.int64), np.array(logits, dtype=np.float32), (0.5,))
