"""What is shown of a judged run on a terminal of 80 columns."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pneumo_fast.cli import results
from pneumo_fast.evaluation.compute import judge
from pneumo_fast.evaluation.options import EvaluateConfig
from tests.support.judged import drawn, rows_of


def test_predictive_values_at_the_stated_prevalence_fit_the_table(
    run_cli: Callable[..., Any], reference_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.StringIO()
    monkeypatch.setattr(results, "out", Console(file=file, width=80, color_system=None))
    run = shutil.copytree(reference_run, tmp_path / "run")
    run_cli("evaluate", run, "--prevalence", "0.1", "--resamples", "100", "--device", "cpu")
    table = file.getvalue().split("At each threshold")[1].split("Chosen on")[0].splitlines()
    rows = [line.split() for line in table if " where " in line]
    assert [row[:3] for row in rows] == [["PPV", "where", "10%"], ["NPV", "where", "10%"]]
    assert rows[1][-1] == "0.900"  # always negative
    assert any("(" in line for line in table)
    assert all(line.count("(") == line.count(")") for line in table)


def test_a_subgroup_has_figures_and_marks_as_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(results, "out", Console(file=file, width=80, color_system=None))
    sample = drawn(0, 12, 20, 1.5)
    rows = rows_of(sample)
    rows["sex"] = ["F"] + ["M"] * 31
    rows["class"] = ["Lung Opacity" if label else "Normal" for label in sample.labels]
    results._show_subgroups(judge(sample, rows, EvaluateConfig(resamples=100)))
    lines = {line.strip().split("   ")[0]: line for line in file.getvalue().splitlines()}
    assert "too few of a class" in lines["sex: F *"]
    assert "0." in lines["sex: M"]
    assert "0." in lines["class: Lung Opacity *"]
    assert "* This subgroup holds one class only" in file.getvalue()
    assert all(line.count("(") == line.count(")") for line in lines.values())


def test_probabilities_before_and_after_calibration_fit_80_columns(
    run_cli: Callable[..., Any], reference_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.StringIO()
    monkeypatch.setattr(results, "out", Console(file=file, width=80, color_system=None))
    run = shutil.copytree(reference_run, tmp_path / "run")
    run_cli("evaluate", run, "--resamples", "100", "--device", "cpu")
    table = file.getvalue().split("Quality of the probability")[1].split("Lowering")[0].splitlines()
    (brier,) = (line for line in table if line.startswith(" Brier"))
    assert brier.count("(") == brier.count(")") == 3
