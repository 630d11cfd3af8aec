"""A tiny run of the benchmark: every stage, every contender, and figures that can be read by programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.convert_stage import bilinear
from benchmarks.measure import Result, race, ratio

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--images", "40", "--runs", "1", "--size", "32", "--train-size", "32", "--batch-size", "8", "--steps", "1"]


@pytest.mark.slow
def test_a_tiny_run_measures_everything(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "throughput.py"), *TINY, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    table, _, last = done.stdout.rstrip().rpartition("\n")
    assert max(map(len, table.splitlines())) <= 80
    content = json.loads(last)
    assert content == json.loads(out.read_text())
    names = {stage["name"]: [result["name"] for result in stage["results"]] for stage in content["stages"]}
    assert list(names) == ["convert", "load", "train"]
    assert {"ceiling: libjpeg-turbo alone, in full", "reference, pydicom with pillow"} <= set(names["convert"])
    assert {"pneumo-fast, DALI, uint8, cpu", "reference, DataLoader, 2 workers"} <= set(names["load"])
    rates = [rate for stage in content["stages"] for result in stage["results"] for rate in result["rates"]]
    assert min(rates) > 0
    assert content["surroundings"]["cores"] >= 1


def test_contenders_take_turns_and_the_first_turn_is_not_counted() -> None:
    calls: list[str] = []

    def contender(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    first, second = race({"a": lambda: contender("a"), "b": lambda: contender("b")}, runs=2)
    assert calls == ["a", "b"] * 3
    assert (first.rates, second.rates) == ([3.0, 5.0], [4.0, 6.0])


def test_ratio_is_that_of_the_medians() -> None:
    results = [Result(name="a", rates=[1.0, 8.0, 9.0]), Result(name="b", rates=[4.0, 2.0, 100.0])]
    assert ratio(results, "a", "b") == 2.0


def test_the_reference_resize_looks_at_two_neighbours_in_each_direction() -> None:
    ramp = np.arange(8.0)[None, :].repeat(8, axis=0)
    np.testing.assert_allclose(bilinear(ramp, 4)[0], [0.5, 2.5, 4.5, 6.5])
    spike = np.zeros((8, 8))
    spike[0, 0] = 1.0
    assert bilinear(spike, 2).sum() == 0.0  # it aliases: the spike is between the positions it looks at
