"""Opens all that a run needs, and closes it again: device, data, model, loaders, run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from pneumo_fast.devices import resolve_amp
from pneumo_fast.errors import DeviceError
from pneumo_fast.files import write_atomic
from pneumo_fast.progress import OnProgress
from pneumo_fast.run.checkpoint import Resumable
from pneumo_fast.run.folder import clear_run, find_run, run_locked, write_config
from pneumo_fast.run.layout import CURVES
from pneumo_fast.signals import StopRequest
from pneumo_fast.training import distributed, setup
from pneumo_fast.training.batch_size import choose_batch_size
from pneumo_fast.training.observers import OnEpoch, observing
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.plan import OnStart, Resolved, TrainPlan, describe_run
from pneumo_fast.training.session import Session


@contextmanager
def prepare(
    config: TrainConfig, on_start: OnStart | None, on_epoch: OnEpoch | None, on_progress: OnProgress | None
) -> Iterator[Session]:
    """A session that is ready for its next step, or that does not go on; see :func:`~pneumo_fast.training.train.train`.

    What cannot work is said before anything is written. At the end the learning curves are drawn.
    """
    with (
        distributed.joined(config.device) as (device, rank),
        StopRequest() as request,
        distributed.by_first_alone(run_locked(config.out)),
    ):
        setup.check_options(config, device, rank)
        amp_dtype = resolve_amp(device, amp=config.amp, dtype=config.amp_dtype)
        data, pos_weight, settings, found = look_up(config, amp_dtype)
        dataset = data.dataset
        trained = found.trained if found else setup.untrained(config, dataset, pos_weight, settings)
        session = Session(config, trained, rank, request)
        if not session.goes_on():
            yield session
            return
        if "batch-size" not in trained.settings:
            trained.settings["batch-size"] = choose_batch_size(config, data, device, rank, amp_dtype)
        batch_size = int(trained.settings["batch-size"])
        with (
            setup.training_loader(config, data, device, rank, batch_size) as images,
            setup.validation_loader(config, dataset, device, rank, batch_size) as validation,
        ):
            learner = setup.make_learner(
                config, device, rank, size=dataset.size, batches=len(images), pos_weight=pos_weight,
                amp_dtype=amp_dtype, classes=len(data.classes),
            )  # fmt: skip
            session.begin(learner, images, validation)
            if found:
                session.restore(found)
            resolved = Resolved(
                device=device, amp_dtype=amp_dtype, pos_weight=pos_weight, batch_size=batch_size, loader=images.engine,
                processes=rank.world_size,
            )  # fmt: skip
            if on_start and rank.number == 0:
                on_start(TrainPlan.of(config, resolved, dataset, learner, trained.epoch))
            # what cannot work has been said by now: only here does an earlier run go
            distributed.by_first(lambda: clear_run(config.out, keep=found is not None))
            distributed.by_first(lambda: write_config(config.out, describe_run(config, dataset, resolved)))
            with observing(config, rank, on_epoch, on_progress) as session.observers, _memory_told(device, batch_size):
                if config.compile:
                    size = images.size // 2 if session.is_half_size else images.size
                    setup.warm_up_compiler(learner, batch_size // rank.world_size, size, images.targets(0, 0))
                yield session
        if rank.number == 0:
            from pneumo_fast.drawing.learning_curves import draw_learning_curves  # noqa: PLC0415  # takes 0.3 s

            write_atomic(config.out / CURVES, draw_learning_curves(session.trained.history, session.trained.best_epoch))


class Found(NamedTuple):
    """What a run starts from."""

    data: setup.TrainingData
    pos_weight: float
    settings: dict[str, Any]
    """The options that shape the result."""
    checkpoint: Resumable | None
    """To go on from."""


def look_up(config: TrainConfig, amp_dtype: torch.dtype | None) -> Found:
    """Open the data and find an earlier run; changes nothing.

    Raises
    ------
    DatasetError
        As of :func:`~pneumo_fast.training.setup.open_data`.
    RunError
        As of :func:`~pneumo_fast.run.folder.find_run`.
    """
    data = setup.open_data(config)
    pos_weight = setup.choose_pos_weight(data.dataset, config)
    settings = setup.settings_of(config, data, pos_weight, amp_dtype)
    checkpoint = distributed.by_first(
        lambda: find_run(config.out, settings, resume=config.resume, overwrite=config.overwrite)
    )
    return Found(data, pos_weight, settings, checkpoint)


@contextmanager
def _memory_told(device: torch.device, batch_size: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"a batch of {batch_size} images does not fit into the memory of {device}: lower --batch-size (auto finds "
            "the largest that fits), raise --accumulate or give --amp; the last checkpoint, if any, is kept"
        ) from error
