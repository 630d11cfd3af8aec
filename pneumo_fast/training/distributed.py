"""Several processes that train together, as ``torchrun`` starts them; alone, every call is free and changes nothing.

Sums and gathers go over NCCL on GPUs and over Gloo on CPUs. Decisions (to stop, to save) are made together, or the
processes would wait for each other for ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import distributed, nn

from pneumo_fast.devices import resolve_device
from pneumo_fast.errors import DeviceError, RunError
from pneumo_fast.loading.batches import Rank

T = TypeVar("T")


@contextmanager
def joined(device: str) -> Iterator[tuple[torch.device, Rank]]:
    """Join the processes that ``torchrun`` started, unless they are; gives the device and the number of this one.

    Raises
    ------
    DeviceError
        If the device is not there, or one is named for all processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield resolve_device(device), Rank()
        return
    if device.startswith("cuda:"):
        raise DeviceError(f"device {device!r} for several processes: each takes its own, give cuda or auto")
    mine = resolve_device(device)
    if mine.type == "cuda":
        mine = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(mine)
    if joins := not _together():
        distributed.init_process_group("nccl" if mine.type == "cuda" else "gloo")
    try:
        yield mine, Rank(number=distributed.get_rank(), world_size=distributed.get_world_size())
    finally:
        if joins:
            distributed.destroy_process_group()


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes."""
    if _together():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def highest(value: int, device: torch.device) -> int:
    """The highest of the processes' values; waits for the device."""
    if not _together():
        return value
    shared = torch.tensor(value, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return int(shared)


def gathered(values: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, one process after the other; each may have another number of them."""
    if not _together():
        return values
    parts: list[torch.Tensor] = [values] * distributed.get_world_size()
    distributed.all_gather_object(parts, values.cpu())
    return torch.cat(parts)


def take_buffers_of_first(model: nn.Module) -> None:
    """Give the model of every process the first one's buffers: of BatchNorm's statistics each has its own."""
    if _together():
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def apart(network: nn.Module) -> AbstractContextManager[None]:
    """Processes exchange gradients once for a batch, with its last part, and not within this context manager."""
    copy = getattr(network, "_orig_mod", network)  # within what torch.compile made of it
    if isinstance(copy, nn.parallel.DistributedDataParallel):
        return cast("AbstractContextManager[None]", copy.no_sync())
    return nullcontext()


def by_first(act: Callable[[], T]) -> T:
    """What the first process finds, or fails with, is that of all.

    Raises
    ------
    RunError
        In every process, if the first one raises it.
    """
    if not _together():
        return act()
    box: list[Any] = [None, None]
    if distributed.get_rank() == 0:
        try:
            box[0] = act()
        except RunError as error:
            box[1] = str(error)
    distributed.broadcast_object_list(box)
    found, failure = box
    if failure:
        raise RunError(failure)
    return cast("T", found)


@contextmanager
def by_first_alone(block: AbstractContextManager[None]) -> Iterator[None]:
    """Have the first process alone enter a block, such as a lock, and stay in it as long as all stay in this one.

    Raises
    ------
    RunError
        In every process, if the first one raises it on entering.
    """
    with ExitStack() as stack:
        by_first(lambda: stack.enter_context(block))
        yield


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
