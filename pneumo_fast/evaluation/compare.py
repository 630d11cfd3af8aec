"""Compares two runs on the same images: which ranks, calls and estimates better, and whether that may be chance."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo_fast.errors import RunError
from pneumo_fast.evaluation.inference import open_run
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.evaluation.results import Evaluation
from pneumo_fast.files import write_atomic
from pneumo_fast.metrics import intervals
from pneumo_fast.metrics.catalogue import BRIER, RANKING, SENSITIVITY, SPECIFICITY
from pneumo_fast.metrics.delong import delong_test
from pneumo_fast.metrics.intervals import Bootstrap, Estimate, Groups, Labels, Values
from pneumo_fast.metrics.ranking import resampled
from pneumo_fast.metrics.scored import call_positive
from pneumo_fast.records import path_text
from pneumo_fast.run.folder import writing
from pneumo_fast.run.layout import COMPARISON, COMPARISON_FORMAT, COMPARISON_VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One figure of both runs."""

    name: str
    a: float | None
    """The first run's; None where the images do not define it."""
    b: float | None
    """The second run's."""
    difference: Estimate
    """b - a, with the interval of the paired bootstrap by patient."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two runs on the same images."""

    a: str
    """Name of the first run's folder."""
    b: str
    n: int
    """Images."""
    differences: tuple[Difference, ...]
    delong_p: float | None
    """Two-sided probability of so large a difference of the AUROCs by chance, by DeLong's test, which counts images as
    independent; None where it is not defined."""
    text: str
    """What to conclude, in a sentence."""
    path: Path
    """Where it is written."""


def compare(a: Evaluation, b: Evaluation, *, resamples: int, seed: int) -> Comparison:
    """Compare two evaluations and write ``comparison.json`` into the second's folder.

    Parameters
    ----------
    a, b : Evaluation
        Of the same images.
    resamples : int
        Resamples of the paired bootstrap, at least 100.
    seed : int
        Chooses the resamples.

    Raises
    ------
    RunError
        If they are not of the same images, or the file cannot be written.
    """
    _check_same(a, b)
    labels, groups, bootstrap = a.predictions.labels, a.predictions.groups, Bootstrap(resamples=resamples, seed=seed)
    differences = [*_ranking(a, b, bootstrap), *_means(a, b, labels, groups, bootstrap)]
    p = delong_test(labels, a.predictions.logits, b.predictions.logits)
    names = [path_text(Path(each.options.run.resolve().name)) for each in (a, b)]
    comparison = Comparison(
        a=names[0],
        b=names[1] if names[1] != names[0] else f"{names[1]} (2)",
        n=len(labels),
        differences=tuple(differences),
        delong_p=p,
        text=_conclude(differences[0].difference, p),
        path=b.folder / COMPARISON,
    )
    content = {"format": COMPARISON_FORMAT, "format_version": COMPARISON_VERSION, **asdict(comparison)}
    del content["path"]
    with writing(comparison.path):
        write_atomic(comparison.path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return comparison


def check_comparable(a: EvaluateConfig, b: EvaluateConfig) -> None:
    """Open two runs and their images, and compare these, before anything is evaluated or written.

    Raises
    ------
    RunError
        If a run is missing or damaged, or they would be judged on different images.
    DatasetError
        If a dataset is missing or damaged or has no image in the split.
    """
    one, other = (open_run(config.run, config.dataset, "cpu").rows(config.split) for config in (a, b))
    _refuse_different((a.run, _images(one)), (b.run, _images(other)))


def _images(rows: pd.DataFrame) -> list[tuple[str, int]]:
    return list(zip(rows["image_id"], rows["label"].tolist(), strict=True))


def _check_same(a: Evaluation, b: Evaluation) -> None:
    one, other = (list(zip(e.predictions.image_ids, e.predictions.labels.tolist(), strict=True)) for e in (a, b))
    _refuse_different((a.options.run, one), (b.options.run, other))


def _refuse_different(a: tuple[Path, list[tuple[str, int]]], b: tuple[Path, list[tuple[str, int]]]) -> None:
    """Refuse two runs whose images, by id and label, are not the same."""
    if a[1] != b[1]:
        raise RunError(
            f"{a[0]} and {b[0]} are evaluated on different images ({len(a[1])} and {len(b[1])}): name one dataset by "
            "--dataset, and compare runs of one fold"
        )


def _ranking(a: Evaluation, b: Evaluation, bootstrap: Bootstrap) -> list[Difference]:
    one, other = a.figures.ranking, b.figures.ranking
    labels, groups = a.predictions.labels, a.predictions.groups
    again = [resampled(labels, e.predictions.logits, groups, bootstrap) for e in (a, b)]
    return [
        _difference(metric.label, getattr(one, metric.key).value, getattr(other, metric.key).value, values)
        for metric, values in zip(RANKING, (again[1] - again[0]).T, strict=True)
    ]


def _means(a: Evaluation, b: Evaluation, labels: Labels, groups: Groups, bootstrap: Bootstrap) -> list[Difference]:
    """Differences of means over all images, the positives or the negatives."""
    found = []
    positive = labels == 1
    everyone = np.ones_like(positive)
    stated = a.predictions.probabilities, b.predictions.probabilities
    rows = [(BRIER.label, everyone, (stated[0] - labels) ** 2, (stated[1] - labels) ** 2)]
    for result in a.figures.thresholds:
        at = result.threshold
        calls = [call_positive(p, at).astype(np.float64) for p in stated]
        rows += [
            (f"{SENSITIVITY.label} at {at}", positive, calls[0], calls[1]),
            (f"{SPECIFICITY.label} at {at}", ~positive, 1 - calls[0], 1 - calls[1]),
        ]
    for name, whole, one, other in rows:
        first, second = (float(v[whole].mean()) if whole.any() else None for v in (one, other))
        sums = bootstrap.sums(groups, np.stack([whole, whole * (other - one)], axis=1).astype(np.float64))
        with np.errstate(invalid="ignore"):
            found.append(_difference(name, first, second, sums[:, 1] / sums[:, 0]))
    return found


def _difference(name: str, a: float | None, b: float | None, replicates: Values) -> Difference:
    apart = math.nan if a is None or b is None else b - a
    return Difference(
        name=name, a=a, b=b, difference=intervals.estimate(apart, intervals.percentile_interval(replicates))
    )


def _conclude(auroc: Estimate, p: float | None) -> str:
    if auroc.value is None:
        return "The AUROCs cannot be compared: the images are all of one class."
    test = "" if p is None else f" (DeLong's test, by image: p = {p:.2g})"
    if auroc.low is None or auroc.high is None:
        return f"The AUROCs differ by {auroc.value:+.3f}, without an interval{test}."
    if auroc.low <= 0 <= auroc.high:
        return f"The interval of the AUROC difference includes 0: it may be chance{test}."
    return f"The interval of the AUROC difference excludes 0{test}."
