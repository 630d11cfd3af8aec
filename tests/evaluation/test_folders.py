"""Evaluations of other data and splits stay; a report takes the run's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.errors import RunError
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.evaluation.folders import evaluations_of, find_evaluation
from pneumo_fast.run.layout import METRICS, evaluation_name
from tests.support.untrained_run import config, make_dataset


def names(run: Path) -> list[str]:
    return [folder.name for folder in evaluations_of(run)]


def test_each_data_and_split_has_its_folder(run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", mean=0.4)
    (tmp_path / "elsewhere").mkdir()
    namesake = make_dataset(tmp_path / "elsewhere" / "other", mean=0.3)
    evaluate(config(run))
    evaluate(config(run, split="train"))
    evaluate(config(run, dataset=other))
    evaluate(config(run, dataset=namesake))
    evaluate(config(run))
    assert len(names(run)) == 4
    own = next(name.removesuffix("-train") for name in names(run) if name.endswith("-train"))
    assert {f"{own}-val", f"{own}-train", "other-val"} <= set(names(run))
    (fourth,) = {name for name in names(run) if name.startswith("other-val-")}
    identity = json.loads((run / "eval" / fourth / METRICS).read_text())["dataset"]["identity"]
    assert fourth == f"other-val-{identity[:8]}"


def test_what_to_type_next_names_an_evaluation_that_a_report_would_not_take(
    run: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    other, options = make_dataset(tmp_path / "other", mean=0.4), ("--resamples", "100", "--device", "cpu")
    assert f"Next: pneumo-fast explain {run}, then pneumo-fast report {run}\n" in run_cli("evaluate", run, *options).out
    said = run_cli("evaluate", run, "--dataset", other, *options).out
    assert said.endswith(
        f"Next: pneumo-fast explain {run} --dataset {other}, then pneumo-fast report {run} --evaluation other-val\n"
    )


def test_the_run_s_own_is_found_before_others(run: Path, tmp_path: Path) -> None:
    evaluate(config(run, dataset=make_dataset(tmp_path / "another", mean=0.4), split="test"))
    assert find_evaluation(run).name == "another-test"
    for split in ("train", "val", "test"):
        folder = evaluate(config(run, split=split)).folder
        assert find_evaluation(run) == folder
    assert find_evaluation(run, "another-test").name == "another-test"
    with pytest.raises(RunError, match=r"has no evaluation 'nowhere-val': use one of another-test, .*-train"):
        find_evaluation(run, "nowhere-val")


def test_of_several_on_other_data_one_has_to_be_named(run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "another", mean=0.4)
    for split in ("val", "test"):
        evaluate(config(run, dataset=other, split=split))
    with pytest.raises(RunError, match="not evaluated on its own data: evaluate it, or name one of another-test, "):
        find_evaluation(run)


def test_what_an_earlier_release_wrote_is_found(run: Path) -> None:
    folder = evaluate(config(run)).folder
    for path in folder.iterdir():
        path.rename(run / "eval" / path.name)
    folder.rmdir()
    assert find_evaluation(run) == run / "eval"
    assert find_evaluation(run) != evaluate(config(run)).folder == find_evaluation(run)


def test_a_run_that_was_not_evaluated(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"was not evaluated \(no eval/\*/metrics\.json\): run pneumo-fast evaluate"):
        find_evaluation(run)
    with pytest.raises(RunError, match="does not exist: name a run folder"):
        find_evaluation(tmp_path / "nothing")


def test_other_people_s_files_stay_beside_a_new_evaluation(run: Path) -> None:
    folder = evaluate(config(run)).folder
    (folder / "notes.txt").write_text("mine")
    evaluate(config(run, thresholds=(0.3,)))
    assert (folder / "notes.txt").read_text() == "mine"
    assert json.loads((folder / METRICS).read_text())["thresholds"][0]["threshold"] == 0.3
    assert [path.name for path in (run / "eval").iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("rsna", "rsna-val"), ("a+b", "a+b-val"), ("../x y", "_x_y-val"), (".hidden", "hidden-val"), ("", "data-val"),
        ("é\n[b]", "___b_-val"), ("x" * 300, "x" * 80 + "-val"),
    ],
)  # fmt: skip
def test_names_are_safe(data: str, name: str) -> None:
    assert evaluation_name(data, "val") == name
