"""What a supervisor does about a worker process that is lost."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import pickle
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import numpy as np
import pytest

from pneumo_fast.conversion import supervisor
from pneumo_fast.conversion import task as task_module
from pneumo_fast.conversion.executors import local_workers
from pneumo_fast.conversion.supervisor import Worker, WorkerLostError, WorkerPool
from pneumo_fast.conversion.task import JOURNAL, NO_FILE, Record, Source, Task, shallow
from pneumo_fast.errors import ConvertError
from pneumo_fast.phantoms.dicom_file import write_dicom

TASK = Task(
    name="train-0", split="train", images=Path(), out=Path(), sources=(), size=48, dtype="float16", layout="shards",
    decode="gpu", window="auto", max_pixels=10**6, key=b"", gpu=0,
)  # fmt: skip
RECORD = Record(
    name="train-0", split="train", bytes=0, checksum="", sum=0.0, square_sum=0.0, pixels=0,
    images=[{"image_id": "0"}], rejects=[],
)  # fmt: skip
ANSWER = json.dumps(shallow(RECORD)).encode()
"""Of a worker, but for the end of its line."""


def test_a_task_that_took_its_worker_down_is_done_again_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int | None] = []

    class Fragile:
        process = SimpleNamespace(poll=lambda: 0)

        def __init__(self, *_: object) -> None:
            """No process is started."""

        def run(self, task: Task, *_: object) -> Record:
            tried.append(task.gpu)
            if task.gpu is not None:
                raise WorkerLostError(NO_FILE, "crashed", "the worker ended (SIGSEGV)")
            return RECORD

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(supervisor, "Worker", Fragile)
    outcome = WorkerPool().run_task(replace(TASK, lasting=False), 10.0)
    assert (outcome.stored, outcome.record) == (1, RECORD)
    assert tried == [0, None]


@pytest.mark.parametrize("answer", [b"", ANSWER[:20], ANSWER])
def test_a_worker_that_dies_while_it_answers_is_lost(answer: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, answer)
    os.close(writing)
    worker = cast("Any", Worker.__new__(Worker))
    worker._journal = mmap.mmap(-1, JOURNAL.size)
    JOURNAL.pack_into(worker._journal, 0, NO_FILE, time.monotonic())
    with os.fdopen(reading, "rb") as stdout, Path(os.devnull).open("wb") as stdin:
        worker.process = SimpleNamespace(stdin=stdin, stdout=stdout, wait=lambda: -9)
        with pytest.raises(WorkerLostError, match=r"the worker ended \(SIGKILL\)"):
            worker.run(TASK, {}, 10.0)


def test_a_worker_is_heard_through_a_descriptor_of_any_number() -> None:
    reading, writing = os.pipe()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if hard > 0 else 4096, hard))
    try:
        high = fcntl.fcntl(reading, fcntl.F_DUPFD_CLOEXEC, 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(reading)
    os.write(writing, ANSWER + b"\n")
    os.close(writing)
    worker = cast("Any", Worker.__new__(Worker))
    worker._journal = mmap.mmap(-1, JOURNAL.size)
    with os.fdopen(high, "rb") as stdout, Path(os.devnull).open("wb") as stdin:
        worker.process = SimpleNamespace(stdin=stdin, stdout=stdout)
        assert worker.run(TASK, {}, 10.0) == RECORD


MANY = replace(TASK, gpu=None, sources=tuple(Source(f"{n:09d}", f"{n:09d}.dcm", f"{n:09d}", 0) for n in range(9000)))
"""More than a pipe holds."""


@pytest.fixture
def piped() -> Iterator[tuple[Worker, IO[bytes], IO[bytes]]]:
    """A worker without a process: what it is asked is read, and answered, by the test."""
    questions, answers = os.pipe(), os.pipe()
    worker = cast("Any", Worker.__new__(Worker))
    worker._journal = mmap.mmap(-1, JOURNAL.size)
    with (
        os.fdopen(questions[0], "rb") as read, os.fdopen(questions[1], "wb") as stdin,
        os.fdopen(answers[0], "rb") as stdout, os.fdopen(answers[1], "wb") as answer,
    ):  # fmt: skip
        worker.process = SimpleNamespace(stdin=stdin, stdout=stdout)
        yield worker, read, answer


def test_a_worker_that_takes_no_task_is_lost(
    piped: tuple[Worker, IO[bytes], IO[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE", 1)
    with pytest.raises(WorkerLostError, match=r"what is done between files took longer than 0\.1 s"):
        piped[0].run(MANY, {}, 0.1)


def test_a_task_arrives_whole(piped: tuple[Worker, IO[bytes], IO[bytes]]) -> None:
    worker, questions, answers = piped
    expected = pickle.dumps((MANY, {7: ("crashed", "")}))
    with ThreadPoolExecutor(1) as threads:
        record = threads.submit(worker.run, MANY, {7: ("crashed", "")}, 60.0)
        assert questions.read(len(expected)) == expected
        answers.write(ANSWER + b"\n")
        answers.flush()
        assert record.result(60) == RECORD


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

    def run_or_die(worker: Worker, task: Task, *more: Any) -> Record:
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


@pytest.fixture
def one_image(tmp_path: Path) -> Task:
    write_dicom(tmp_path / "image.dcm", np.full((64, 64), 7, dtype=np.uint8))
    (tmp_path / "out" / ".convert").mkdir(parents=True)
    return replace(
        TASK,
        images=tmp_path,
        out=tmp_path / "out",
        sources=(Source("0", "image.dcm", "0", 0),),
        decode="fast",
        gpu=None,
    )


@pytest.mark.parametrize("name", ["resource", "numpy", "pickle", "typing", "pneumo_fast"])
def test_a_worker_runs_nothing_that_lies_in_the_working_directory(
    name: str, one_image: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\nraise ImportError\n")
    monkeypatch.chdir(tmp_path)
    with local_workers(1) as submit:
        assert submit(one_image, 10.0).result(30).stored == 1
    assert not (tmp_path / "was_run").exists()


def test_a_worker_finds_the_package_where_this_process_has_it() -> None:
    """As in a checkout that is not installed; without a parent of that number it ends at once."""
    program = supervisor.START.format(home=supervisor.HOME, entry="main", parent=0)
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_a_worker_goes_on_while_a_shard_is_flushed(one_image: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(one_image, name="train-1")
    flushing, converted = threading.Event(), threading.Event()
    keep = Record.keep

    def keep_slowly(record: Record, task: Task) -> None:
        if task is one_image:
            flushing.set()
            assert converted.wait(30)
        keep(record, task)

    monkeypatch.setattr(Record, "keep", keep_slowly)
    with local_workers(1) as submit:
        first = submit(one_image, 10.0)
        assert flushing.wait(30)
        submit(other, 10.0).result(30)
        assert Record.find(one_image) is None
        converted.set()
        first.result(30)
    assert Record.find(one_image) is not None


def test_workers_are_as_many_as_are_asked_for(one_image: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[int] = set()
    run = Worker.run

    def run_and_tell(worker: Worker, *arguments: Any) -> Record:
        used.add(worker.process.pid)
        return run(worker, *arguments)

    monkeypatch.setattr(Worker, "run", run_and_tell)
    with local_workers(1) as submit:
        tasks = [submit(replace(one_image, name=f"train-{number}"), 10.0) for number in range(4)]
        assert sum(task.result(30).stored for task in tasks) == 4
    assert len(used) == 1


def test_no_record_tells_of_what_could_not_be_flushed(one_image: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(task_module, "sync_path", fail)
    with (
        local_workers(1) as submit,
        pytest.raises(ConvertError, match=r"shard train-0 cannot be written \(Input/output error\): .* --resume"),
    ):
        submit(one_image, 10.0).result(30)
    assert Record.find(one_image) is None


def test_workers_that_ended_for_want_of_work_are_no_lost_ones() -> None:
    pool = WorkerPool()
    workers = [pool._take() for _ in range(3)]
    for worker in workers:
        pool._give_back(worker)
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
    fresh = pool._take()
    assert fresh not in workers
    assert fresh.process.poll() is None
    pool.stop()
    pool._give_back(fresh)
