"""Comparing two runs: the paired bootstrap, and what cannot be compared."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumo_fast.errors import RunError
from pneumo_fast.evaluation.compare import compare
from pneumo_fast.evaluation.compute import judge
from pneumo_fast.evaluation.identity import DatasetIdentity, RunIdentity
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.evaluation.results import Evaluation, Predictions, describe_intervals
from pneumo_fast.metrics.scored import Sample, Scores
from tests.support.judged import drawn, mann_whitney, pair, rows_of
from tests.support.untrained_run import make_dataset, make_run

Judge = Callable[..., Evaluation]


@pytest.fixture
def judged(tmp_path: Path) -> Judge:
    def evaluation(name: str, sample: Sample, logits: Scores) -> Evaluation:
        other = Sample(labels=sample.labels, logits=logits.astype(np.float32), groups=sample.groups)
        rows = rows_of(sample)
        folder = tmp_path / name / "eval" / "d-val"
        folder.mkdir(parents=True)
        return Evaluation(
            folder=folder,
            split="val",
            selected_on_this_data=True,
            figures=judge(other, rows, EvaluateConfig(resamples=100)),
            predictions=Predictions(
                image_ids=tuple(rows["image_id"]),
                labels=other.labels,
                logits=other.logits.astype(np.float32),
                probabilities=other.probabilities,
                calibrated=None,
                reported=np.ones(other.n, bool),
                groups=other.groups,
            ),
            intervals=describe_intervals(rows["group"], 100, 0),
            overlap=None,
            notes=(),
            run=RunIdentity(
                path=name, checkpoint="", sha256="", arch="", epoch=1, mean=0.5, std=0.5, dataset_identity=""
            ),
            dataset=DatasetIdentity(path="", identity="", trained_on=True),
            device="cpu",
            options=EvaluateConfig(run=tmp_path / name, resamples=100),
        )

    return evaluation


def test_a_run_compared_with_itself_differs_by_nothing(judged: Judge) -> None:
    sample = drawn(0, 20, 30, 1.0)
    comparison = compare(judged("a", sample, sample.logits), judged("b", sample, sample.logits), resamples=100, seed=0)
    assert {d.difference.value for d in comparison.differences} == {0.0}
    assert comparison.delong_p is None


def test_a_better_run_is_told_from_chance(judged: Judge) -> None:
    sample, better = pair(1, 2.2)
    a, b = judged("a", sample, sample.logits), judged("b", sample, better)
    comparison = compare(a, b, resamples=500, seed=0)
    auroc = comparison.differences[0]
    expected = mann_whitney(sample.labels, better) - mann_whitney(sample.labels, sample.logits)
    assert auroc.difference.value == pytest.approx(expected, abs=1e-6)
    assert auroc.difference.low is not None
    assert auroc.difference.low > 0
    assert "excludes 0" in comparison.text
    saved = json.loads((tmp := b.folder / "comparison.json").read_text())
    assert saved["differences"][0]["difference"]["low"] == auroc.difference.low, tmp
    names = [d.name for d in comparison.differences]
    assert names[:3] == ["AUROC", "average precision", "Brier score"]
    assert "sensitivity at 0.25" in names


def test_paired_intervals_are_narrower_than_those_of_two_groups(judged: Judge) -> None:
    sample, other = pair(5, 1.0)
    comparison = compare(judged("a", sample, sample.logits), judged("b", sample, other), resamples=1000, seed=0)
    e = comparison.differences[0].difference
    assert e.low is not None
    assert e.high is not None
    positives, negatives = 60, 90
    alone = [mann_whitney(sample.labels, s) for s in (sample.logits, other)]
    unpaired = 2 * 1.96 * math.sqrt(sum(a * (1 - a) * (1 / positives + 1 / negatives) / 1.9 for a in alone))
    assert e.high - e.low < 0.9 * unpaired


def test_different_images_are_not_compared(judged: Judge) -> None:
    sample = drawn(0, 20, 30, 1.0)
    a, b = judged("a", sample, sample.logits), judged("b", sample, sample.logits)
    shorter = replace(b.predictions, image_ids=b.predictions.image_ids[:-1], labels=b.predictions.labels[:-1])
    with pytest.raises(RunError, match=r"different images \(50 and 49\).*--dataset"):
        compare(a, replace(b, predictions=shorter), resamples=100, seed=0)


def test_two_runs_of_one_name_stay_apart(judged: Judge, tmp_path: Path) -> None:
    sample = drawn(0, 20, 30, 1.0)
    a = judged("x/run", sample, sample.logits)
    b = judged("y/run", sample, sample.logits)
    comparison = compare(a, b, resamples=100, seed=0)
    assert (comparison.a, comparison.b) == ("run", "run (2)")
    assert (tmp_path / "y/run/eval/d-val/comparison.json").exists()


def test_a_run_folder_whose_name_is_no_text_can_be_compared(judged: Judge) -> None:
    sample = drawn(0, 20, 30, 1.0)
    a, b = judged("a\udcff", sample, sample.logits), judged("b", sample, sample.logits)
    assert compare(a, b, resamples=100, seed=0).a == "a\N{REPLACEMENT CHARACTER}"


def test_two_runs_on_the_command_line(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    dataset = make_dataset(tmp_path / "dataset")
    runs = [make_run(tmp_path / name, dataset) for name in ("one", "two")]
    ended = run_cli("evaluate", *runs, "--resamples", "100", "--device", "cpu")
    assert ended.code == 0
    assert "two minus one" in ended.out
    assert [ended.out.count(said) for said in ("Result ", "At each threshold", "not for clinical use")] == [2, 0, 1]
    assert "The AUROCs differ by +0.000" in ended.out
    assert all(len(line) <= 80 for line in ended.out.splitlines() if "/" not in line)
    assert json.loads((runs[1] / "eval" / "dataset-val" / "comparison.json").read_text())["n"] == 11
    ended = run_cli("evaluate", *runs, runs[0])
    assert (ended.code, ended.err.strip()) == (2, "error: 3 runs given: name one to evaluate or two to compare")


def test_the_first_run_is_left_alone_where_the_second_is_none(run: Path, run_cli: Callable[..., Any]) -> None:
    ended = run_cli("evaluate", run, run.parent / "nothing")
    assert ended.code == 1
    assert "nothing" in ended.err
    assert not (run / "eval").exists()


def test_a_checkpoint_in_the_place_of_a_run_is_named(run: Path, run_cli: Callable[..., Any]) -> None:
    ended = run_cli("evaluate", run / "best.pt")
    assert "best.pt is a file: name the run folder that holds it" in " ".join(ended.err.split())


def test_runs_of_different_images_are_refused_before_anything_is_written(
    tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    runs = [make_run(tmp_path / name, make_dataset(tmp_path / f"data-{name}")) for name in ("one", "two")]
    index = tmp_path / "data-two" / "index.csv"
    index.write_text(index.read_text().replace("val, 0", "val, 99"))
    manifest = tmp_path / "data-two" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["tables"]["index.csv"] = hashlib.sha256(index.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content))
    ended = run_cli("evaluate", *runs, "--device", "cpu")
    assert ended.code == 1
    assert "are evaluated on different images (11 and 11): name one dataset" in " ".join(ended.err.split())
    assert not any((run / "eval").exists() for run in runs)
