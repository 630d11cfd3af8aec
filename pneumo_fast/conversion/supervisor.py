"""Keeps a disposable worker process for each thread that runs a task, and survives whatever happens to it.

An executor (threads of this process, or a Dask cluster's) only places tasks; isolation is in here. The worker
journals the file it is at. If it dies, or stays at one file, or at none, for longer than allowed, it is replaced and
the task done again; a file at which that happens twice is rejected and not read any more, so that it can neither stop
the conversion nor wander from worker to worker.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from pneumo_fast.conversion.task import JOURNAL, NO_FILE, Record, Task, count_rejects
from pneumo_fast.errors import ConvertError

STRIKES = 2  # a worker can be killed from outside, or the machine stall: one more chance for the file
LOST_WORKERS = 5  # deaths of workers that were at no file, for instance while writing, before a task gives up
PATIENCE = 10  # times a file's time limit: how long a worker may be at no file, to start or to write a shard
GPU_START_S = 60.0  # that a worker may take at no file while it uses a GPU, whose start takes seconds
POLL_S = 0.25
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
HOME = str(Path(__file__).absolute().parents[2])
START = (
    # "python -c" puts the working directory first on sys.path, and a numpy.py beside the images must not be imported
    "import sys; sys.path[:] = [place for place in sys.path if place]; import importlib, typing; "
    # the package of this process; the folder above it is on sys.path for this one import alone
    "sys.path.insert(0, {home!r}); import pneumo_fast; del sys.path[0]; "
    "from pneumo_fast.conversion.child import {entry}; {entry}({parent})"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a finished task reports."""

    stored: int
    rejected: int
    """For a fault of the file."""
    skipped: int
    """As other objects than are wanted."""
    record: Record | None
    """What became of the files; None where it is kept in a file, beside what is to last."""


class WorkerLostError(Exception):
    """The worker died or was killed while at a file, or at none."""

    def __init__(self, position: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.position = position
        self.reason = reason
        self.detail = detail


def start_child(entry: str, *arguments: str, descriptors: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a process that runs the function ``entry`` of the module ``child``, with pipes to and from it."""
    return subprocess.Popen(  # noqa: S603  # our own interpreter and program
        [sys.executable, "-c", START.format(home=HOME, entry=entry, parent=os.getpid()), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=descriptors,
        env=os.environ | ONE_THREAD,
    )


class Worker:
    """One child process and the memory it journals in."""

    def __init__(self, niceness: int = 0, shared: tuple[int, ...] = ()) -> None:
        descriptor = os.memfd_create("pneumo-fast-journal")
        try:
            os.truncate(descriptor, JOURNAL.size)
            self._journal = mmap.mmap(descriptor, JOURNAL.size)
            JOURNAL.pack_into(self._journal, 0, NO_FILE, time.monotonic())
            self.process = start_child("main", str(descriptor), descriptors=(descriptor, *shared))
            if niceness:
                own = os.getpriority(os.PRIO_PROCESS, 0)
                with contextlib.suppress(ProcessLookupError):  # it has ended already, which will be noticed
                    os.setpriority(os.PRIO_PROCESS, self.process.pid, own + niceness)
        finally:
            os.close(descriptor)

    def run(self, task: Task, rejected_sources: dict[int, tuple[str, str]], timeout_s: float) -> Record:
        """Have the task done; what became of its files.

        Raises
        ------
        WorkerLostError
            If the worker died, or was killed for staying at one file for longer than ``timeout_s``.
        ConvertError
            If the shard could not be written.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise ConvertError("a worker process has no pipes")
        JOURNAL.pack_into(self._journal, 0, NO_FILE, time.monotonic())  # it was idle until now
        os.set_blocking(stdin.fileno(), False)  # a worker that hangs while it starts takes no more than a pipe holds
        asked = memoryview(pickle.dumps((task, rejected_sources)))
        while asked:
            self._wait_for(stdin, select.POLLOUT, task, timeout_s)
            try:
                asked = asked[os.write(stdin.fileno(), asked) :]
            except BrokenPipeError:
                raise self._lost() from None
        self._wait_for(stdout, select.POLLIN, task, timeout_s)
        line = stdout.readline()
        if not line.endswith(b"\n"):
            raise self._lost()
        answer = json.loads(line)
        if "error" in answer:
            if task.memory is not None:
                raise ConvertError(f"no memory is left for decoded images: {answer['error']}")
            raise _not_written(task, answer["error"])
        return Record(**answer)

    def _wait_for(self, pipe: IO[bytes], event: int, task: Task, timeout_s: float) -> None:
        """Wait until the pipe can be read or written, or the worker's time is up."""
        ready = select.poll()  # which takes descriptors of any number, as select() does not
        ready.register(pipe, event)
        while not ready.poll(POLL_S * 1000):
            position, since = JOURNAL.unpack_from(self._journal)
            least_s = GPU_START_S if task.gpu is not None else 0.0
            allowed = timeout_s if position != NO_FILE else max(PATIENCE * timeout_s, least_s)
            if time.monotonic() - since > allowed:
                what = "reading" if position != NO_FILE else "what is done between files"
                raise WorkerLostError(position, "timeout", f"{what} took longer than {allowed:g} s")

    def _lost(self) -> WorkerLostError:
        """Why the worker died, and where it was."""
        code = self.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        position = JOURNAL.unpack_from(self._journal)[0]
        what = "the worker ended" if position == NO_FILE else "the decoder crashed"
        return WorkerLostError(position, "crashed", f"{what} ({how})")

    def close(self) -> None:
        """Kill the process, wait for its end and close its pipes; only by the thread that uses it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # closing flushes
                    pipe.close()


def _not_written(task: Task, detail: str) -> ConvertError:
    return ConvertError(f"shard {task.name} cannot be written ({detail}): fix that, then resume with --resume")


class WorkerPool:
    """The workers of one process: as many as threads run tasks at once, started when first needed.

    Parameters
    ----------
    niceness : int
        What is added to the workers' own (nice(2)): the higher, the more another process goes before them.
    shared : tuple of int
        Descriptors that are open in the workers as well, under the same numbers.
    most : int, optional
        Workers at once. Where more threads run tasks than that, workers go on while what they wrote is flushed to disk.
    """

    def __init__(self, niceness: int = 0, shared: tuple[int, ...] = (), most: int | None = None) -> None:
        self._options = niceness, shared
        self._places = threading.Semaphore(most) if most else contextlib.nullcontext()
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._stopped = False

    def run_task(self, task: Task, timeout_s: float) -> Outcome:
        """Convert one task's images, whatever its files do to the worker.

        Raises
        ------
        ConvertError
            If the shard cannot be written, workers keep dying for no file's fault, or the pool was stopped.
        """
        with self._places:
            record = self._run(task, timeout_s)
        kept = task.lasting and task.memory is None
        if kept:
            try:
                record.keep(task)
            except OSError as error:
                raise _not_written(task, error.strerror or type(error).__name__) from error
        rejected, skipped = count_rejects(record.rejects)
        return Outcome(
            stored=len(record.images), rejected=rejected, skipped=skipped, record=None if kept else record
        )  # fmt: skip

    def _run(self, task: Task, timeout_s: float) -> Record:
        """Have a worker do the task, and another one if need be."""
        rejected_sources: dict[int, tuple[str, str]] = {}
        strikes: Counter[int] = Counter()
        while True:
            worker = self._take(new=bool(strikes))
            try:
                return worker.run(task, rejected_sources, timeout_s)
            except WorkerLostError as lost:
                worker.close()
                at = lost.position
                strikes[at] += 1
                if task.gpu is not None:  # a batch of frames may have done it: each on its own now
                    task = replace(task, gpu=None)
                if at == NO_FILE and strikes[at] > LOST_WORKERS:
                    message = f"workers keep dying at shard {task.name} ({lost.detail}): out of memory? Try --workers 1"
                    raise ConvertError(message) from lost
                if at != NO_FILE and strikes[at] >= STRIKES:
                    rejected_sources[at] = (lost.reason, lost.detail)
            finally:
                self._give_back(worker)

    def stop(self) -> None:
        """Kill every worker, also in the middle of a task, and start no more."""
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, []
            for worker in self._busy:
                worker.process.kill()  # whoever waits for its answer finds it lost, and closes it
        for worker in idle:
            worker.close()

    def _take(self, *, new: bool = False) -> Worker:
        """A worker for the calling thread alone, which has done nothing yet where a ``new`` one is asked for."""
        with self._lock:
            if self._stopped:
                raise ConvertError("the conversion was stopped: resume with --resume")
            while self._idle and self._idle[-1].process.poll() is not None:  # it has ended for want of work
                self._idle.pop().close()
            idle = self._idle.pop() if self._idle and not new else None
            worker = idle or Worker(*self._options)  # locked, so that stop() misses none
            self._busy.add(worker)
            return worker

    def _give_back(self, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            if worker.process.poll() is None and not self._stopped:
                self._idle.append(worker)
                return
        worker.close()
