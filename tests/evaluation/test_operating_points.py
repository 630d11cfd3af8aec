"""Operating points: halves by patient, and a file that gives back what was fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pneumo_fast.evaluation.operating_points import fit, halve, load, save
from pneumo_fast.evaluation.options import EvaluateConfig
from tests.support.judged import drawn, rows_of, sample_of


def test_no_patient_is_in_both_halves_and_each_has_its_share_of_positives() -> None:
    sample = drawn(0, 40, 120, 1.0)
    rows = rows_of(sample, group=[f"p{i // 2}" for i in range(160)])
    chosen = halve(rows, 0)
    assert chosen is not None
    assert not set(rows["group"][chosen]) & set(rows["group"][~chosen])
    assert (chosen.sum(), sample.labels[chosen].sum()) == (80, 20)
    assert np.array_equal(np.asarray(halve(rows, 0)), chosen)
    other = halve(rows, 1)
    assert other is not None
    assert not np.array_equal(other, chosen)


def test_a_single_patient_cannot_be_halved() -> None:
    sample = drawn(0, 2, 2, 1.0)
    assert halve(rows_of(sample, group=["p"] * 4), 0) is None


def test_what_was_fitted_comes_back_for_its_checkpoint_alone(tmp_path: Path) -> None:
    operating = fit(drawn(0, 40, 60, 1.0), 2.0, EvaluateConfig(cost_ratio=2.0), "abc", "there")
    assert operating is not None
    assert len(operating.thresholds) == 4
    assert load(tmp_path, "abc") is None
    save(tmp_path, operating)
    assert load(tmp_path, "abc") == operating
    assert load(tmp_path, "abd") is None


def test_nothing_is_fitted_on_one_class() -> None:
    assert fit(sample_of([(1, 0.0), (1, 1.0)]), 1.0, EvaluateConfig(), "", "") is None


@pytest.mark.parametrize("targets", [(0.8, 0.9), (1.0, 1.0)])
def test_targets_are_those_asked_for(targets: tuple[float, float]) -> None:
    sample = drawn(1, 50, 50, 2.0)
    config = EvaluateConfig(target_sensitivity=targets[0], target_specificity=targets[1])
    operating = fit(sample, 1.0, config, "", "")
    assert operating is not None
    found = {c.name: c.threshold for c in operating.thresholds}
    called = sample.probabilities >= found[f"sensitivity at least {targets[0]:g}"]
    assert called[sample.labels == 1].mean() >= targets[0]
    called = sample.probabilities >= found[f"specificity at least {targets[1]:g}"]
    assert (~called)[sample.labels == 0].mean() >= targets[1]
    assert np.isfinite(list(found.values())).all()
