"""Reading ahead: how far, how long the consumer waits, and what an error or an interruption leaves."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumo_fast.loading import reader
from pneumo_fast.loading.engines.base import READ_AHEAD
from pneumo_fast.loading.engines.dali import DALI_DEPTH
from tests.support.loaders import PATIENCE_S, STREAMING, Place, collect, load, within
from tests.support.make_dataset import make_dataset


@STREAMING
def test_reading_that_fails_in_a_way_nobody_thought_of_is_no_hang(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader.ShardReader, "locate", lambda *_: 1 / 0)
    with (
        load(make_dataset(tmp_path / "d"), "val", place, batch_size=4) as loader,
        pytest.raises(ZeroDivisionError),
    ):
        within(lambda: collect(loader, 0))


@STREAMING
def test_the_wait_is_measured(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path / "d")
    locate = reader.ShardReader.locate

    def slowly(self: reader.ShardReader, *arguments: Any) -> reader.Places:
        time.sleep(0.05)
        return locate(self, *arguments)

    with load(dataset, "train", place, batch_size=2, order="shuffle") as loader:
        within(lambda: collect(loader, 0))
        quick = loader.wait_s
        monkeypatch.setattr(reader.ShardReader, "locate", slowly)
        begin = time.perf_counter()
        within(lambda: collect(loader, 1))
        seconds = time.perf_counter() - begin
        assert 0 < quick < 0.2
        assert 0.05 <= loader.wait_s <= seconds  # of ten batches, half of them read ahead, two threads
        assert 0.01 <= loader.longest_wait_s <= loader.wait_s


@STREAMING
def test_reading_goes_on_while_the_consumer_works(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a slow read and a slow step take the longer of the two times, not their sum."""
    dataset = make_dataset(tmp_path / "d", labels={"train": [0, 1], "val": [0, 1] * 20})
    locate, read = reader.ShardReader.locate, threading.Semaphore(0)

    def counted(self: reader.ShardReader, *arguments: Any) -> reader.Places:
        read.release()
        return locate(self, *arguments)

    monkeypatch.setattr(reader.ShardReader, "locate", counted)
    with load(dataset, "val", place, batch_size=2) as loader:
        next(loader.epoch(0))
        for batch in range(1 + READ_AHEAD + (DALI_DEPTH if place.engine == "dali" else 0)):
            assert read.acquire(timeout=PATIENCE_S), f"batch {batch} was not read ahead"


@STREAMING
def test_an_interrupted_wait_spoils_nothing(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a read is slow: what it reads must not end up in a batch of a later epoch."""
    dataset = make_dataset(tmp_path / "d")
    locate, result, fresh = reader.ShardReader.locate, Future.result, [True]
    naps = iter([0.3])

    def slowly(self: reader.ShardReader, *arguments: Any) -> reader.Places:
        time.sleep(next(naps, 0))
        return locate(self, *arguments)

    def interrupted(self: Future[Any], *arguments: Any) -> Any:
        if threading.current_thread() is threading.main_thread() and fresh.pop():  # reading threads ask for kernels
            monkeypatch.undo()
            raise KeyboardInterrupt
        return result(self, *arguments)

    with load(dataset, "train", place, batch_size=2, order="shuffle") as loader:
        monkeypatch.setattr(reader.ShardReader, "locate", slowly)
        monkeypatch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(loader.epoch(0))
        found = []
        for images, labels in loader.epoch(5):
            time.sleep(0.1)  # meanwhile the slow read comes to its end
            found.append((images.numpy().copy(), labels.numpy().copy()))
    with load(dataset, "train", place, batch_size=2, order="shuffle") as loader:
        for batch, expected in zip(found, collect(loader, 5), strict=True):
            np.testing.assert_array_equal(batch[0], expected[0])
            np.testing.assert_array_equal(batch[1], expected[1])
