"""Opens all that a run needs, and closes it again: device, data, model, loaders, run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pneumo_fast.devices import resolve_amp
from pneumo_fast.errors import DeviceError
from pneumo_fast.files import write_atomic
from pneumo_fast.loading.batches import Rank
from pneumo_fast.progress import OnProgress
from pneumo_fast.run.checkpoint import Resumable, Trained
from pneumo_fast.run.folder import clear_run, find_run, run_locked, write_config
from pneumo_fast.run.layout import CURVES
from pneumo_fast.signals import StopRequest
from pneumo_fast.training import distributed, setup
from pneumo_fast.training.batch_size import choose_batch_size
from pneumo_fast.training.observers import OnEpoch, observing
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.plan import OnStart, Resolved, TrainPlan, describe_run
from pneumo_fast.training.session import Session


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What is known of a run before its model is made."""

    device: torch.device
    rank: Rank
    request: StopRequest
    """Notes a signal that asks to stop."""
    amp_dtype: torch.dtype | None
    """Data type of mixed precision, where it is on."""
    data: setup.TrainingData
    trained: Trained
    """What is trained so far; the session keeps it up to date."""
    checkpoint: Resumable | None
    """To resume from."""


@contextmanager
def opened(config: TrainConfig) -> Iterator[Start]:
    """Join the other processes, listen for signals, lock the run folder, open the data and find an earlier run."""
    with (
        distributed.joined(config.device) as (device, rank),
        StopRequest() as request,
        distributed.by_first_alone(run_locked(config.out)),
    ):
        setup.check_options(config, device, rank)
        amp_dtype = resolve_amp(device, amp=config.amp, dtype=config.amp_dtype)
        data, trained, checkpoint = look_up(config, amp_dtype)
        yield Start(
            device=device, rank=rank, request=request, amp_dtype=amp_dtype, data=data, trained=trained,
            checkpoint=checkpoint,
        )  # fmt: skip


def look_up(config: TrainConfig, amp_dtype: torch.dtype | None) -> tuple[setup.TrainingData, Trained, Resumable | None]:
    """Open the data and find an earlier run; changes nothing.

    Returns
    -------
    data : TrainingData
    trained : Trained
        What that run trained, or nothing yet.
    checkpoint : Resumable or None
        Of that run, to resume from.

    Raises
    ------
    DatasetError
        As of :func:`~pneumo_fast.training.setup.open_data`.
    RunError
        As of :func:`~pneumo_fast.run.folder.find_run`.
    """
    data = setup.open_data(config)
    untrained = setup.untrained(config, data, amp_dtype)
    checkpoint = distributed.by_first(
        lambda: find_run(config.out, untrained.settings, resume=config.resume, overwrite=config.overwrite)
    )
    return data, checkpoint.trained if checkpoint else untrained, checkpoint


@contextmanager
def prepare(
    config: TrainConfig,
    start: Start,
    on_start: OnStart | None,
    on_epoch: OnEpoch | None,
    on_progress: OnProgress | None,
) -> Iterator[Session]:
    """A session that is ready for its next step; see :func:`~pneumo_fast.training.train.train`.

    What cannot work, but for a compiler that fails, is said before anything is written. At the end the learning curves
    are drawn.
    """
    device, rank, data, trained = start.device, start.rank, start.data, start.trained
    if "batch-size" not in trained.settings:
        trained.settings["batch-size"] = choose_batch_size(config, data, device, rank, start.amp_dtype)
    batch_size = int(trained.settings["batch-size"])
    with (
        setup.training_loader(config, data, device, rank, batch_size) as images,
        setup.validation_loader(config, data.dataset, device, rank, batch_size) as validation,
    ):
        learner = setup.make_learner(
            config, device, rank, size=data.dataset.size, batches=len(images), pos_weight=trained.pos_weight,
            amp_dtype=start.amp_dtype, classes=len(data.classes),
        )  # fmt: skip
        session = Session(
            config=config, trained=trained, rank=rank, request=start.request, learner=learner, images=images,
            validation=validation,
        )  # fmt: skip
        if start.checkpoint:
            session.restore(start.checkpoint)
        resolved = Resolved(
            device=device, amp_dtype=start.amp_dtype, pos_weight=trained.pos_weight, batch_size=batch_size,
            loader=images.engine, processes=rank.world_size,
        )  # fmt: skip
        if on_start and rank.number == 0:
            on_start(TrainPlan.of(config, resolved, data.dataset, learner, trained.epoch))
        # an earlier run goes only now that all that can be checked beforehand has been
        distributed.by_first(lambda: clear_run(config.out, keep=start.checkpoint is not None))
        distributed.by_first(lambda: write_config(config.out, describe_run(config, data.dataset, resolved)))
        with (
            observing(config, rank, on_epoch, on_progress) as session.observers,
            _out_of_memory_explained(device, batch_size),
        ):
            if config.compile:
                size = images.size // 2 if session.is_half_size else images.size
                setup.warm_up_compiler(learner, batch_size // rank.world_size, size, images.targets(0, 0))
            yield session
    if rank.number == 0:
        from pneumo_fast.drawing.learning_curves import draw_learning_curves  # noqa: PLC0415  # takes 0.3 s

        write_atomic(config.out / CURVES, draw_learning_curves(trained.history, trained.best_epoch))


@contextmanager
def _out_of_memory_explained(device: torch.device, batch_size: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"a batch of {batch_size} images does not fit into the memory of {device}: lower --batch-size (auto finds "
            "the largest that fits), raise --accumulate or give --amp; the last checkpoint, if any, is kept"
        ) from error
