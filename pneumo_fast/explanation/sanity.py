"""A sanity check of maps: with random weights they have to change (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pneumo_fast.explanation.pointing import Map, mean_estimate, rate_estimate
from pneumo_fast.metrics.intervals import Estimate, Groups


@dataclass(frozen=True, kw_only=True, slots=True)
class Randomised:
    """Maps of the trained network beside those of the same network with random weights."""

    images: int
    """Images compared."""
    rank_correlation: Estimate
    """Mean over images of Spearman's correlation of both maps, in [-1, 1]; near 1 the maps would show the image rather
    than what was learnt."""
    hit_rate: Estimate | None
    """The random network's hit rate in the pointing game; None without boxes."""
    text: str
    """What that means, in a sentence."""


def compare_with_random(
    own: list[Map], other: list[Map], hits: list[bool] | None, groups: Groups, *, resamples: int, seed: int
) -> Randomised:
    """Compare maps of the same images by two networks.

    Parameters
    ----------
    own, other : list of ndarray of float32, shape (h, w)
        Of the trained and of the random network.
    hits : list of bool, optional
        Whether each map of the random network hit a box.
    """
    correlations = np.array([rank_correlation(a, b) for a, b in zip(own, other, strict=True)])
    defined = np.isfinite(correlations)
    found = mean_estimate(correlations[defined].tolist(), groups[defined], resamples=resamples, seed=seed)
    return Randomised(
        images=len(own),
        rank_correlation=found,
        hit_rate=None if hits is None else rate_estimate(hits, groups, resamples=resamples, seed=seed),
        text=_conclude(found, int(defined.sum())),
    )


def rank_correlation(a: Map, b: Map) -> float:
    """Spearman's correlation of two maps, place by place; not a number where one is even."""
    ranks = [pd.Series(m.ravel()).rank().to_numpy() for m in (a, b)]
    if any(r.std() == 0 for r in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _conclude(correlation: Estimate, n: int) -> str:
    if correlation.value is None:
        return "The maps are constant: the comparison with random weights is undefined."
    changed = f"With random weights the maps' rank correlation with the trained model's is {correlation.value:.2f}"
    on = "on the trained weights" if correlation.value < 0.5 else "on the image more than on the weights"
    return f"{changed} (mean of {n} images; 1 would be no change): the maps depend {on}."
