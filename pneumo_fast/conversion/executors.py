"""Where tasks run: in threads of this process that each supervise a worker process, or on a Dask cluster."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from pneumo_fast.conversion.gpu_decoder import PROCESSES, has_gpu
from pneumo_fast.conversion.supervisor import Outcome, WorkerPool
from pneumo_fast.conversion.task import Task
from pneumo_fast.errors import ConvertError
from pneumo_fast.extras import DASK
from pneumo_fast.resources import usable_cores

NICENESS: Final = 10
"""Of workers that share the cores with the model: its threads wait for one another, so that one that is kept from its
core keeps them all."""

log = logging.getLogger(__name__)

Submit = Callable[[Task, float], "Future[Outcome]"]

# On a Dask worker, which hands nothing from task to task: the worker processes of each conversion, by its name. A
# stopped pool stays, so that a task that is still on its way finds it stopped.
_remote_pools: defaultdict[str, WorkerPool] = defaultdict(WorkerPool)
_remote_lock = threading.Lock()


def worker_count(asked: int | None, *, uses_gpu: bool) -> int:
    """Worker processes on this machine: as many as asked for, else one for each core, or as many as share a GPU."""
    cores = usable_cores()
    return asked or (min(cores, PROCESSES) if uses_gpu and has_gpu() else cores)


@contextmanager
def local_workers(count: int, shared: tuple[int, ...] = (), *, shares_cores: bool = False) -> Iterator[Submit]:
    """Run tasks in ``count`` worker processes of this machine; none is left when the block ends, however it ends.

    Parameters
    ----------
    shared : tuple of int
        As of :class:`~pneumo_fast.conversion.supervisor.WorkerPool`.
    shares_cores : bool
        Whether a model computes on the same cores meanwhile: the worker processes then give way (:data:`NICENESS`).
    """
    pool = WorkerPool(NICENESS if shares_cores else 0, shared, most=count)
    executor = ThreadPoolExecutor(2 * count, thread_name_prefix="pneumo-fast-convert")
    try:
        yield lambda task, timeout_s: executor.submit(pool.run_task, task, timeout_s)
    finally:
        pool.stop()
        executor.shutdown(cancel_futures=True)


@contextmanager
def dask_workers(address: str) -> Iterator[Submit]:
    """Run tasks on the Dask cluster whose scheduler listens at ``address``; images and dataset are on shared disks.

    Raises
    ------
    ConvertError
        If Dask is not installed, the scheduler does not answer, or the cluster is lost while tasks run.
    """
    try:
        from distributed import Client, KilledWorker  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ConvertError(DASK.needed_by("--scheduler", "Dask")) from error
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConvertError(f"no Dask scheduler answers at {address} ({type(error).__name__}): start one") from error
    conversion = secrets.token_hex(8)
    with client:
        if not client.scheduler_info()["workers"]:
            log.warning("The Dask cluster at %s has no workers yet: waiting for them", address)
        executor: Executor = client.get_executor(pure=False)
        try:
            yield lambda task, timeout_s: executor.submit(run_remote, conversion, task, timeout_s)
        except (KilledWorker, CancelledError) as error:
            raise ConvertError(
                f"the Dask cluster at {address} lost its workers or its scheduler ({type(error).__name__}): see its "
                "logs, then resume with --resume"
            ) from error
        finally:
            if client.status == "running":  # else the scheduler is lost, and the workers with it
                executor.shutdown(wait=False)
                client.run(stop_remote, conversion)


def run_remote(conversion: str, task: Task, timeout_s: float) -> Outcome:
    """Run a task on a Dask worker, in a worker process of the Dask worker's own."""
    return _remote_pool(conversion).run_task(task, timeout_s)


def stop_remote(conversion: str) -> None:
    """Kill the worker processes that a Dask worker keeps for a conversion, and start no more for it."""
    _remote_pool(conversion).stop()


def _remote_pool(conversion: str) -> WorkerPool:
    with _remote_lock:
        return _remote_pools[conversion]
