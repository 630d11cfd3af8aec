"""What a supervisor does about a worker process that is lost."""

from __future__ import annotations

import io
import mmap
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pneumo_fast.conversion import supervisor
from pneumo_fast.conversion.supervisor import Outcome, Worker, WorkerLostError, WorkerPool
from pneumo_fast.conversion.task import JOURNAL, NO_FILE, Task
from pneumo_fast.vocabulary import Decode

TASK = Task(
    name="train-0", split="train", images=Path(), out=Path(), sources=(), size=48, dtype="float16", layout="shards",
    decode="gpu", window="auto", max_pixels=10**6, key=b"",
)  # fmt: skip


def test_a_task_that_took_its_worker_down_is_done_again_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Decode] = []

    class Fragile:
        process = SimpleNamespace(poll=lambda: 0)

        def __init__(self, *_: object) -> None:
            """No process is started."""

        def run(self, task: Task, *_: object) -> Outcome:
            tried.append(task.decode)
            if task.decode == "gpu":
                raise WorkerLostError(NO_FILE, "crashed", "the worker ended (SIGSEGV)")
            return Outcome(stored=1, rejected=0, skipped=0)

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(supervisor, "Worker", Fragile)
    assert WorkerPool().run_task(TASK, 10.0).stored == 1
    assert tried == ["gpu", "exact"]


@pytest.mark.parametrize("answer", [b"", b'{"stored": 1', b'{"stored": 1, "rejected": 0, "skipped": 0}'])
def test_a_worker_that_dies_while_it_answers_is_lost(answer: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, answer)
    os.close(writing)
    worker = cast("Any", Worker.__new__(Worker))
    worker._journal = mmap.mmap(-1, JOURNAL.size)
    JOURNAL.pack_into(worker._journal, 0, NO_FILE, time.monotonic())
    with os.fdopen(reading, "rb") as stdout:
        worker.process = SimpleNamespace(stdin=io.BytesIO(), stdout=stdout, wait=lambda: -9)
        with pytest.raises(WorkerLostError, match=r"the worker ended \(SIGKILL\)"):
            worker.run(TASK, {}, 10.0)
