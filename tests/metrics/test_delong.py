"""DeLong's test, by all pairs."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from pneumo_fast.metrics.delong import delong_test
from tests.support.judged import pair


def test_delong_p_from_the_table_of_all_pairs() -> None:
    sample, other = pair(3, 1.6)
    labels = sample.labels
    tables = [np.sign(s[labels == 1][:, None] - s[labels == 0][None]) / 2 + 0.5 for s in (sample.logits, other)]
    difference = tables[1] - tables[0]
    variance = difference.mean(axis=1).var(ddof=1) / 60 + difference.mean(axis=0).var(ddof=1) / 90
    expected = 2 * NormalDist().cdf(-abs(difference.mean()) / math.sqrt(variance))
    assert 1e-6 < expected < 0.2
    assert delong_test(labels, sample.logits, other) == pytest.approx(expected)


def test_delong_rejects_as_often_as_it_says_where_nothing_differs() -> None:
    values = [delong_test(sample.labels, sample.logits, other) for sample, other in (pair(s, 1.0) for s in range(400))]
    rejected = np.mean([p is not None and p < 0.05 for p in values])
    assert 0.025 <= rejected <= 0.08


@pytest.mark.parametrize(("labels", "same"), [([1, 0, 0, 1], True), ([1, 0, 0, 0], False)])
def test_delong_is_undefined_without_variance(labels: list[int], same: bool) -> None:
    a = np.array([0.1, 0.5, 0.3, 0.9])
    assert delong_test(np.array(labels), a, a if same else a[::-1]) is None
