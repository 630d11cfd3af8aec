"""Labels and scores for the tests of what judges a model, and second ways to compute the figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from pneumo_fast.evaluation.compute import judge
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.metrics.intervals import Bootstrap, Labels, Logits
from pneumo_fast.metrics.scored import Sample, Scores
from pneumo_fast.metrics.summary import Figures

FEW = Bootstrap(resamples=100)
LOGITS = st.floats(-40, 40, width=32)
# A few distinct values, so that ties within and between the classes are common.
TIED = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 17.0, 25.0, 31.0])
IMAGES = st.lists(st.tuples(st.integers(0, 1), st.one_of(LOGITS, TIED)), min_size=1, max_size=40)


def sample_of(images: list[tuple[int, float]], groups: list[int] | None = None) -> Sample:
    """Images as (label, logit); each of a patient of its own, unless ``groups`` says otherwise."""
    labels, logits = zip(*images, strict=True)
    return Sample(
        labels=np.array(labels, dtype=np.int64),
        logits=np.array(logits, dtype=np.float32),
        groups=np.array(range(len(images)) if groups is None else groups, dtype=np.int64),
    )


def both_classes(images: list[tuple[int, float]]) -> bool:
    return len({label for label, _ in images}) == 2


def drawn(seed: int, positives: int, negatives: int, apart: float) -> Sample:
    """Scores of two normal distributions that lie ``apart`` standard deviations from each other."""
    rng = np.random.default_rng(seed)
    logits = np.concatenate([rng.normal(apart, 1, positives), rng.normal(0, 1, negatives)])
    labels = np.repeat([1, 0], [positives, negatives])
    return Sample(labels=labels, logits=logits.astype(np.float32), groups=np.arange(positives + negatives))


def pair(seed: int, apart: float) -> tuple[Sample, Scores]:
    """A sample, and scores of a second model that see half of the same noise."""
    sample = drawn(seed, 60, 90, 1.0)
    noise = np.random.default_rng(seed + 1000).normal(size=sample.n)
    shift = 1.0 * sample.labels
    return sample, 0.8 * (sample.logits - shift) + 0.6 * noise + apart * sample.labels


def rows_of(sample: Sample, **columns: list[str]) -> pd.DataFrame:
    """Rows of an index that know nothing but the labels and the columns given."""
    unknown = {name: [""] * sample.n for name in ("group", "sex", "age", "view", "class")}
    names = [f"image {row}" for row in range(sample.n)]
    return pd.DataFrame({"image_id": names, "label": sample.labels, **(unknown | columns)})


def figures_of(sample: Sample, *thresholds: float) -> Figures:
    """All figures, with few resamples."""
    return judge(sample, rows_of(sample), EvaluateConfig(thresholds=thresholds or (0.5,), resamples=100))


def mann_whitney(labels: Labels, logits: Scores) -> float:
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
