"""What is shown of a judged run on a terminal of 80 columns."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pneumo_fast.cli import results


def test_predictive_values_at_the_stated_prevalence_fit_the_table(
    run_cli: Callable[..., Any], reference_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StringIO()
    monkeypatch.setattr(results, "out", Console(file=file, width=80, color_system=None))
    run = shutil.copytree(reference_run, tmp_path / "run")
    run_cli("evaluate", run, "--prevalence", "0.1", "--resamples", "100", "--device", "cpu")
    table = file.getvalue().split("At each threshold")[1].split("Chosen on")[0].splitlines()
    rows = [line.split() for line in table if " where " in line]
    assert [row[:3] for row in rows] == [["PPV", "where", "10%"], ["NPV", "where", "10%"]]
    assert rows[1][-1] == "0.900"  # always negative
    assert any("(" in line for line in table)
    assert all(line.count("(") == line.count(")") for line in table)
