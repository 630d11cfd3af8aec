"""The run folder: what is written comes back, what is damaged is refused, and nobody's files are overwritten."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from pneumo_fast.errors import RunError
from pneumo_fast.folders import locked
from pneumo_fast.run.checkpoint import Resumable, save_checkpoint
from pneumo_fast.run.folder import clear_run, find_run, read_config, run_locked, write_config, write_history, writing
from pneumo_fast.run.layout import BEST, CONFIG, HISTORY, LAST, TENSORBOARD, TRACE
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.plan import PACKAGES, describe_run
from tests.support.checkpoint import SETTINGS, make_checkpoint
from tests.support.make_dataset import make_dataset
from tests.support.make_run import RESOLVED


def test_the_configuration_comes_back(tmp_path: Path) -> None:
    write_config(tmp_path, {"config": {"datasets": [Path("/data/rsna")], "lr": 1e-4}})
    assert read_config(tmp_path).config == {"datasets": ["/data/rsna"], "lr": 1e-4}


def test_a_configuration_that_would_come_back_otherwise_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_config(tmp_path, {"config": {"epochs": torch.tensor(1)}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a run: it has no config.json"),
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[]", r"is damaged \(\$: expected `object`, got `array`\): train again"),
        (b'{"lr": 1}', r"is damaged \(\$: object missing required field `config`\)"),
        (b'{"config": 3}', r"is damaged \(\$\.config: expected `object`, got `int`\)"),
        (b'{"config":' * 5000, r"is damaged \(maximum recursion depth exceeded"),
    ],
)
def test_configurations_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / CONFIG).write_bytes(content)
    with pytest.raises(RunError, match=message) as error:
        read_config(tmp_path)
    assert "\n" not in str(error.value)


def test_history_is_a_line_of_json_per_epoch(tmp_path: Path) -> None:
    history = make_checkpoint().trained.history
    write_history(tmp_path, history)
    assert [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()] == history


def config(out: Path, **options: Any) -> TrainConfig:
    return TrainConfig(out=out, **options)


def claim_run(config: TrainConfig, settings: dict[str, Any]) -> Resumable | None:
    """What training does with the run folder before its first step."""
    checkpoint = find_run(config.out, settings, resume=config.resume, overwrite=config.overwrite)
    clear_run(config.out, keep=checkpoint is not None)
    return checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a run of ours, judged, and a file of somebody's."""
    run = tmp_path / "run"
    (run / "eval").mkdir(parents=True)
    (run / "explain").mkdir()
    for name in ("eval/metrics.json", "explain/explain.json", "operating.json", "report.html", "model_card.md"):
        (run / name).write_text("{}")
    for name in (BEST, LAST):
        save_checkpoint(make_checkpoint(), run / name)
    write_config(run, {"config": {}, "versions": {"pneumo-fast": "1"}})
    write_history(run, make_checkpoint().trained.history)
    (run / TRACE).write_text("{}")
    (run / TENSORBOARD).mkdir()
    (run / "notes.txt").write_text("mine")
    return run


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_a_new_or_empty_folder_is_free(tmp_path: Path, there: bool, options: dict[str, bool]) -> None:
    out = tmp_path / "a" / "run"
    if there:
        out.mkdir(parents=True)
    assert claim_run(config(out, **options), SETTINGS) is None
    assert out.is_dir()


def test_a_run_is_not_replaced_unasked(run: Path) -> None:
    with pytest.raises(
        RunError, match="holds a run: give --resume to resume it, --overwrite to replace it, or name another --out"
    ):
        claim_run(config(run), SETTINGS)
    assert (run / LAST).exists()


def test_a_run_is_replaced_on_request_and_nothing_else(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine = ["notes.txt", "eval/mine.png", "explain/TP.txt", "tensorboard/x/events.out.tfevents.1"]
    for name in mine:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("mine")
    (run / "explain" / "TP-01.png").touch()
    (run / "tensorboard" / "events.out.tfevents.1").touch()
    assert claim_run(config(run, overwrite=True), SETTINGS) is None
    assert {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} == set(mine)
    assert "left as it is, since no run wrote it: eval, explain, notes.txt, tensorboard" in caplog.text


@pytest.mark.parametrize("content", ["{}", '{"config": {"name": "bert"}}', '{"config": {}, "versions": {}}', "x"])
def test_a_configuration_of_another_tool_is_no_run(tmp_path: Path, content: str) -> None:
    (tmp_path / CONFIG).write_text(content)
    with pytest.raises(RunError, match="is not empty: name another --out"):
        claim_run(config(tmp_path, overwrite=True), SETTINGS)
    assert (tmp_path / CONFIG).read_text() == content


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_others_is_left_alone(tmp_path: Path, options: dict[str, bool]) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="is not empty: name another --out"):
        claim_run(config(tmp_path, **options), SETTINGS)
    assert (tmp_path / "thesis.tex").exists()


def test_resuming_gives_the_last_checkpoint(run: Path) -> None:
    checkpoint = claim_run(config(run, resume=True), SETTINGS)
    assert checkpoint is not None
    assert checkpoint.trained.epoch == 2
    assert (run / "eval" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", 4, "was trained with seed 3, now it is 4"),
        ("lr", 1e-3, "was trained with lr 0.0001, now it is 0.001"),
        ("dataset", "abd", "was trained with dataset of checksum abc, now it is of checksum abd"),
        ("shares", [], r"was trained with shares \[0.5, 1.0\], now it is \[\]"),
        ("momentum", 0.9, "was trained with momentum None, now it is 0.9"),
    ],
)
def test_resuming_with_another_option_is_refused(run: Path, name: str, value: object, message: str) -> None:
    with pytest.raises(RunError, match=message + ": resume with the same, or name another --out"):
        claim_run(config(run, resume=True), SETTINGS | {name: value})


def test_resuming_before_the_first_epoch_was_done_starts_afresh(run: Path) -> None:
    (run / LAST).unlink()
    assert claim_run(config(run, resume=True), SETTINGS) is None
    assert not (run / BEST).exists()


def test_resuming_from_a_damaged_checkpoint_is_refused(run: Path) -> None:
    os.truncate(run / LAST, 1000)
    with pytest.raises(RunError, match="is damaged"):
        claim_run(config(run, resume=True), SETTINGS)
    assert (run / BEST).exists()


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}])
def test_what_a_killed_process_left_half_written_goes(run: Path, options: dict[str, bool]) -> None:
    """But not what an evaluation may be writing below the run."""
    theirs = run / "eval" / ".data-val.new" / ".metrics.json.0123abcd.partial"
    theirs.parent.mkdir(parents=True)
    for partial in (theirs, run / f".{LAST}.0123abcd.partial"):
        partial.write_bytes(b"half")
    claim_run(config(run, **options), SETTINGS)
    assert list(run.rglob(".*.partial")) == [theirs]


def test_a_run_killed_while_its_first_file_was_written_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / f".{CONFIG}.0123abcd.partial").touch()
    assert claim_run(config(tmp_path), SETTINGS) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["file", "below a file"])
def test_a_file_where_the_folder_should_be(tmp_path: Path, place: str) -> None:
    (tmp_path / "run").write_text("mine")
    out = tmp_path / "run" if place == "file" else tmp_path / "run" / "deeper"
    with pytest.raises(RunError, match="cannot be made"):
        claim_run(config(out), SETTINGS)
    assert (tmp_path / "run").read_text() == "mine"


def test_an_interrupted_replacement_is_never_taken_for_the_old_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink
    removed: list[str] = []

    def once(path: Path, missing_ok: bool = False) -> None:
        if removed:
            raise OSError(5, "Input/output error")
        removed.append(path.name)
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", once)
        with pytest.raises(RunError, match="Input/output error"):
            claim_run(config(run, overwrite=True), SETTINGS)
    assert removed == [LAST]
    assert claim_run(config(run, resume=True), SETTINGS) is None


def test_a_run_describes_what_is_needed_to_repeat_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path / "d")
    monkeypatch.chdir(tmp_path)
    described = describe_run(config(Path("run"), datasets=(Path("d"),), lr=0.5), dataset, RESOLVED)
    assert described["config"].keys() == {field.name for field in fields(TrainConfig)}
    assert described["config"]["lr"] == 0.5
    assert described["config"]["datasets"] == [tmp_path / "d"], "found again from any folder"
    assert described["resolved"] == {
        "device": "cpu", "amp_dtype": "torch.bfloat16", "pos_weight": 3.0, "batch_size": 64, "loader": "fused",
        "processes": 1, "threads": torch.get_num_threads(),
    }  # fmt: skip
    assert described["dataset"]["identity"] == dataset.identity
    assert described["dataset"]["counts"]["train"] == {"0": 15, "1": 6}
    assert described["versions"].keys() == {"python", *PACKAGES}
    assert described["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_a_second_training_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        run_locked(tmp_path / "run"),
        pytest.raises(RunError, match="another training writes there: wait for its end, or name another --out"),
        run_locked(tmp_path / "run"),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_two_processes_that_write_one_folder(tmp_path: Path) -> None:
    said = r"another process writes .*: wait for its end"
    with locked(tmp_path), pytest.raises(RunError, match=said), writing(tmp_path), locked(tmp_path):
        pass
