"""Figures by sex, age, view position and class, and what the view position alone would score.

A subgroup is judged by its own images and patients. Where it holds one class only, as RSNA's classes do, its AUROC is
that of its images against all images of the other class: how well the model tells just these from the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast.metrics.intervals import Bootstrap, Estimate, estimate, percentile_interval
from pneumo_fast.metrics.ranking import auroc, rank, resampled
from pneumo_fast.metrics.scored import Sample
from pneumo_fast.metrics.thresholds import at_threshold

AGES: Final = (0, 18, 40, 60, 80)
"""Years at which an age band begins."""
COLUMNS: Final = ("sex", "age", "view", "class")
ONE_CLASS: Final = "This subgroup holds one class only: its images are ranked against all of the other class."
"""What is said of those that are ``against_all``."""
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subgroup:
    """The ``n`` images, at least one, with one value of one column; both rates are at the first threshold."""

    column: str
    """One of :data:`COLUMNS`."""
    value: str
    """The value, a band of ages, or ``unknown``."""
    n: int
    positives: int
    prevalence: Estimate
    """Share of positives, in [0, 1]."""
    auroc: Estimate
    against_all: bool
    """Whether its AUROC is against all images of the class that it does not have."""
    sensitivity: Estimate
    specificity: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewOnly:
    """What the view position alone scores: each image gets the share of positives that its view had in training."""

    auroc: Estimate
    rates: dict[str, float]
    """Share of positives in the train split, in [0, 1], by view; ``""`` is an unknown view."""
    difference: Estimate | None = None
    """The model's AUROC minus this one, resampled together; None in a file of an earlier release."""


def judge_subgroups(sample: Sample, rows: pd.DataFrame, threshold: float, bootstrap: Bootstrap) -> tuple[Subgroup, ...]:
    """Judge every subgroup of the columns that are known of at least one image.

    Parameters
    ----------
    rows : DataFrame
        The sample's n rows of the index, in its order: the columns :data:`COLUMNS`, text.
    threshold : float
        Probability in [0, 1] from which an image is called positive.
    """
    found = []
    for column in COLUMNS:
        values = bands(rows[column]) if column == "age" else rows[column].replace("", UNKNOWN)
        if (values == UNKNOWN).all():
            continue
        names = sorted(set(values) - {UNKNOWN}) + [UNKNOWN] * bool((values == UNKNOWN).any())
        for name in names:
            inside = (values == name).to_numpy()
            found.append(_judge(sample, inside, column, name, threshold, bootstrap))
    return tuple(found)


def bands(ages: pd.Series[str]) -> pd.Series[str]:
    """Bands such as ``18-39`` and ``80+`` for ages in years (text; ``""`` is unknown), one per age."""
    names = [f"{low}-{high - 1}" for low, high in pairwise(AGES)] + [f"{AGES[-1]}+"]
    years = pd.to_numeric(ages, errors="coerce")
    place = np.searchsorted(AGES, years.fillna(0), side="right") - 1
    return pd.Series([names[p] if known else UNKNOWN for p, known in zip(place, years.notna(), strict=True)], dtype=str)


def _judge(
    sample: Sample, inside: NDArray[np.bool_], column: str, value: str, threshold: float, bootstrap: Bootstrap
) -> Subgroup:
    own = sample.take(inside)
    against_all = not own.two_classes and sample.two_classes
    missing = 1 - own.labels[0]
    ranked = sample.take(inside | (sample.labels == missing)) if against_all else own
    at = at_threshold(own, threshold, bootstrap)
    counts = bootstrap.sums(own.groups, np.stack([own.labels, np.ones(own.n)], axis=1).astype(np.float64))
    return Subgroup(
        column=column,
        value=value,
        n=own.n,
        positives=own.positives,
        prevalence=estimate(own.positives / own.n, percentile_interval(counts[:, 0] / counts[:, 1])),
        auroc=rank(ranked, bootstrap, levels=()).auroc,
        against_all=against_all,
        sensitivity=at.recall,
        specificity=at.specificity,
    )


def judge_view(sample: Sample, rows: pd.DataFrame, train: pd.DataFrame, bootstrap: Bootstrap) -> ViewOnly | None:
    """Judge the view position as if it were a model; None where one view or one class is all there is.

    Parameters
    ----------
    rows, train : DataFrame
        Columns ``view`` and ``label``: of the sample, and of the images to learn the shares from.
    """
    if train["view"].nunique() < 2 or not sample.two_classes:
        return None
    rates = train.groupby("view")["label"].mean()
    scores = rows["view"].map(rates).fillna(train["label"].mean()).to_numpy(dtype=np.float64)
    if len(np.unique(scores)) < 2:
        return None
    as_model = Sample(labels=sample.labels, logits=scores, groups=sample.groups)
    own, other = (resampled(each.labels, each.logits, each.groups, bootstrap)[:, 0] for each in (sample, as_model))
    apart = auroc(sample.labels, sample.logits) - auroc(sample.labels, scores)
    return ViewOnly(
        auroc=estimate(auroc(sample.labels, scores), percentile_interval(other)),
        rates={str(k): float(v) for k, v in rates.items()},
        difference=estimate(apart, percentile_interval(own - other)),
    )
