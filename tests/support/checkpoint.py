"""A checkpoint with a little of everything, and code that one may hide."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pneumo_fast.run.checkpoint import Resumable, Trained
from pneumo_fast.run.model_input import ModelInput, Preprocessing

SETTINGS = {"dataset": "abc", "seed": 3, "lr": 1e-4, "shares": [0.5, 1.0], "amp-dtype": "None"}


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.target),)


def make_checkpoint(epoch: int = 2) -> Resumable:
    """Of a model with one weight, (64, 7), and one count."""
    generator = torch.Generator().manual_seed(0)
    trained = Trained(
        arch="resnet18",
        size=32,
        mean=0.4812345678901234,
        std=0.27,
        input=ModelInput(
            preprocessing=Preprocessing(dtype="uint8", decode="exact", window="none", views=("AP", "LL")),
            views=("", "AP"),
            ages=(18, 90),
            aspects=(0.8, 1.25),
        ),
        pos_weight=3.5,
        dataset_identity="abc",
        epoch=epoch,
        best=0.75,
        monitor="auroc",
        best_epoch=1,
        history=[{"epoch": 1, "val_auroc": 0.75}, {"epoch": 2, "val_auroc": 0.5}],
        settings=SETTINGS,
        model={"weight": torch.randn(64, 7, generator=generator), "steps": torch.tensor(3)},
    )
    optimizer = {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]}
    return Resumable(
        trained=trained,
        learner={"optimizer": optimizer, "scaler": {"scale": 65536.0}},
        loader={},
        session={"sums": [0.5, 1.0, 4.0]},
    )
