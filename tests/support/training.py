"""What tests of training share: how to read what a run wrote, and how to hold two runs equal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pneumo_fast.run.checkpoint import load_resumable, load_trained
from pneumo_fast.run.layout import BEST, HISTORY, LAST
from pneumo_fast.training import setup

TIMINGS = {"images_per_s", "wait_share", "wait_ms_per_step", "longest_wait_ms", "train_seconds", "val_seconds"}


@contextmanager
def one_thread() -> Iterator[None]:
    """Small images gain nothing from more, and tests that run side by side lose."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def network(build: Callable[[], nn.Module]) -> Iterator[None]:
    """Train another network than the one asked for, on one thread."""
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setattr(setup, "build_model", lambda *_: build())
        yield


def small() -> nn.Module:
    """A network for images of 32 pixels in the place of ResNet-18, where any will do."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 7, 1)
    )


def history_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / HISTORY).read_text().splitlines()]


def results(run: Path) -> list[dict[str, Any]]:
    """The history without what a clock decides."""
    return [{key: value for key, value in record.items() if key not in TIMINGS} for record in history_of(run)]


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one, by path."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: leaf for key, item in items for path, leaf in flat(item, f"{name}/{key}").items()}
    return {name: value}


def check_same(one: Path, other: Path) -> None:
    """Hold two checkpoints equal bit for bit: weights, optimizer, scaler and counters, but timings."""
    states = []
    for path in (one, other):
        checkpoint = load_trained(path)
        parts: list[Any] = [checkpoint.model, checkpoint.best, checkpoint.epoch]
        if path.name != BEST:
            resumable = load_resumable(path)
            parts += [resumable.learner, resumable.loader, resumable.session["sums"]]
        states.append(flat(parts))
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        same = torch.equal(value, states[1][name]) if isinstance(value, torch.Tensor) else value == states[1][name]
        assert same, name


def check_same_run(one: Path, other: Path) -> None:
    """Hold both checkpoints of two runs equal, and their history but for timings."""
    for name in (BEST, LAST):
        check_same(one / name, other / name)
    assert results(one) == results(other)


def weights(path: Path) -> torch.Tensor:
    """All weights of a checkpoint in a row."""
    return torch.cat([value.double().ravel() for value in load_trained(path).model.values()])
