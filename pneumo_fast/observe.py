"""Who looks on while a run trains: TensorBoard, and a profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from pneumo_fast.checkpoint import EpochRecord
from pneumo_fast.errors import ConfigError
from pneumo_fast.options import TrainConfig
from pneumo_fast.order import Rank

OnEpoch = Callable[[EpochRecord], object]
OnStep = Callable[[], object]

PROFILED_STEPS = (2, 2, 4)
"""Steps that are passed over, that warm the profiler up, and that it records."""
TRACE, EVENTS = "trace.json", "tensorboard"


@contextmanager
def observing(config: TrainConfig, rank: Rank) -> Iterator[tuple[list[OnEpoch], OnStep]]:
    """What to call after each epoch, and after each step; nothing in any but the first of several processes.

    Raises
    ------
    ConfigError
        If TensorBoard is asked for and not installed.
    """
    with ExitStack() as stack:
        after_epoch: list[OnEpoch] = []
        after_step: OnStep = _nothing
        if rank.number == 0 and config.tensorboard:
            after_epoch.append(stack.enter_context(_tensorboard(config)))
        if rank.number == 0 and config.profile:
            after_step = stack.enter_context(_profiler(config)).step
        yield after_epoch, after_step


def _nothing() -> None:
    """Nobody looks on."""


@contextmanager
def _tensorboard(config: TrainConfig) -> Iterator[Callable[[EpochRecord], None]]:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ConfigError("tensorboard is not installed: pip install 'pneumo-fast[tensorboard]'") from error
    with SummaryWriter(str(config.out / EVENTS)) as writer:

        def write(record: EpochRecord) -> None:
            for name, value in record.items():
                writer.add_scalar(name.replace("_", "/", 1), value, int(record["epoch"]))

        yield write


def _profiler(config: TrainConfig) -> profile:
    """Records a few of the first steps and writes them where chrome://tracing and Perfetto can read them."""
    wait, warm_up, active = PROFILED_STEPS
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]

    def write(profiler: profile) -> None:
        profiler.export_chrome_trace(str(config.out / TRACE))

    return profile(
        activities=activities,
        schedule=schedule(wait=wait, warmup=warm_up, active=active, repeat=1),
        on_trace_ready=write,
    )
