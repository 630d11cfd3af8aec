"""What --quiet and --json leave on which stream, on every command; completion; examples."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import typer
from typer.main import get_command

from pneumo_fast import errors
from pneumo_fast.cli import commands, console
from pneumo_fast.cli.app import COMMANDS, STOPPED, UsageError, app
from pneumo_fast.conversion import convert as convert_module
from pneumo_fast.conversion.lookup import IdsSummary
from pneumo_fast.dataset import verify as verify_module
from pneumo_fast.export.export import ExportSummary
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.reporting.report import ReportSummary
from pneumo_fast.training.train import TrainSummary
from tests.support.conversions import run as convert
from tests.support.conversions import write_input
from tests.support.repository import DOCS

Run = Callable[..., Any]
DOCUMENT = (DOCS / "shell.md").read_text()
GROUP: Any = get_command(app)
SMALL = ["--resamples", "100", "--device", "cpu"]


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


def parsed(text: str) -> dict[str, Any]:
    """The one object on standard output."""
    assert text.count("\n") == 1
    assert text.isascii()
    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def documented(name: str) -> set[str]:
    """The keys that the document lists for a command."""
    (row,) = re.findall(rf"(?m)^\| `{name}` \| (.*)$", DOCUMENT.split("## Exit codes")[0])
    return set(re.findall(r"`(\w+)`", row))


@pytest.fixture
def run_folder(reference_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference_run, tmp_path / "run"))


# ---- --json


@pytest.mark.usefixtures("place")
def test_convert_gives_its_manifest_and_names_no_image(run_cli: Run) -> None:
    ended = run_cli("convert", "images", "labels.csv", "--size", "32", "--workers", "1", "--json")
    found = parsed(ended.out)
    assert found["manifest"] == json.loads(Path("dataset/manifest.json").read_text())
    assert (found["folder"], found["images"], found["converted"]) == ("dataset", 40, 40)
    assert found.keys() == documented("convert")
    assert "Images stored" in ended.err
    assert not [path.stem for path in Path("images").iterdir() if path.stem in ended.out]


def test_train_gives_its_best_checkpoint(run_cli: Run, noise: Path, tmp_path: Path) -> None:
    few = ["--epochs", "1", "--batch-size", "8", "--device", "cpu"]
    ended = run_cli("train", noise, "--out", tmp_path / "run", *few, "--json")
    found = parsed(ended.out)
    assert (found["run"], found["epochs"], found["best_epoch"]) == (str(tmp_path / "run"), 1, 1)
    assert [record["epoch"] for record in found["history"]] == [1]
    assert "Best checkpoint" in ended.err


def test_evaluate_explain_and_report_give_what_they_write(run_cli: Run, run_folder: Path) -> None:
    for command, file in (("evaluate", "metrics.json"), ("explain", "explain.json")):
        found = parsed(run_cli(command, run_folder, *SMALL, "--json", "--quiet").out)
        folder = Path(found.pop("folder"))
        assert found == json.loads((folder / file).read_text())
    found = parsed(run_cli("report", run_folder, "--json").out)
    assert found["size_bytes"] == Path(found["page"]).stat().st_size


def test_two_runs_give_both_evaluations_and_the_comparison(run_cli: Run, run_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run_folder, tmp_path / "other")
    found = parsed(run_cli("evaluate", run_folder, other, *SMALL, "--json").out)
    assert [Path(one["folder"]).parents[1].name for one in found["evaluations"]] == ["run", "other"]
    assert found["comparison"]["n"] == found["evaluations"][0]["n"]


@pytest.mark.usefixtures("quick")
def test_a_cross_validation_gives_each_of_its_folds(run_cli: Run, noise: Path, tmp_path: Path) -> None:
    words = ["train", noise, "--out", tmp_path / "run", "--folds", "2", "--epochs", "1", "--device", "cpu", "--json"]
    ended = run_cli(*words, "--batch-size", "8")
    found = parsed(ended.out)
    assert found.keys() == {"run", "folds"}
    assert found["run"] == str(tmp_path / "run")
    assert [fold["run"] for fold in found["folds"]] == [str(tmp_path / "run" / f"fold-{number}") for number in (1, 2)]
    assert {key for fold in found["folds"] for key in fold} == documented("train") - {"folds"}
    lines = [line.split() for line in ended.err.splitlines()]
    table = [["fold", "best", "epoch", "of", "validation", "AUROC"]]
    table += [[str(number), "1", "1", f"{fold['best']:.3f}"] for number, fold in enumerate(found["folds"], start=1)]
    assert all(row in lines for row in table), ended.err
    assert f"Folds: {tmp_path / 'run' / 'fold-1'} to fold-2" in ended.err
    assert f"pneumo-fast evaluate {tmp_path / 'run'}" in ended.err


def test_ids_gives_how_many_it_found(run_cli: Run, tmp_path: Path) -> None:
    made = write_input(tmp_path)
    convert(made, keep_ids=False)
    made.labels.write_text("".join(made.labels.read_text().splitlines(keepends=True)[:-2]))
    out = tmp_path / "ids.csv"
    ended = run_cli("ids", made.out, made.labels, "--out", out, "--json")
    found = parsed(ended.out)
    assert found == {"out": str(out), "found": {"image": 10, "row": 0}, "unknown": {"image": 2, "row": 0}, "notes": []}
    assert "images 10 2" in " ".join(ended.err.split())
    assert f"{out} names patients or images: keep it as safe as the key" in ended.err


def test_verify_gives_its_problems_and_still_fails(run_cli: Run, own_dataset: Path) -> None:
    ended = run_cli("verify", own_dataset, "--json")
    assert (ended.code, parsed(ended.out)) == (0, {"dataset": str(own_dataset), "problems": [], "pixels": True})
    images = np.load(own_dataset / "val-00000.npy")
    images[0, 0, 0] += 0.25
    np.save(own_dataset / "val-00000.npy", images)
    plain, ended = run_cli("verify", own_dataset), run_cli("verify", own_dataset, "--json")
    assert plain.code == ended.code == 1
    assert "val-00000.npy" in plain.out + plain.err
    assert any("val-00000.npy" in problem for problem in parsed(ended.out)["problems"])


def test_the_others_give_their_summaries(run_cli: Run, own_dataset: Path, tmp_path: Path) -> None:
    sheet, phantoms = tmp_path / "sheet.png", tmp_path / "phantoms"
    shown = parsed(run_cli("show", own_dataset, "--out", sheet, "--json").out)
    assert shown["out"] == str(sheet)
    assert shown.keys() == documented("show")
    made = parsed(run_cli("phantom", phantoms, "--count", "2", "--size", "32", "--json").out)
    assert Path(made["labels"]).is_file()


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("train", TrainSummary), ("report", ReportSummary), ("export", ExportSummary), ("ids", IdsSummary),
        ("phantom", PhantomSet), ("verify", commands.Verification),
    ],
)  # fmt: skip
def test_the_document_lists_the_keys(name: str, summary: type[Any]) -> None:
    assert documented(name) == {field.name for field in fields(summary)}


def test_every_command_takes_both_options_and_is_documented() -> None:
    for name in COMMANDS:
        assert {"quiet", "json"} <= {parameter.name for parameter in GROUP.commands[name].params}
        assert documented(name)


def test_an_error_leaves_standard_output_empty(run_cli: Run) -> None:
    ended = run_cli("verify", "gone", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: dataset gone does not exist")


def test_of_several_processes_the_first_writes(
    run_cli: Run, own_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "SPEAKS", False)
    assert run_cli("verify", own_dataset, "--json", "--quiet") == (0, "", "")


def test_a_path_that_is_no_text_is_valid_json(own_dataset: Path) -> None:
    odd = own_dataset.parent / os.fsdecode(b"ds\xff\xc3\xa9")
    shutil.copytree(own_dataset, odd)
    done = subprocess.run(
        [sys.executable, "-m", "pneumo_fast", "verify", odd, "--json"], capture_output=True, check=True
    )
    assert json.loads(done.stdout.decode("ascii"))["dataset"].endswith("/ds\ufffdé")


# ---- --quiet


def speak(*_args: object) -> list[str]:
    logging.getLogger("pneumo_fast.x").info("all is well")
    logging.getLogger("pneumo_fast.x").warning("look")
    return []


@pytest.mark.usefixtures("place")
def test_quiet_leaves_the_result_and_warnings(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = convert_module.convert

    def said(*args: Any) -> Any:
        speak()
        return convert(*args)

    monkeypatch.setattr(convert_module, "convert", said)
    arguments = ["convert", "images", "labels.csv", "--size", "32", "--workers", "1"]
    loud, quiet = run_cli(*arguments), run_cli(*arguments, "--overwrite", "-q")
    assert loud.err == "INFO all is well\nWARNING look\n"
    assert quiet.err == "WARNING look\n"
    assert "Next: pneumo-fast train dataset" in loud.out
    assert "Next:" not in quiet.out
    assert "Images stored" in quiet.out


def test_quiet_training_shows_its_end_alone(run_cli: Run, noise: Path, tmp_path: Path) -> None:
    few = ["--epochs", "1", "--batch-size", "8", "--device", "cpu"]
    ended = run_cli("train", noise, "--out", tmp_path / "run", *few, "--quiet")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("Best checkpoint: ")
    assert ended.out.count("\n") == 1


def test_quiet_and_json_leave_the_object(run_cli: Run, own_dataset: Path) -> None:
    ended = run_cli("verify", own_dataset, "--json", "--quiet")
    assert parsed(ended.out)
    assert ended.err == ""


@pytest.mark.parametrize(("layout", "pixels", "said"), [("source", False, "tables intact"), ("shards", True, "intact")])
def test_verify_says_whether_pixels_were_checked(
    layout: str, pixels: bool, said: str, run_cli: Run, tmp_path: Path
) -> None:
    config = write_input(tmp_path)
    convert(config, layout=layout)
    assert run_cli("verify", config.out, "--quiet").out == f"{config.out}: {said}\n"
    assert parsed(run_cli("verify", config.out, "--json").out)["pixels"] is pixels


def test_quiet_holds_for_one_command(run_cli: Run, own_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "verify", speak)
    run_cli("verify", own_dataset, "--quiet")
    assert not console.info.quiet
    assert "intact" in run_cli("verify", own_dataset).out


# ---- help and completion


def example(name: str) -> list[str]:
    """The words of a command's example, up to a pipe."""
    (line,) = re.findall(r"(?m)^ *Example: (.*)$", getattr(commands, name).__doc__)
    words = shlex.split(line)
    return words[: words.index("|")] if "|" in words else words


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_in_the_help_can_be_given(name: str, run_cli: Run) -> None:
    program, command, *words = example(name)
    assert (program, command) == ("pneumo-fast", name)
    assert GROUP.commands[name].make_context(name, words)
    assert f"Example: {' '.join([program, command, *words])}" in run_cli(name, "--help").out


def complete(*words: str) -> list[str]:
    environment = {"_PNEUMO_FAST_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words)}
    done = subprocess.run(
        [sys.executable, "-m", "pneumo_fast"],
        env=os.environ | environment | {"COMP_CWORD": str(len(words) - 1)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


def test_commands_options_and_values_are_completed() -> None:
    assert complete("pneumo-fast", "do") == ["doctor"]
    assert complete("pneumo-fast", "convert", "--keep") == ["--keep-ids"]
    assert complete("pneumo-fast", "evaluate", "--split", "t") == ["train", "test"]


def test_completion_is_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pneumo_fast", "--install-completion", "bash"],
        env=os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert str(script) in (tmp_path / ".bashrc").read_text()
    assert "_PNEUMO_FAST_COMPLETE=complete_bash" in script.read_text()


def test_the_document_lists_every_exit_code() -> None:
    table = DOCUMENT.split("## Exit codes")[1].split("\n## ")[0]
    listed = {int(code) for code in re.findall(r"(?m)^\| `(\d+)` \|", table)}
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert listed == {0, 1, UsageError.exit_code, *STOPPED, *(getattr(one, "exit_code", 1) for one in classes)}
    assert typer.Exit(0).exit_code in listed
