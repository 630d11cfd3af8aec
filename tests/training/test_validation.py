"""What is validated: the model that is kept."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.training.learner import Ema, Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import validate
from tests.support.make_dataset import make_dataset


class Constant(nn.Module):
    """The same logit for every image."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logit.expand(len(images), 1)


def test_the_average_is_validated_where_there_is_one(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", labels={"train": [1, 0], "val": [1, 0, 0, 0]})
    model = Constant(5.0)
    learner = Learner(
        config=TrainConfig(ema=0.5), model=model, network=model, device=torch.device("cpu"), pos_weight=1.0,
        optimizer=torch.optim.Adam(model.parameters(), fused=True), total_steps=1,
    )  # fmt: skip
    assert learner.ema is not None
    learner.ema.model.load_state_dict({"logit": torch.tensor(0.0)})
    with Loader(dataset, "val", LoadConfig(batch_size=2, engine="fused"), device=learner.device) as loader:
        assert validate(learner, loader, 0)["val_loss"] == pytest.approx(math.log(2))
        learner.ema = None
        assert validate(learner, loader, 0)["val_loss"] == pytest.approx((3 * 5.0067 + 0.0067) / 4, rel=1e-3)


def test_early_weights_are_soon_forgotten() -> None:
    model = Constant(0.0)
    average = Ema(model, 0.999)
    model.load_state_dict({"logit": torch.tensor(1.0)})
    found = []
    for _ in range(3):
        average.update(model)
        found.append(1 - average.model.logit.item())  # type: ignore[operator]
    assert found == pytest.approx([1 / 10, 1 / 10 * 2 / 11, 1 / 10 * 2 / 11 * 3 / 12])
