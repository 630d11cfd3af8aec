"""Training straight from images: the dataset that it needs is made first."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from pneumo_fast.conversion.convert import ConvertSummary, convert
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.devices import resolve_device
from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.batches import Rank
from pneumo_fast.progress import OnProgress, silent
from pneumo_fast.run.folder import find_run
from pneumo_fast.training import setup
from pneumo_fast.training.options import DIRECT, TrainConfig
from pneumo_fast.vocabulary import Layout


def with_dataset(config: TrainConfig, on_progress: OnProgress = silent) -> tuple[TrainConfig, ConvertSummary | None]:
    """The same training on a dataset, which is made first where ``images`` and ``labels`` are given, and how it went.

    Without ``cache`` it has no pixels: layout ``source``, in the folder of the first of ``datasets``. What is there
    already, made of the same, is used as it is, and nothing else is replaced.

    Parameters
    ----------
    on_progress : callable, optional
        Called with (files done, files in all).

    Raises
    ------
    ConfigError
        If several processes are to train, or an option cannot work.
    DeviceError
        If the device is not there.
    RunError
        If ``out`` is taken.
    ConvertError, LabelError
        As of :func:`~pneumo_fast.conversion.convert.convert`.
    """
    if config.images is None or config.labels is None:
        return config, None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("images with several processes: run convert first, and train on the dataset")
    setup.check_options(config, resolve_device(config.device), Rank())  # before minutes are spent
    if not (config.resume or config.all_folds):
        find_run(config.out, {}, resume=False, overwrite=config.overwrite)
    out = config.cache or config.datasets[0]
    given = {name: value for name in DIRECT if name != "cache" and (value := getattr(config, name)) is not None}
    layout: Layout = "shards" if config.cache else "source"
    summary = convert(ConvertConfig(**given, out=out, layout=layout, resume=True), on_progress)
    unset: dict[str, Any] = dict.fromkeys(DIRECT)
    return replace(config, datasets=(out,), **unset), summary
