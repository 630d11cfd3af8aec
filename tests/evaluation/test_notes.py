"""What is said beside the figures."""

from __future__ import annotations

import numpy as np
import pytest

from pneumo_fast.evaluation.notes import (
    calibration_notes,
    interval_note,
    limit_notes,
    origin_note,
    rank_notes,
    threshold_notes,
    tradeoff,
    tradeoffs,
)
from pneumo_fast.metrics.calibration import Calibration
from pneumo_fast.metrics.scored import Sample
from pneumo_fast.metrics.thresholds import AtThreshold, at_threshold
from tests.support.judged import FEW, figures_of, sample_of


def counted(threshold: float, tn: int, fp: int, fn: int, tp: int) -> AtThreshold:
    """Predictions with exactly these counts at this threshold."""
    labels = np.repeat([0, 0, 1, 1], [tn, fp, fn, tp])
    logits = np.repeat(np.array([-99, 99, -99, 99], np.float32), [tn, fp, fn, tp])
    return at_threshold(Sample(labels=labels, logits=logits, groups=np.arange(len(labels))), threshold, FEW)


SENTENCES = [
    # (tn, fp, fn, tp) at 0.5 and at 0.25, what was gained, what was paid
    (
        ((110, 10, 16, 24), (90, 30, 4, 36)),
        "found 12 more of 40 positives (sensitivity 0.60 → 0.90)",
        " at the cost of 20 more false positives among 120 negatives (specificity 0.92 → 0.75).",
    ),
    (((5, 1, 2, 3), (5, 1, 2, 3)), "changed nothing: no image has a probability between the two.", ""),
    (
        ((5, 0, 2, 2), (5, 0, 1, 3)),
        "found 1 more of 4 positives (sensitivity 0.50 → 0.75)",
        " without another false positive among 5 negatives (specificity stays at 1.00).",
    ),
    (
        ((5, 0, 0, 1), (4, 1, 0, 1)),
        "found no more of 1 positive (sensitivity stays at 1.00)",
        " at the cost of 1 more false positive among 5 negatives (specificity 1.00 → 0.80).",
    ),
    (
        ((4, 0, 0, 0), (2, 2, 0, 0)),
        "changes no sensitivity, since there are no positives,",
        " at the cost of 2 more false positives among 4 negatives (specificity 1.00 → 0.50).",
    ),
    (
        ((0, 0, 3, 1), (0, 0, 2, 2)),
        "found 1 more of 4 positives (sensitivity 0.25 → 0.50)",
        "; there are no negatives, so no false positives.",
    ),
    (
        ((999, 1, 1, 1), (998, 2, 0, 2)),
        "found 1 more of 2 positives (sensitivity 0.50 → 1.00)",
        " at the cost of 1 more false positive among 1,000 negatives (specificity 0.999 → 0.998).",
    ),
]


@pytest.mark.parametrize(("counts", "gained", "paid"), SENTENCES)
def test_the_sentence_about_a_lower_threshold(
    counts: tuple[tuple[int, int, int, int], tuple[int, int, int, int]], gained: str, paid: str
) -> None:
    higher, lower = (counted(t, *c) for t, c in zip((0.5, 0.25), counts, strict=True))
    assert tradeoff(higher, lower) == f"Lowering the threshold from 0.5 to 0.25 {gained}{paid}"


def test_one_sentence_for_each_step_down_whatever_the_order() -> None:
    results = [counted(t, 3, 1, 1, 3) for t in (0.25, 0.75, 0.5)]
    starts = [s.split(" changed")[0] for s in tradeoffs(results)]
    assert starts == ["Lowering the threshold from 0.75 to 0.5", "Lowering the threshold from 0.5 to 0.25"]
    assert tradeoffs(results[:1]) == ()


@pytest.mark.parametrize(
    "images",
    [
        [(1, 1.0), (0, 0.0)],  # one of each
        [(1, 1.0), (1, 2.0), (0, 0.0), (0, -1.0)],  # separated
        [(1, 0.0), (1, 0.0), (0, 0.0), (0, 0.0)],  # all the same
    ],
)
def test_an_interval_that_would_claim_certainty_is_none_with_a_note(images: list[tuple[int, float]]) -> None:
    sample = sample_of(images)
    ranking = figures_of(sample).ranking
    assert ranking.auroc.value is not None
    assert ranking.auroc.low is None
    assert rank_notes(sample, ranking)[0].startswith("The AUROC has no interval")


@pytest.mark.parametrize(("label", "kind"), [(0, "negative"), (1, "positive")])
def test_one_class_is_noted(label: int, kind: str) -> None:
    sample = sample_of([(label, 1.0), (label, 2.0)])
    assert rank_notes(sample, figures_of(sample).ranking)[0].startswith(f"All 2 images are labelled {kind}")


def test_a_precision_without_a_value_is_noted() -> None:
    figures = figures_of(sample_of([(0, -9.0), (1, 0.0), (0, -8.0), (1, -8.5)]), 0.9, 0.5)
    assert threshold_notes(figures.thresholds) == (
        "At threshold 0.9 no image is called positive: the precision is undefined.",
    )


@pytest.mark.parametrize(
    ("patients", "without", "n", "note"),
    [
        (None, 3, 3, "by image, since patients are not known; they are too narrow"),
        (3, 0, 3, "by patient: 3 images of 3 patients."),
        (
            2,
            1,
            4,
            "by patient: 3 images of 2 patients; 1 image without a known patient count as patients of their own.",
        ),
    ],
)
def test_what_intervals_count(patients: int | None, without: int, n: int, note: str) -> None:
    assert interval_note(patients, without, n).startswith(f"The intervals are {note}")


def test_the_figure_that_chose_the_checkpoint_is_named() -> None:
    assert "best average precision on split 'val'" in origin_note("val", "ap", trained_on=True, has_test=False)


@pytest.mark.parametrize(("there", "said"), [(True, "evaluate --split test."), (False, "convert --test-fraction).")])
def test_a_split_that_avoids_the_bias_is_named_as_it_is_to_be_had(*, there: bool, said: str) -> None:
    assert origin_note("val", "auroc", trained_on=True, has_test=there).endswith(said)


@pytest.mark.parametrize(("temperature", "count"), [(0.05, 1), (1.0, 0), (20.0, 1)])
def test_a_temperature_at_the_end_of_its_range_is_noted(temperature: float, count: int) -> None:
    assert len(calibration_notes(Calibration(shift=0.0, temperature=temperature))) == count


@pytest.mark.parametrize(("settings", "count"), [({}, 0), ({"limit-images": None}, 0), ({"limit-images": 500}, 1)])
def test_a_run_on_a_part_of_its_dataset_says_so(settings: dict[str, int | None], count: int) -> None:
    found = limit_notes(settings)
    assert len(found) == count
    assert all("at most 500 images of each split (--limit-images)" in note for note in found)
