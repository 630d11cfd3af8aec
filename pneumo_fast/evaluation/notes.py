"""What has to be said beside the figures, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pneumo_fast.dataset.leaks import Overlap
from pneumo_fast.evaluation.inference import Judged
from pneumo_fast.evaluation.operating_points import Operating
from pneumo_fast.evaluation.results import Intervals
from pneumo_fast.evaluation.verdict import optimism
from pneumo_fast.metrics.calibration import COLDEST, HOTTEST, Calibration
from pneumo_fast.metrics.catalogue import AUROC
from pneumo_fast.metrics.folds import FoldFigures
from pneumo_fast.metrics.ranking import Ranking
from pneumo_fast.metrics.scored import Sample
from pneumo_fast.metrics.summary import Figures
from pneumo_fast.metrics.thresholds import AtThreshold, Confusion
from pneumo_fast.vocabulary import counted

NO_INTERVAL = (
    "The AUROC has no interval: the classes are separated completely, every score is the same, or too many resamples "
    "hold one class only."
)
NO_VIEW_BASELINE = "The baseline of the view position alone is left out: it learns from the run's own training images."


def notes_of(
    judged: Judged,
    split: str,
    sample: Sample,
    figures: Figures,
    intervals: Intervals,
    overlap: Overlap | None,
    operating: Operating | None,
    *,
    unread: int,
) -> Iterator[str]:
    """All that has to be said beside the figures of an evaluation, in its order.

    Parameters
    ----------
    unread : int
        Images of the split that could not be read.
    """
    if figures.folds:
        yield from fold_notes(judged.checkpoint.monitor, figures.ranking, figures.folds)
    elif not (judged.trained_on and split == "test" and overlap):
        has_test = bool((judged.dataset.index["split"] == "test").any())
        yield origin_note(split, judged.checkpoint.monitor, trained_on=judged.trained_on, has_test=has_test)
    if judged.averages(split):
        yield mean_note(len(judged.models))
    if unread:
        yield unread_note(unread)
    if overlap:
        yield overlap.note
    if not judged.trained_on:
        yield NO_VIEW_BASELINE
    yield interval_note(intervals.groups, intervals.images_without_group, sample.n)
    if judged.trained_on:
        yield from limit_notes(judged.checkpoint.settings)
    yield from rank_notes(sample, figures.ranking)
    yield from threshold_notes(figures.thresholds)
    if operating:
        yield from calibration_notes(operating.calibration)


def tradeoffs(results: Sequence[AtThreshold]) -> tuple[str, ...]:
    """One sentence for each step from a threshold to the next lower one."""
    ordered = sorted(results, key=lambda result: -result.threshold)
    return tuple(tradeoff(higher, lower) for higher, lower in pairwise(ordered))


def tradeoff(higher: AtThreshold, lower: AtThreshold) -> str:
    """Say in a sentence what lowering the threshold gained and what it cost.

    Parameters
    ----------
    higher, lower : AtThreshold
        The same images at a threshold and at a lower one.
    """
    step = f"Lowering the threshold from {higher.threshold} to {lower.threshold}"
    if higher.confusion == lower.confusion:
        return f"{step} changed nothing: no image has a probability between the two."
    pair = higher.confusion, lower.confusion
    return f"{step} {_more_true_positives(*pair)}{_more_false_positives(*pair)}."


def _more_true_positives(higher: Confusion, lower: Confusion) -> str:
    positives, gain = lower.tp + lower.fn, lower.tp - higher.tp
    if not positives:
        return "changes no sensitivity, since there are no positives,"
    change = _change("sensitivity", higher.tp / positives, lower.tp / positives)
    return f"found {gain or 'no'} more of {counted(positives, 'positive')} ({change})"


def _more_false_positives(higher: Confusion, lower: Confusion) -> str:
    negatives, cost = lower.tn + lower.fp, lower.fp - higher.fp
    if not negatives:
        return "; there are no negatives, so no false positives"
    change = _change("specificity", higher.tn / negatives, lower.tn / negatives)
    price = f"at the cost of {counted(cost, 'more false positive')}" if cost else "without another false positive"
    return f" {price} among {counted(negatives, 'negative')} ({change})"


def _change(name: str, before: float, after: float) -> str:
    """Both shares with two decimals, or as many more as it takes to tell them apart."""
    if before == after:
        return f"{name} stays at {after:.2f}"
    digits = next((d for d in range(2, 9) if f"{before:.{d}f}" != f"{after:.{d}f}"), 9)
    return f"{name} {before:.{digits}f} → {after:.{digits}f}"


def origin_note(split: str, monitor: str, *, trained_on: bool, has_test: bool) -> str:
    """Say what the figures are worth, seen from where the images come from."""
    if not trained_on:
        return (
            "This is not the run's training dataset; its images are normalized with the run's mean and standard "
            "deviation."
        )
    optimistic = optimism(split, out_of_fold=False, monitor=monitor)
    if split == "val":
        unbiased = "evaluate --split test" if has_test else "a test split (convert --test-fraction)"
        return f"{optimistic} To avoid that, use {unbiased}."
    return optimistic or f"Split {split!r} was not used for training or for selecting the checkpoint."


def mean_note(models: int) -> str:
    """Say what several models' logits became."""
    return (
        f"Each logit is the mean over the models of {models} folds. No threshold was chosen and nothing calibrated, "
        "since what fits a single model does not fit their mean."
    )


def unread_note(images: int) -> str:
    """Say how many images of the split are not evaluated."""
    files = "file of 1 image" if images == 1 else f"files of {images:,} images"
    return f"The source {files} of the split can no longer be read; the others were evaluated."


def fold_notes(monitor: str, ranking: Ranking, folds: Sequence[FoldFigures]) -> tuple[str, ...]:
    """Say what pooled predictions of a cross-validation are worth.

    Parameters
    ----------
    ranking : Ranking
        Of the pooled predictions.
    """
    pooled = (
        f"The out-of-fold predictions of {len(folds)} folds are pooled: each image is evaluated by the model of the "
        "fold that was not trained on it."
    )
    selected = optimism("val", out_of_fold=True, monitor=monitor)
    scales = (
        f"Logits are pooled as they are. Where the folds' models do not score alike, the pooled {AUROC.label} can be "
        "below the mean of the folds."
    )
    by_fold = [fold.auroc.value for fold in folds if fold.auroc.value is not None]
    if ranking.auroc.value is not None and ranking.auroc.value < min(by_fold, default=0.0):
        scales = (
            f"The folds' models do not score alike: the pooled {AUROC.label} is below that of every fold, because "
            "logits are pooled as they are. The figures by fold tell more."
        )
    spread = (
        "The intervals hold for these models on other patients; the spread over the folds shows part of the variation "
        "between trainings."
    )
    return pooled, selected, scales, spread


def interval_note(patients: int | None, without: int, n: int) -> str:
    """Say what the intervals count as independent.

    Parameters
    ----------
    patients : int or None
        Patients that are known; None where no image's is.
    without : int
        Images whose patient is not known, of ``n``.
    """
    if patients is None:
        return (
            "The intervals are by image, since patients are not known; they are too narrow where a patient has several "
            "images."
        )
    unknown = f"; {counted(without, 'image')} without a known patient count as patients of their own" if without else ""
    return f"The intervals are by patient: {counted(n - without, 'image')} of {counted(patients, 'patient')}{unknown}."


def limit_notes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Say so where a run saw a part of its dataset and is judged on all of a split.

    Parameters
    ----------
    settings : mapping
        Of the run's checkpoint.
    """
    if not (limit := settings.get("limit-images")):
        return ()
    return (f"The run used at most {limit} images of each split (--limit-images); the whole split is evaluated here.",)


def rank_notes(sample: Sample, ranking: Ranking) -> tuple[str, ...]:
    """Say why a ranking figure or its interval has no value."""
    if not sample.two_classes:
        kind = "positive" if sample.positives else "negative"
        return (f"All {sample.n} images are labelled {kind}: AUROC and average precision compare two classes.",)
    return () if ranking.auroc.low is not None else (NO_INTERVAL,)


def threshold_notes(results: Sequence[AtThreshold]) -> tuple[str, ...]:
    """Say at which thresholds the precision is undefined."""
    return tuple(
        f"At threshold {r.threshold} no image is called positive: the precision is undefined."
        for r in results
        if r.precision.value is None
    )


def calibration_notes(calibration: Calibration) -> tuple[str, ...]:
    """Say so where the temperature is at the end of its range."""
    if COLDEST * 1.01 < calibration.temperature < HOTTEST * 0.99:
        return ()
    note = (
        f"The temperature of the calibration is at the end of its range ({calibration.temperature:.2g}): the images "
        "that it was fitted on are separated completely, or ranked no better than by chance."
    )
    return (note,)
