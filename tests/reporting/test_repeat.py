"""The commands that repeat a run."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.errors import PneumoError, RunError
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.records import plain
from pneumo_fast.reporting.repeat import commands, unknown_options
from pneumo_fast.reporting.sources import read_run
from pneumo_fast.training.options import TrainConfig
from tests.support.make_run import HOSTILE, change_json
from tests.support.report_page import made


class ReadError(PneumoError):
    """Raised in the place of the command, with the options that the command line gave it."""


COMMANDS = {
    "convert": "pneumo_fast.conversion.convert",
    "train": "pneumo_fast.training.train",
    "evaluate": "pneumo_fast.evaluation.evaluate",
    "explain": "pneumo_fast.explanation.explain",
    "report": "pneumo_fast.reporting.report",
}


@pytest.fixture
def typed(run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Types a command line, and gives the options that come out of the parser."""
    found: list[Any] = []

    def note(config: Any, *_: Any, **__: Any) -> None:
        found.append(config)
        raise ReadError("enough")

    for name, module in COMMANDS.items():
        monkeypatch.setattr(f"{module}.{name}", note)

    def type_line(line: str) -> Any:
        program, *words = shlex.split(line)
        assert (program, run_cli(*words).err) == ("pneumo-fast", "error: enough\n")
        return found.pop()

    return type_line


def test_the_commands_typed_in_give_the_options_that_were_kept(whole_run: Path, typed: Callable[[str], Any]) -> None:
    files = read_run(whole_run)
    convert, train, evaluate, explain, report = (typed(line) for line in commands(files))
    assert convert == ConvertConfig(
        images=Path("IMAGES"), labels=Path("LABELS"), class_info=Path("CLASS_INFO"), val_fraction=0.2, seed=3,
        max_rejects=13,
    )  # fmt: skip
    assert train == TrainConfig(epochs=6, lr=3e-4, augment="light", amp=True, batch_size=64)
    assert evaluate == EvaluateConfig(resamples=100)
    assert explain == ExplainConfig(count=3, seed=7)
    assert report.run == Path("run")


def test_every_option_and_every_digit_comes_back(run: Path, typed: Callable[[str], Any]) -> None:
    judged = EvaluateConfig(
        run=Path("run"),
        dataset=Path("other data"),
        split="test",
        thresholds=(0.98765432, 0.1),
        target_sensitivity=0.987654321,
        target_specificity=0.8,
        cost_ratio=12.3456789,
        prevalence=0.0123456789,
        resamples=300,
        seed=5,
        batch_size=7,
    )
    looked = ExplainConfig(
        run=Path("run"), ids=(HOSTILE, "b c"), count=4, method="hirescam", layer="layer3", threshold=0.123456789, seed=9
    )
    for name, options in (("eval/dataset-val/metrics.json", judged), ("explain/explain.json", looked)):
        change_json(run / name, options=plain(options))
    files = read_run(run)
    assert [typed(line) for line in commands(files)[2:4]] == [judged, looked]


def test_images_that_were_drawn_later_have_a_command_of_their_own(run: Path, typed: Callable[[str], Any]) -> None:
    change_json(run / "explain" / "explain.json", added_ids=["b c"])
    first, second = (typed(line) for line in commands(read_run(run))[3:5])
    assert (first.ids, second) == ((), ExplainConfig(ids=("b c",), count=3, seed=7))


def test_a_mapping_file_is_asked_for_where_there_was_one(run: Path) -> None:
    manifest = run.parent / "dataset" / "manifest.json"
    change_json(manifest, split={**json.loads(manifest.read_text())["split"], "group_source": "mapping"})
    identity = hashlib.sha256(manifest.read_bytes()).hexdigest()
    judged = json.loads((run / "eval" / "dataset-val" / "metrics.json").read_text())["dataset"]
    change_json(run / "eval" / "dataset-val" / "metrics.json", dataset={**judged, "identity": identity})
    assert "--groups GROUPS" in commands(read_run(run))[0]


def test_what_was_skipped_needs_no_option(run: Path) -> None:
    change_json(run.parent / "dataset" / "manifest.json", rejects={"other_view": 11, "corrupt": 2, "not_the_first": 3})
    identity = hashlib.sha256((run.parent / "dataset" / "manifest.json").read_bytes()).hexdigest()
    judged = json.loads((run / "eval" / "dataset-val" / "metrics.json").read_text())["dataset"]
    change_json(run / "eval" / "dataset-val" / "metrics.json", dataset={**judged, "identity": identity})
    assert "--max-rejects 2 " in commands(read_run(run))[0] + " "


def test_it_is_said_that_a_new_folder_is_needed(run: Path) -> None:
    summary, page = made(run)
    assert "These commands, typed in a new folder, repeat the run" in page.words
    assert "These commands, typed in a new folder, repeat the run" in summary.card.read_text()


def test_files_without_options_are_read_and_said_to_be_without(run: Path) -> None:
    for name in ("eval/dataset-val/metrics.json", "explain/explain.json"):
        change_json(run / name, options=...)
    files = read_run(run)
    assert [line.split()[1] for line in commands(files)] == ["convert", "train", "report"]
    _, page = made(run)
    assert [said in page.words for said in unknown_options(files)] == [True, True]


@pytest.mark.parametrize("options", [{"thresholds": ["0.5"]}, {"thresholds": [7.0]}, {"split": "all"}, []])
def test_options_that_cannot_be_are_a_damaged_file(run: Path, options: Any) -> None:
    change_json(run / "eval" / "dataset-val" / "metrics.json", options=options)
    with pytest.raises(RunError, match=r"metrics.json cannot be read .*: run pneumo-fast evaluate"):
        read_run(run)
