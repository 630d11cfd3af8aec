"""Trains every fold of a cross-validation, one after another; each is a run in a folder of its own."""

from __future__ import annotations

import logging
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pneumo_fast.dataset.splits import patient_units
from pneumo_fast.devices import resolve_amp
from pneumo_fast.errors import ConfigError, DatasetError, TrainingStoppedError
from pneumo_fast.progress import OnProgress
from pneumo_fast.run.folder import run_locked
from pneumo_fast.run.folds import check_place, clear_folds
from pneumo_fast.run.layout import fold_folder
from pneumo_fast.training import distributed, setup
from pneumo_fast.training.direct import with_dataset
from pneumo_fast.training.observers import OnEpoch
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.plan import OnStart, TrainPlan
from pneumo_fast.training.prepare import look_up
from pneumo_fast.training.train import TrainSummary, train

logger = logging.getLogger(__name__)

LEAST_PATIENTS = 2  # of a fold; one would be judged alone


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossValidationSummary:
    """What training every fold did."""

    run: Path
    folds: tuple[TrainSummary, ...]
    """Of each fold, from the first."""


def cross_validate(
    config: TrainConfig,
    on_epoch: OnEpoch | None = None,
    on_progress: OnProgress | None = None,
    *,
    on_start: OnStart | None = None,
) -> CrossValidationSummary:
    """Train every fold, each as ``train`` with ``fold`` would, into ``config.out/fold-1`` and so on.

    With ``resume`` finished folds stay as they are, an interrupted one is resumed, and the rest are trained.
    Parameters and errors are those of :func:`~pneumo_fast.training.train.train`; each fold calls the callbacks.

    Raises
    ------
    ConfigError
        If ``config`` has no ``folds``, or names a fold.
    DatasetError
        If a fold would have images of a single patient or class.
    """
    config, _ = with_dataset(config)
    folds = _fold_configs(config)
    with (
        distributed.joined(config.device) as (device, rank),
        distributed.by_first_alone(run_locked(config.out)),
    ):
        setup.check_options(config, device, rank)
        distributed.by_first(lambda: check_place(config.out, len(folds), overwrite=config.overwrite))
        amp_dtype = resolve_amp(device, amp=config.amp, dtype=config.amp_dtype)
        for fold in folds:
            _check_fold(fold, amp_dtype)
        summaries = []
        for fold in folds:
            summaries.append(_train_fold(fold, on_epoch, on_progress, on_start))
            stop = distributed.highest(summaries[-1].signal, device)
            if stop and fold is not folds[-1]:
                raise TrainingStoppedError(
                    f"stopped by {signal.Signals(stop).name} after fold {fold.fold} of {fold.folds}: resume with "
                    "--resume", stop
                )  # fmt: skip
    return CrossValidationSummary(run=config.out, folds=tuple(summaries))


def _fold_configs(config: TrainConfig) -> list[TrainConfig]:
    if not config.folds or config.fold:
        raise ConfigError(f"folds {config.folds} with fold {config.fold}: cross_validate takes folds, and no fold")
    return [replace(config, fold=fold, out=fold_folder(config.out, fold)) for fold in range(1, config.folds + 1)]


def _check_fold(config: TrainConfig, amp_dtype: torch.dtype | None) -> None:
    """Say what cannot work with a fold before the first one is trained."""
    dataset = look_up(config, amp_dtype)[0].dataset
    patients = len(np.unique(patient_units(dataset.rows("val"))))
    if patients < LEAST_PATIENTS:
        raise DatasetError(
            f"fold {config.fold} of {config.folds} has a single patient in dataset {dataset.path}: use fewer --folds"
        )


def _train_fold(
    config: TrainConfig, on_epoch: OnEpoch | None, on_progress: OnProgress | None, on_start: OnStart | None
) -> TrainSummary:
    """Train a fold, unless it is finished."""
    begun = False

    def begin(plan: TrainPlan) -> None:  # in the first process, once nothing stands in the way of the first step
        nonlocal begun
        begun = True
        if config.overwrite and config.fold == 1:
            clear_folds(config.out.parent)
        if on_start:
            on_start(plan)

    summary = train(config, on_epoch, on_progress, on_start=begin)
    if config.resume and not begun:
        logger.info("fold %d of %d is finished already", config.fold, config.folds)
    return summary
