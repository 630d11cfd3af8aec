"""When a model comes to its device, and on which one its files are decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pneumo_fast.prediction.model import Model, open_model
from pneumo_fast.run.model import CHANNELS_LAST_FROM
from pneumo_fast.run.model_input import ModelInput, Preprocessing
from pneumo_fast.vocabulary import Decode
from tests.support.untrained_run import change


@pytest.mark.parametrize(
    ("decode", "device", "gpu"),
    [("gpu", "cuda:1", 1), ("gpu", "cuda", 0), ("gpu", "cpu", None), ("fast", "cuda:1", None), ("exact", "cpu", None)],
)
def test_files_are_decoded_on_the_gpu_of_the_model(decode: Decode, device: str, gpu: int | None) -> None:
    preprocessing = Preprocessing(dtype="float16", decode=decode, window="auto")
    known = ModelInput(preprocessing=preprocessing, views=(), ages=None, aspects=(1.0, 1.0))
    model = Model(members=(), input=known, device=torch.device(device))
    assert model.decoding_gpu == gpu


def test_the_device_is_used_once_and_not_when_the_runs_are_opened(judged: Path) -> None:
    model = open_model((judged,), "cpu")
    assert "ensemble" not in vars(model)
    model.warm_up()
    ensemble = model.ensemble
    model.warm_up()
    assert model.ensemble is ensemble
    assert not ensemble.training


def test_a_model_that_has_scored_can_still_be_explained(run: Path) -> None:
    """Parameters that were laid out anew in inference mode could not."""
    change(run, size=CHANNELS_LAST_FROM)
    model = open_model((run,), "cpu")
    model.score(np.zeros((1, model.size, model.size), dtype=np.float16), 1)
    assert not any(parameter.is_inference() for parameter in model.ensemble.parameters())
