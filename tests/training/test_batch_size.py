"""``--batch-size auto``: the largest batch that fits, found once and kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import DeviceError, RunError
from pneumo_fast.loading.batches import Rank
from pneumo_fast.run.checkpoint import load_trained
from pneumo_fast.run.layout import CONFIG, LAST
from pneumo_fast.training import batch_size, distributed, setup
from pneumo_fast.training.batch_size import (
    choose_batch_size,
    find_batch_size,
    fits_in_memory,
    largest_batch,
    trial_step,
)
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.setup import TrainingData
from pneumo_fast.training.train import train
from tests.support.devices import NO_GPU
from tests.support.make_dataset import make_dataset
from tests.support.training import check_same

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@given(room=st.integers(0, 6000), most=st.integers(1, 6000))
def test_the_largest_that_fits_is_found_in_few_trials(room: int, most: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= room

    unit = min(8, most)
    assert largest_batch(fits, most) == min(room, most) // unit * unit
    assert max(tried) <= most
    assert len(tried) == len(set(tried)) <= 20


def room_for(images: int) -> Callable[..., Callable[[int], None]]:
    """Stands in for ``trial_step``: runs out of memory with more images."""

    def step(size: int) -> None:
        if size > images:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return lambda *_: step


def test_only_a_lack_of_memory_is_taken_for_one() -> None:
    assert fits_in_memory(room_for(8)(), 8)
    assert not fits_in_memory(room_for(8)(), 9)
    with pytest.raises(ZeroDivisionError):
        fits_in_memory(lambda size: 1 // (size - size), 8)


@pytest.mark.parametrize(("room", "found"), [(100, 16), (15, 8)])
def test_the_batch_fits_the_memory_and_the_split(
    config: TrainConfig, noise: Path, monkeypatch: pytest.MonkeyPatch, room: int, found: int
) -> None:
    """There are 21 training images."""
    monkeypatch.setattr(batch_size, "trial_step", room_for(room))
    monkeypatch.setattr(batch_size, "_spare_bytes", lambda *_: 0)
    assert find_batch_size(config, TrainingData(dataset=Dataset.open(noise), parts=()), CPU, Rank(), None) == found


def test_processes_take_what_all_have_room_for(
    config: TrainConfig, noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process, one of two, has room for 9 of its images, the other for 4 only."""
    monkeypatch.setattr(batch_size, "UNIT", 1)
    monkeypatch.setattr(batch_size, "trial_step", room_for(9))
    monkeypatch.setattr(batch_size, "_spare_bytes", lambda *_: 0)
    monkeypatch.setattr(distributed, "highest", lambda value, _device: max(value, -4))
    assert (
        find_batch_size(
            config, TrainingData(dataset=Dataset.open(noise), parts=()), CPU, Rank(number=0, world_size=2), None
        )
        == 8
    )


def test_nothing_fits(config: TrainConfig, noise: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "trial_step", room_for(7))
    monkeypatch.setattr(batch_size, "_spare_bytes", lambda *_: 0)
    with pytest.raises(DeviceError, match="not even the smallest batch fits into the memory of cpu: raise"):
        find_batch_size(config, TrainingData(dataset=Dataset.open(noise), parts=()), CPU, Rank(), None)


@pytest.mark.usefixtures("quick")
def test_a_trial_is_two_whole_steps(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []

    plain_step = Learner.step

    def spy(learner: Learner, images: torch.Tensor, labels: torch.Tensor, **rest: Any) -> Any:
        sizes.append(tuple(images.shape))
        result = plain_step(learner, images, labels, **rest)
        assert learner.steps_done == len(sizes)
        assert learner.optimizer.state
        return result

    monkeypatch.setattr(Learner, "step", spy)
    trial_step(replace(config, compile=True, weights="nowhere.pt"), 32, CPU, None)(6)
    assert sizes == [(6, 1, 32, 32)] * 2


@pytest.mark.usefixtures("quick")
def test_by_default_it_is_no_larger_than_an_epoch(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    with caplog.at_level(logging.INFO, "pneumo_fast"):
        train(replace(config, out=run, batch_size=None, epochs=1))
    assert "batch-size 21: as many images as an epoch has, fewer than 64" in caplog.messages
    content = json.loads((run / CONFIG).read_text())
    assert content["config"]["batch_size"] == content["resolved"]["batch_size"] == 21
    assert load_trained(run / LAST).settings["batch-size"] == 21
    assert train(replace(config, out=run, batch_size=21, resume=True)).epochs == 2


def test_by_default_it_is_64_where_an_epoch_has_as_many(config: TrainConfig, tmp_path: Path) -> None:
    make_dataset(tmp_path / "d", labels={"train": [0, 1] * 40, "val": [0, 1]})
    data = TrainingData(dataset=Dataset.open(tmp_path / "d"), parts=())
    assert choose_batch_size(replace(config, batch_size=None), data, CPU, Rank(), None) == 64


@pytest.mark.usefixtures("quick")
def test_what_was_found_is_recorded_and_kept_when_resuming(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(replace(config, out=tmp_path / "plain", batch_size=6))
    run, found = tmp_path / "run", iter([6])
    monkeypatch.setattr(setup, "check_options", lambda *_: None)
    monkeypatch.setattr(batch_size, "find_batch_size", lambda *_: next(found))
    config = replace(config, out=run, batch_size="auto")
    train(replace(config, epochs=1))
    assert train(replace(config, resume=True)).epochs == 2, "not looked for again"
    check_same(run / LAST, tmp_path / "plain" / LAST)
    content = json.loads((run / CONFIG).read_text())
    assert (content["config"]["batch_size"], content["resolved"]["batch_size"]) == ("auto", 6)
    assert load_trained(run / LAST).settings["batch-size"] == 6
    with pytest.raises(RunError, match="was trained with batch-size 6, now it is 4"):
        train(replace(config, batch_size=4, resume=True))


@pytest.mark.gpu
@NO_GPU
def test_a_gpu_with_little_memory(config: TrainConfig) -> None:
    device = torch.device("cuda", 0)
    step = trial_step(config, 224, device, None)
    torch.cuda.set_per_process_memory_fraction(2e9 / torch.cuda.mem_get_info(device)[1], device)
    try:
        found = largest_batch(lambda size: fits_in_memory(step, size), 4096)
        assert 8 <= found < 4096
        assert fits_in_memory(step, found)
        assert not fits_in_memory(step, 2 * found)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@pytest.mark.gpu
@NO_GPU
def test_a_run_with_the_largest_batch(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, out=tmp_path / "run", batch_size="auto", device="cuda", epochs=1))
    assert json.loads((tmp_path / "run" / CONFIG).read_text())["resolved"]["batch_size"] == 16
