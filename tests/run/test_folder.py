"""The run folder: what is written comes back, what is damaged is refused, and nobody's files are overwritten."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo_fast.errors import RunError
from pneumo_fast.run.checkpoint import Checkpoint, load_checkpoint, load_last, save_checkpoint
from pneumo_fast.run.folder import clear_run, find_run, read_config, write_config, write_history
from pneumo_fast.run.layout import BEST, CONFIG, HISTORY, LAST, PREVIOUS, TENSORBOARD, TRACE
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.setup import PACKAGES, describe_run
from tests.support.make_dataset import make_dataset

SETTINGS = {"dataset": "abc", "seed": 3, "lr": 1e-4, "shares": [0.5, 1.0], "amp-dtype": "None"}


def make_checkpoint() -> Checkpoint:
    generator = torch.Generator().manual_seed(0)
    return Checkpoint(
        arch="resnet18",
        size=32,
        mean=0.4812345678901234,
        std=0.27,
        pos_weight=3.5,
        dataset_identity="abc",
        epoch=2,
        best=0.75,
        monitor="auroc",
        best_epoch=1,
        history=[{"epoch": 1, "val_auroc": 0.75}, {"epoch": 2, "val_auroc": 0.5}],
        model={"weight": torch.randn(64, 7, generator=generator), "steps": torch.tensor(3)},
        optimizer={"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]},
        scaler={"scale": 65536.0},
        settings=SETTINGS,
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(make_checkpoint(), tmp_path / LAST)
    return tmp_path / LAST


def damaged(path: Path) -> RunError:
    """The error that a file gives, which must be one line and name the file."""
    with pytest.raises(RunError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_checkpoint_comes_back_as_it_was(saved: Path) -> None:
    before, after = make_checkpoint(), load_checkpoint(saved)
    assert torch.equal(after.model.pop("weight"), before.model.pop("weight"))
    assert asdict(after) == asdict(before)
    assert saved.parent.joinpath(LAST).exists()
    assert [path.name for path in saved.parent.iterdir()] == [LAST]


def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save_checkpoint(replace(make_checkpoint(), epoch=epoch), tmp_path / LAST)
    assert [load_checkpoint(tmp_path / name).epoch for name in (LAST, PREVIOUS)] == [3, 2]


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped"])
def test_where_the_last_checkpoint_is_damaged_the_one_before_is_taken(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_last(tmp_path) is None
    for epoch in (1, 2):
        save_checkpoint(replace(make_checkpoint(), epoch=epoch), tmp_path / LAST)
    data = bytearray((tmp_path / LAST).read_bytes())
    data[len(data) // 2] ^= 1
    changed = {"empty": b"", "cut": bytes(data[: len(data) // 2]), "flipped": bytes(data)}
    (tmp_path / LAST).unlink()
    if damage != "gone":
        (tmp_path / LAST).write_bytes(changed[damage])
    found = load_last(tmp_path)
    assert found is not None
    assert found.epoch == 1
    assert ("going on from previous.pt, which was written before" in caplog.text) == (damage != "gone")
    (tmp_path / PREVIOUS).write_bytes(b"")
    (tmp_path / LAST).write_bytes(b"")
    with pytest.raises(RunError, match=r"previous\.pt is damaged"):
        load_last(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "run pneumo-fast train first" in str(damaged(tmp_path / BEST))
    assert "is damaged or no checkpoint (IsADirectoryError)" in str(damaged(tmp_path))


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("where", ["plain pickle", "torch zip", "torch legacy", "field of a checkpoint"])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, where: str) -> None:
    path, target = tmp_path / LAST, tmp_path / "ran"
    if where == "plain pickle":
        path.write_bytes(pickle.dumps(Payload(target)))
    elif where == "field of a checkpoint":
        save_checkpoint(replace(make_checkpoint(), scaler={"scale": Payload(target)}), path)
    else:
        torch.save(Payload(target), path, _use_new_zipfile_serialization=where == "torch zip")
    damaged(path)
    assert not target.exists()
    with suppress(RuntimeError, pickle.UnpicklingError):
        torch.load(path, weights_only=False)
    assert target.exists(), "it is code, and runs where it is let"


def check_told_or_harmless(content: bytes) -> None:
    """Load a spoiled checkpoint: either that is refused, or every value is what it was."""
    with TemporaryDirectory() as folder:
        path = Path(folder, LAST)
        path.write_bytes(content)
        try:
            found = load_checkpoint(path)
        except RunError:
            return
    expected = make_checkpoint()
    assert torch.equal(found.model.pop("weight"), expected.model.pop("weight"))
    assert asdict(found) == asdict(expected)


def bytes_of(checkpoint: Checkpoint) -> bytes:
    with TemporaryDirectory() as folder:
        save_checkpoint(checkpoint, Path(folder, LAST))
        return Path(folder, LAST).read_bytes()


RAW = bytes_of(make_checkpoint())


@settings(deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, len(RAW) - 1), st.integers(0, 7)), min_size=1, max_size=3))
def test_flipped_bits_are_told_or_do_no_harm(flips: list[tuple[int, int]]) -> None:
    spoiled = bytearray(RAW)
    for at, bit in flips:
        spoiled[at] ^= 1 << bit
    check_told_or_harmless(bytes(spoiled))


@pytest.mark.parametrize("at", [0, 501, 1600])
def test_one_bit_of_a_weight(saved: Path, at: int) -> None:
    """The checksums are looked at; torch alone would load it."""
    raw = bytearray(RAW)
    raw[RAW.index(make_checkpoint().model["weight"].numpy().tobytes()) + at] ^= 16
    saved.write_bytes(raw)
    loaded = torch.load(saved, weights_only=True)["model"]["weight"]
    assert not torch.equal(loaded, make_checkpoint().model["weight"])
    damaged(saved)


@pytest.mark.parametrize("kept", [0, 1, 4, 100, len(RAW) // 2, len(RAW) - 1])
def test_a_file_cut_short(saved: Path, kept: int) -> None:
    os.truncate(saved, kept)
    assert "is damaged or no checkpoint" in str(damaged(saved))


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda tail: b"\x80\x02" + tail)))
def test_any_bytes_are_no_checkpoint(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        Path(folder, LAST).write_bytes(content)
        damaged(Path(folder, LAST))


@settings(deadline=None)
@given(data=st.data())
def test_any_pickle_in_a_sound_zip_is_no_checkpoint(data: st.DataObject) -> None:
    """What torch's restricted unpickler stumbles over, behind checksums that are right."""
    start = pickle.dumps({"format": [1, 2.0, "x", (1,)]}, protocol=data.draw(st.sampled_from([0, 2, 4])))
    at = data.draw(st.integers(0, len(start) - 1))
    content = start[:at] + data.draw(st.binary(max_size=8)) + start[at + 1 :]
    with TemporaryDirectory() as folder:
        with zipfile.ZipFile(Path(folder, LAST), "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3\n")
        damaged(Path(folder, LAST))


@pytest.mark.parametrize("content", [[1], "text", torch.ones(2), {"model": {}}, {"format": "another 1"}, {1: 2}])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_files_of_others(tmp_path: Path, content: object, zipped: bool) -> None:
    torch.save(content, tmp_path / BEST, _use_new_zipfile_serialization=zipped)
    found = damaged(tmp_path / BEST)
    assert ("is no checkpoint of this release" if zipped else "no checkpoint (BadZipFile)") in str(found)


@pytest.mark.parametrize(("drop", "add"), [("arch", {}), ("history", {}), (None, {"colour": "grey"})])
def test_fields_too_few_or_too_many(saved: Path, drop: str | None, add: dict[str, str]) -> None:
    content = torch.load(saved, weights_only=True)
    torch.save({name: value for name, value in content.items() if name != drop} | add, saved)
    assert "lacks or has extra fields (" in str(found := damaged(saved))
    assert (drop or "colour") in str(found)


def test_a_save_that_fails_leaves_the_old_files(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the newest is damaged: the one before is all there is."""
    save_checkpoint(replace(make_checkpoint(), epoch=2), saved)
    saved.write_bytes(b"damaged")
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}
    assert before.keys() == {LAST, PREVIOUS}

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(replace(make_checkpoint(), epoch=3), saved)
    assert {path.name: path.read_bytes() for path in saved.parent.iterdir()} == before


def test_the_configuration_comes_back(tmp_path: Path) -> None:
    write_config(tmp_path, {"config": {"datasets": [Path("/data/rsna")], "lr": 1e-4}})
    assert read_config(tmp_path).config == {"datasets": ["/data/rsna"], "lr": 1e-4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no run: no config.json there"),
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
    history = make_checkpoint().history
    write_history(tmp_path, history)
    assert [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()] == history


def config(out: Path, **options: Any) -> TrainConfig:
    return TrainConfig(out=out, **options)


def claim_run(config: TrainConfig, settings: dict[str, Any]) -> Checkpoint | None:
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
    write_config(run, {"config": {}})
    write_history(run, make_checkpoint().history)
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
        RunError, match="holds a run: give --resume to go on, --overwrite to replace it, or name another --out"
    ):
        claim_run(config(run), SETTINGS)
    assert (run / LAST).exists()


def test_a_run_is_replaced_on_request_and_nothing_else(run: Path) -> None:
    assert claim_run(config(run, overwrite=True), SETTINGS) is None
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_others_is_left_alone(tmp_path: Path, options: dict[str, bool]) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="is not empty: name another --out"):
        claim_run(config(tmp_path, **options), SETTINGS)
    assert (tmp_path / "thesis.tex").exists()


def test_resuming_gives_the_last_checkpoint(run: Path) -> None:
    checkpoint = claim_run(config(run, resume=True), SETTINGS)
    assert checkpoint is not None
    assert checkpoint.epoch == 2
    assert (run / "eval" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", 4, "was trained with seed 3, now it is 4"),
        ("lr", 1e-3, "was trained with lr 0.0001, now it is 0.001"),
        ("dataset", "abd", "was trained with dataset 'abc', now it is 'abd'"),
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
    (run / f".{LAST}.0123abcd.partial").write_bytes(b"half")
    claim_run(config(run, **options), SETTINGS)
    assert not list(run.glob(".*.partial"))


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
    described = describe_run(config(Path("run"), datasets=(Path("d"),), lr=0.5), dataset, {"device": "cpu"})
    assert described["config"].keys() == {field.name for field in fields(TrainConfig)}
    assert described["config"]["lr"] == 0.5
    assert described["config"]["datasets"] == [tmp_path / "d"], "found again from any folder"
    assert described["resolved"] == {"device": "cpu", "threads": torch.get_num_threads()}
    assert described["dataset"]["identity"] == dataset.identity
    assert described["dataset"]["counts"]["train"] == {"0": 15, "1": 6}
    assert described["versions"].keys() == {"python", *PACKAGES}
    assert described["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
