"""Where tasks run: in threads of this process that each supervise a worker process, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager

from pneumo_fast.errors import ConvertError
from pneumo_fast.supervise import Outcome, WorkerPool
from pneumo_fast.worker import Task

Submit = Callable[[Task, float], "Future[Outcome]"]

_remote_pool = WorkerPool()  # on a Dask worker: its processes outlive the task, and Dask hands nothing else on


@contextmanager
def local_workers(count: int) -> Iterator[Submit]:
    """Run tasks in ``count`` worker processes of this machine; none is left when the block ends, however it ends."""
    pool = WorkerPool()
    executor = ThreadPoolExecutor(count, thread_name_prefix="pneumo-fast-convert")
    try:
        yield lambda task, timeout_s: executor.submit(pool.run_task, task, timeout_s)
    finally:
        pool.stop()
        executor.shutdown(cancel_futures=True)
        pool.close()


@contextmanager
def dask_workers(address: str) -> Iterator[Submit]:
    """Run tasks on the Dask cluster whose scheduler listens at ``address``; images and dataset are on shared disks.

    Raises
    ------
    ConvertError
        If Dask is not installed or the scheduler does not answer.
    """
    try:
        from distributed import Client  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ConvertError("--scheduler needs Dask: pip install 'pneumo-fast[dask]'") from error
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise ConvertError(f"no Dask scheduler answers at {address} ({type(error).__name__}): start one") from error
    with client:
        executor: Executor = client.get_executor(pure=False)
        try:
            yield lambda task, timeout_s: executor.submit(run_remote, task, timeout_s)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            client.run(stop_remote)


def run_remote(task: Task, timeout_s: float) -> Outcome:
    """Run a task on a Dask worker, in a worker process of the Dask worker's own."""
    return _remote_pool.run_task(task, timeout_s)


def stop_remote() -> None:
    """Kill the worker processes of a Dask worker; later tasks start new ones."""
    _remote_pool.restart()
