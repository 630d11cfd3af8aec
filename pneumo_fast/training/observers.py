"""Who looks on while a run trains: TensorBoard, and a profiler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from pneumo_fast import extras
from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.batches import Rank
from pneumo_fast.progress import OnProgress
from pneumo_fast.run.checkpoint import EpochRecord
from pneumo_fast.run.layout import TENSORBOARD, TRACE
from pneumo_fast.training.options import TrainConfig

logger = logging.getLogger(__name__)

OnEpoch = Callable[[EpochRecord], object]

PROFILED_STEPS = (2, 2, 4)
"""Steps that are passed over, that warm the profiler up, and that it records."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observers:
    """What to call while a run trains."""

    after_epoch: tuple[OnEpoch, ...] = ()
    """Each with the record of the epoch."""
    after_step: tuple[Callable[[], object], ...] = ()
    on_progress: OnProgress | None = None
    """With (training images seen, training images to see in all)."""


@contextmanager
def observing(
    config: TrainConfig, rank: Rank, on_epoch: OnEpoch | None, on_progress: OnProgress | None
) -> Iterator[Observers]:
    """Who looks on; nobody in any but the first of several processes."""
    if rank.number:
        yield Observers()
        return
    with ExitStack() as stack:
        after_epoch: list[OnEpoch] = [stack.enter_context(_tensorboard(config))] if config.tensorboard else []
        after_step = [stack.enter_context(_profiling(config.out / TRACE)).step] if config.profile else []
        if on_epoch:
            after_epoch.append(on_epoch)
        yield Observers(after_epoch=tuple(after_epoch), after_step=tuple(after_step), on_progress=on_progress)


def summary_writer() -> Any:
    """TensorBoard's writer, a class.

    Raises
    ------
    ConfigError
        If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ConfigError(extras.TENSORBOARD.needed_by("--tensorboard", "tensorboard")) from error
    return SummaryWriter


@contextmanager
def _tensorboard(config: TrainConfig) -> Iterator[Callable[[EpochRecord], None]]:
    with summary_writer()(str(config.out / TENSORBOARD)) as writer:

        def write(record: EpochRecord) -> None:
            for name, value in record.items():
                writer.add_scalar(name.replace("_", "/", 1), value, int(record["epoch"]))

        yield write


@contextmanager
def _profiling(path: Path) -> Iterator[profile]:
    """Records a few of the first steps and writes them where chrome://tracing and Perfetto can read them."""
    wait, warm_up, active = PROFILED_STEPS
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]

    def write(profiler: profile) -> None:
        profiler.export_chrome_trace(str(path))
        logger.info("trace of a few steps: %s", path)

    steps = schedule(wait=wait, warmup=warm_up, active=active, repeat=1)
    with profile(activities=activities, schedule=steps, on_trace_ready=write) as profiler:
        yield profiler
    if profiler.step_num <= wait + warm_up:
        logger.warning("no trace: it begins after %d steps, and the run had only %d", wait + warm_up, profiler.step_num)
