"""Training by hand in plain PyTorch: the loop over epochs and steps, and the validation after each epoch.

One call of :func:`train` makes a run folder (see :mod:`pneumo_fast.run.layout`). The step is in
:mod:`pneumo_fast.training.learner`; :mod:`pneumo_fast.training.session` counts, saves and stops between two steps.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pneumo_fast.errors import ConfigError, TrainingError
from pneumo_fast.loading.loader import Loader
from pneumo_fast.metrics.ranking import auroc, average_precision
from pneumo_fast.metrics.scored import sigmoid
from pneumo_fast.progress import OnProgress
from pneumo_fast.run.checkpoint import EpochRecord
from pneumo_fast.training import distributed
from pneumo_fast.training.direct import with_dataset
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.observers import OnEpoch
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.plan import OnStart
from pneumo_fast.training.prepare import opened, prepare
from pneumo_fast.training.session import goes_on
from pneumo_fast.vocabulary import counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSummary:
    """What training did."""

    run: Path
    epochs: int
    """Finished epochs, earlier ones included."""
    best_epoch: int
    """From 1."""
    best: float
    """The monitored figure of that epoch."""
    monitor: str
    """Which figure that is."""
    history: list[EpochRecord]
    signal: int = 0
    """Number of a signal that asked to stop when no epoch was left; 0 for none."""


def train(
    config: TrainConfig,
    on_epoch: OnEpoch | None = None,
    on_progress: OnProgress | None = None,
    *,
    on_start: OnStart | None = None,
) -> TrainSummary:
    """Train a classifier; the best and the last checkpoint end up in ``config.out``.

    Started by ``torchrun``, each process trains on its share of the same batches, and the first of them writes.

    Parameters
    ----------
    on_epoch : callable, optional
        Called with the record of each finished epoch, in the first process.
    on_progress : callable, optional
        Called with (training images seen, training images to see in all) after each step, in the first process.
    on_start : callable, optional
        Called with a :class:`~pneumo_fast.training.plan.TrainPlan` before the first step, in the first process.

    Raises
    ------
    ConfigError
        If an option cannot work on this device or with these images, or no single fold is named.
    DatasetError
        If the dataset is missing or damaged, or a split lacks a class.
    DeviceError
        If the device is not there, or its memory is too small for the model and a batch.
    RunError
        If ``out`` holds a run and neither ``resume`` nor ``overwrite`` is given, or the run does not fit.
    TrainingError
        If the loss is no finite number, or too many steps were skipped; the last good checkpoint is kept.
    TrainingStoppedError
        After SIGINT, SIGTERM or SIGHUP, once the state is saved.
    """
    config, _ = with_dataset(config)
    if config.all_folds:
        raise ConfigError(f"folds {config.folds} without fold: name one, or train all of them with cross_validate")
    with opened(config) as start:
        if goes_on(config, start.trained):
            with prepare(config, start, on_start, on_epoch, on_progress) as session:
                while session.goes_on():
                    for images, labels, batch_size, targets in session.batches():  # (N, 1, H, W); (N,) of 0 or 1
                        losses, logits, auxiliary = session.learner.step(images, labels, batch_size, targets)
                        session.after_step(losses, logits, labels, auxiliary)
                    session.finish_epoch(validate(session.learner, session.validation, session.epoch))
        elif start.rank.number == 0:
            done = f"{counted(start.trained.epoch, 'epoch')} finished"
            early = f", {config.patience} without improvement" if start.trained.epoch < config.epochs else ""
            logger.info("%s%s, %d asked for: nothing to train", done, early, config.epochs)
    trained = start.trained
    return TrainSummary(
        run=config.out, epochs=trained.epoch, best_epoch=trained.best_epoch, best=trained.best,
        monitor=trained.monitor, history=trained.history, signal=start.request.signal,
    )  # fmt: skip


@torch.inference_mode()
def validate(learner: Learner, loader: Loader, epoch: int) -> EpochRecord:
    """Judge the learner's model on a split, every image once, whatever the number of processes.

    Parameters
    ----------
    epoch : int
        From 0.

    Returns
    -------
    dict
        ``val_loss``, with the weight of positives and in float64; ``val_accuracy`` at probability 0.5, ``val_auroc``
        and ``val_ap``, each in [0, 1]; ``val_seconds``.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    network, begin = learner.judged_model.eval(), time.perf_counter()
    distributed.take_buffers_of_first(network)  # which is the one that is kept
    parts = [(learner.logits(images, network), labels.clone()) for images, labels in loader.epoch(epoch)]
    logits = distributed.gathered(torch.cat([part for part, _ in parts])).cpu()
    labels = distributed.gathered(torch.cat([part for _, part in parts])).cpu()
    weight = torch.tensor(learner.pos_weight, dtype=torch.float64)
    loss = binary_cross_entropy_with_logits(logits.double(), labels.double(), pos_weight=weight).item()
    if not math.isfinite(loss):
        raise TrainingError(
            f"the validation loss became {loss} in epoch {epoch + 1}: lower --lr or omit --amp; the last "
            "checkpoint, if any, is kept"
        )
    truth, scores = labels.numpy().astype(np.int64), logits.numpy()
    return {
        "val_loss": loss,
        "val_accuracy": float(((sigmoid(scores) >= 0.5) == truth).mean()),
        "val_auroc": auroc(truth, scores),
        "val_ap": average_precision(truth, scores),
        "val_seconds": time.perf_counter() - begin,
    }
