"""A cross-validation whose networks were never trained: a run folder for each fold, as training leaves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.run.checkpoint import load_trained, save_checkpoint
from pneumo_fast.run.folder import write_config, write_history
from pneumo_fast.run.layout import BEST, fold_folder
from pneumo_fast.run.model import build_model
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.plan import Resolved, describe_run
from tests.support.untrained_run import make_run

RESOLVED = Resolved(
    device=torch.device("cpu"), amp_dtype=None, pos_weight=2.0, batch_size=64, loader="fused", processes=1
)
FOLDS = 3
SEED = 3
EPOCHS = 3


def make_folds(run: Path, dataset: Path, build: Callable[[], nn.Module] = build_model) -> Path:
    """Write ``run/fold-1`` and so on, each with a network of its own random weights."""
    run.mkdir()
    for fold in range(1, FOLDS + 1):
        folder = fold_folder(run, fold)
        make_run(folder, dataset)
        torch.manual_seed(fold)
        trained = replace(
            load_trained(folder / BEST),
            settings={"folds": FOLDS, "fold": fold, "seed": SEED, "pos-weight": 2.0 + fold / 100},
            prior_shift=fold / 10,
            model=build().state_dict(),
        )
        save_checkpoint(trained, folder / BEST)
        config = TrainConfig(datasets=(dataset,), out=folder, folds=FOLDS, fold=fold, seed=SEED, epochs=EPOCHS)
        resolved = replace(RESOLVED, batch_size=RESOLVED.batch_size - fold % 2)  # as small folds have it
        write_config(folder, describe_run(config, Dataset.open(dataset), resolved))
        write_history(folder, [{"epoch": epoch} for epoch in range(1, EPOCHS + 1)])
    return run
