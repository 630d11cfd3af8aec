"""What a supervisor does about a worker process that is lost."""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pneumo_fast.conversion import supervisor
from pneumo_fast.conversion.supervisor import Outcome, Worker, WorkerLostError, WorkerPool
from pneumo_fast.conversion.task import JOURNAL, NO_FILE, Source, Task
from pneumo_fast.errors import ConvertError
from pneumo_fast.phantoms.dicom_file import write_dicom

TASK = Task(
    name="train-0", split="train", images=Path(), out=Path(), sources=(), size=48, dtype="float16", layout="shards",
    decode="gpu", window="auto", max_pixels=10**6, key=b"", gpu=0,
)  # fmt: skip


def test_a_task_that_took_its_worker_down_is_done_again_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int | None] = []

    class Fragile:
        process = SimpleNamespace(poll=lambda: 0)

        def __init__(self, *_: object) -> None:
            """No process is started."""

        def run(self, task: Task, *_: object) -> Outcome:
            tried.append(task.gpu)
            if task.gpu is not None:
                raise WorkerLostError(NO_FILE, "crashed", "the worker ended (SIGSEGV)")
            return Outcome(stored=1, rejected=0, skipped=0)

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(supervisor, "Worker", Fragile)
    assert WorkerPool().run_task(TASK, 10.0).stored == 1
    assert tried == [0, None]


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


def test_memory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    write_dicom(tmp_path / "image.dcm", np.full((64, 64), 7, dtype=np.uint8))
    memory = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    task = replace(TASK, images=tmp_path, sources=(Source("0", "image.dcm", "0", 0),), memory=memory, gpu=None)
    pool = WorkerPool(shared=(memory,))
    try:
        with pytest.raises(ConvertError, match=r"no memory is left for decoded images: Operation not permitted"):
            pool.run_task(task, 10.0)
    finally:
        pool.stop()
        os.close(memory)


def test_a_retry_has_a_worker_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has used a GPU has no limit of memory any more."""
    write_dicom(tmp_path / "image.dcm", np.full((64, 64), 7, dtype=np.uint8))
    memory = os.memfd_create("images")
    task = replace(TASK, images=tmp_path, sources=(Source("0", "image.dcm", "0", 0),), memory=memory)
    pool, used = WorkerPool(shared=(memory,)), []
    run = Worker.run

    def run_or_die(worker: Worker, task: Task, *more: Any) -> Outcome:
        used.append(worker.process.pid)
        if task.gpu is not None and len(used) > 1:
            worker.process.kill()
        return run(worker, task, *more)

    monkeypatch.setattr(Worker, "run", run_or_die)
    try:
        for _ in range(2):
            outcome = pool.run_task(task, 10.0)
            assert outcome.record is not None
            assert [row["image_id"] for row in outcome.record.images] == ["0"]
        assert len(used) == 3
        assert used[0] == used[1] != used[2]
        assert os.pread(memory, 48 * 48 * 2, 0) == np.full((48, 48), 7 / 255, dtype=np.float16).tobytes()
    finally:
        pool.stop()
        os.close(memory)
