"""What figures come to, in a sentence, and how few images are too few to say it."""

from __future__ import annotations

from typing import Final

from pneumo_fast.formatting import Notation
from pneumo_fast.metrics.catalogue import AUROC, SENSITIVITY, SPECIFICITY
from pneumo_fast.metrics.intervals import Estimate
from pneumo_fast.metrics.subgroups import Subgroup
from pneumo_fast.metrics.summary import Figures
from pneumo_fast.vocabulary import counted

FEW_IMAGES: Final = 100
FEW_OF_A_CLASS: Final = 10
"""With fewer, a single image moves sensitivity or specificity by more than 0.1."""

HARDLY_ANY: Final = 0.1
"""A sensitivity or specificity below it makes a threshold useless."""


def few_of_a_class(n: int, positives: int) -> bool:
    """Whether a class has too few images for a figure to say anything."""
    return min(positives, n - positives) < FEW_OF_A_CLASS


def too_few(figures: Figures, group: Subgroup) -> bool:
    """Whether a subgroup has too few images of a class for a figure; its own class, where it is of one only."""
    if group.against_all:
        return group.n < FEW_OF_A_CLASS or few_of_a_class(figures.n, figures.positives)
    return few_of_a_class(group.n, group.positives)


def warn_of_few(figures: Figures) -> str | None:
    """Say that there are too few images to conclude from; None where there are enough."""
    if figures.n >= FEW_IMAGES and not few_of_a_class(figures.n, figures.positives):
        return None
    return (
        f"Too few images to conclude anything: {figures.n}, of which {figures.positives} positive and "
        f"{figures.negatives} negative. Other images of the same kind could give very different figures; "
        f"at least {FEW_IMAGES} images with {FEW_OF_A_CLASS} of each class are needed."
    )


def warn_of_useless_thresholds(figures: Figures) -> str | None:
    """Say so where every fixed threshold calls hardly any positive or hardly any negative rightly; else None."""
    said = []
    for entry in figures.thresholds:
        if entry.recall.value is not None and entry.recall.value < HARDLY_ANY:
            said.append(f"at {entry.threshold:g} {SENSITIVITY.label} is below {HARDLY_ANY}")
        elif entry.specificity.value is not None and entry.specificity.value < HARDLY_ANY:
            said.append(f"at {entry.threshold:g} {SPECIFICITY.label} is below {HARDLY_ANY}")
        else:
            return None
    return f"No fixed threshold is useful: {', '.join(said)}."


def conclude(figures: Figures, notation: Notation) -> str:
    """How well the model ranks, and what it does at the first threshold, in a sentence or two."""
    auroc, view, first = figures.ranking.auroc, figures.view_only, figures.thresholds[0]
    if auroc.value is None:
        return f"The {counted(figures.n, 'image')} are of one class: how well the model ranks cannot be said."
    easy, name, above = 0.5, "chance", _apart(auroc, Estimate(value=0.5, low=0.5, high=0.5))
    if view is not None and view.auroc.value is not None and view.auroc.value > easy:
        easy, name = view.auroc.value, "the view position alone"
        above = _apart(auroc, view.auroc) if view.difference is None else view.difference  # an earlier release has none
    if above.low is None or above.high is None:
        ranks = "is not distinguishable from " + name
    elif above.low > 0:
        ranks = f"is above that of {name}"
    else:
        ranks = f"is below that of {name}" if above.high < 0 else f"is not distinguishable from that of {name}"
    return (
        f"{AUROC.label} {notation.estimate(auroc)} {ranks} ({notation.number(easy)}). At threshold "
        f"{first.threshold:g}, {SENSITIVITY.label} is {notation.estimate(first.recall, 2)} and {SPECIFICITY.label} "
        f"{notation.estimate(first.specificity, 2)}.{_by_fold(figures, notation)}"
    )


def _apart(auroc: Estimate, other: Estimate) -> Estimate:
    """How far two figures are apart at least and at most, by their intervals."""
    if auroc.low is None or auroc.high is None or other.low is None or other.high is None:
        return Estimate(value=None)
    return Estimate(value=None, low=auroc.low - other.high, high=auroc.high - other.low)


def _by_fold(figures: Figures, notation: Notation) -> str:
    """The AUROC over the folds of a cross-validation, which pooled predictions can hide."""
    spread = next((spread for spread in figures.spread if spread.key == AUROC.key), None)
    if spread is None or spread.mean is None:
        return ""
    mean, least, most = (notation.number(value) for value in (spread.mean, spread.least, spread.most))
    return f" By fold, {AUROC.label} is {least} to {most}, {mean} on average."
