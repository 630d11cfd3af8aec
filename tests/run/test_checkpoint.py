"""Checkpoints: what is written comes back, and what is damaged is refused and runs no code."""

from __future__ import annotations

import math
import os
import pickle
import zipfile
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.errors import RunError
from pneumo_fast.run.checkpoint import (
    Resumable,
    load_last,
    load_resumable,
    load_trained,
    read_weights,
    save_checkpoint,
)
from pneumo_fast.run.layout import BEST, LAST, PREVIOUS
from tests.support.checkpoint import Payload, make_checkpoint

ABOVE = "a size, deviation or weight above 0 and a best epoch up to the last expected"
FINITE = "a finite mean, deviation, weight and shift expected"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(make_checkpoint(), tmp_path / LAST)
    return tmp_path / LAST


def damaged(path: Path) -> RunError:
    """The error that a file gives, which must be one line and name the file."""
    for load in (load_trained, load_resumable):
        with pytest.raises(RunError) as caught:
            load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_checkpoint_comes_back_as_it_was(saved: Path) -> None:
    before, after, judged = make_checkpoint(), load_resumable(saved), load_trained(saved)
    expected = before.trained.model.pop("weight")
    for trained in (after.trained, judged):
        assert torch.equal(trained.model.pop("weight"), expected)
    assert asdict(after) == asdict(before)
    assert asdict(judged) == asdict(before.trained)
    assert [path.name for path in saved.parent.iterdir()] == [LAST]


def test_what_is_only_to_be_judged_cannot_be_resumed_from(tmp_path: Path) -> None:
    save_checkpoint(make_checkpoint().trained, tmp_path / BEST)
    assert load_trained(tmp_path / BEST).epoch == 2
    with pytest.raises(RunError, match=r"damaged \(\$: object missing required field `learner`\): train again"):
        load_resumable(tmp_path / BEST)


def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save_checkpoint(make_checkpoint(epoch), tmp_path / LAST)
    assert [load_trained(tmp_path / name).epoch for name in (LAST, PREVIOUS)] == [3, 2]


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped"])
def test_where_the_last_checkpoint_is_damaged_the_one_before_is_taken(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_last(tmp_path) is None
    for epoch in (1, 2):
        save_checkpoint(make_checkpoint(epoch), tmp_path / LAST)
    data = bytearray((tmp_path / LAST).read_bytes())
    data[len(data) // 2] ^= 1
    changed = {"empty": b"", "cut": bytes(data[: len(data) // 2]), "flipped": bytes(data)}
    (tmp_path / LAST).unlink()
    if damage != "gone":
        (tmp_path / LAST).write_bytes(changed[damage])
    found = load_last(tmp_path)
    assert found is not None
    assert found.trained.epoch == 1
    assert ("resuming from previous.pt, which was written before" in caplog.text) == (damage != "gone")
    (tmp_path / PREVIOUS).write_bytes(b"")
    (tmp_path / LAST).write_bytes(b"")
    with pytest.raises(RunError, match=r"previous\.pt is damaged"):
        load_last(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "run pneumo-fast train first" in str(damaged(tmp_path / BEST))
    assert "is damaged or not a checkpoint (IsADirectoryError)" in str(damaged(tmp_path))


@pytest.mark.parametrize("where", ["plain pickle", "torch zip", "torch legacy", "field of a checkpoint"])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, where: str) -> None:
    path, target = tmp_path / LAST, tmp_path / "ran"
    if where == "plain pickle":
        path.write_bytes(pickle.dumps(Payload(target)))
    elif where == "field of a checkpoint":
        save_checkpoint(replace(make_checkpoint(), learner={"scale": Payload(target)}), path)
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
            found = load_resumable(path)
        except RunError:
            return
    expected = make_checkpoint()
    assert torch.equal(found.trained.model.pop("weight"), expected.trained.model.pop("weight"))
    assert asdict(found) == asdict(expected)


def bytes_of(checkpoint: Resumable) -> bytes:
    with TemporaryDirectory() as folder:
        save_checkpoint(checkpoint, Path(folder, LAST))
        return Path(folder, LAST).read_bytes()


RAW = bytes_of(make_checkpoint())


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
    raw[RAW.index(make_checkpoint().trained.model["weight"].numpy().tobytes()) + at] ^= 16
    saved.write_bytes(raw)
    loaded = torch.load(saved, weights_only=True)["model"]["weight"]
    assert not torch.equal(loaded, make_checkpoint().trained.model["weight"])
    damaged(saved)


@pytest.mark.parametrize("kept", [0, 1, 4, 100, len(RAW) // 2, len(RAW) - 1])
def test_a_file_cut_short(saved: Path, kept: int) -> None:
    os.truncate(saved, kept)
    assert "is damaged or not a checkpoint" in str(damaged(saved))


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda tail: b"\x80\x02" + tail)))
def test_any_bytes_are_no_checkpoint(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        Path(folder, LAST).write_bytes(content)
        damaged(Path(folder, LAST))


def test_a_pickle_of_a_persistent_id_that_torch_does_not_know(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / LAST, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02K\x01Q.")
        archive.writestr("archive/version", "3\n")
    assert "AssertionError" in str(damaged(tmp_path / LAST))


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
    assert ("is not a checkpoint of this release" if zipped else "not a checkpoint (BadZipFile)") in str(found)


@pytest.mark.parametrize(("drop", "add"), [("arch", {}), ("history", {}), (None, {"colour": "grey"})])
def test_fields_too_few_or_too_many(saved: Path, drop: str | None, add: dict[str, str]) -> None:
    content = torch.load(saved, weights_only=True)
    torch.save({name: value for name, value in content.items() if name != drop} | add, saved)
    assert (f"missing required field `{drop}`" if drop else "colour: unknown key") in str(damaged(saved))


def test_a_compressed_checkpoint_is_refused_before_it_fills_the_memory(saved: Path) -> None:
    """A gigabyte of zeros deflates to a megabyte; torch would read this one."""
    with zipfile.ZipFile(saved) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    error = damaged(saved)
    assert "compressed, as no checkpoint is" in str(error.__cause__)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": 0}, ABOVE),
        ({"std": 0.0}, ABOVE),
        ({"pos_weight": -1.0}, ABOVE),
        ({"best_epoch": -1}, ABOVE),
        ({"best_epoch": 3}, ABOVE),
        ({"mean": math.nan}, FINITE),
        ({"std": math.inf}, FINITE),
        ({"pos_weight": math.inf}, FINITE),
        ({"prior_shift": math.nan}, FINITE),
        ({"settings": {"lr": {"a": 1}}}, "settings that an option can have expected"),
        ({"monitor": "colour"}, "monitor 'colour' is unknown"),
    ],
)
def test_an_impossible_value_is_refused(saved: Path, changes: dict[str, Any], told: str) -> None:
    torch.save(torch.load(saved, weights_only=True) | changes, saved)
    assert told in str(damaged(saved))


@pytest.mark.parametrize("content", [[1.0], {"model": [1.0]}])
def test_a_file_without_weights_gives_none(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(RunError, match=r"weights\.pt holds no weights: give a checkpoint or a state dictionary"):
        read_weights(tmp_path / "weights.pt")


def test_a_save_that_fails_leaves_the_old_files(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the newest is damaged: the one before is all there is."""
    save_checkpoint(make_checkpoint(2), saved)
    saved.write_bytes(b"damaged")
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}
    assert before.keys() == {LAST, PREVIOUS}

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(make_checkpoint(3), saved)
    assert {path.name: path.read_bytes() for path in saved.parent.iterdir()} == before


def test_a_checkpoint_that_does_not_fit_into_memory_is_not_called_damaged(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load_trained(saved)
