"""On which device the files of a model are decoded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pneumo_fast.prediction.model import Model
from pneumo_fast.run.model_input import ModelInput, Preprocessing
from pneumo_fast.vocabulary import Decode


@pytest.mark.parametrize(
    ("decode", "device", "gpu"),
    [("gpu", "cuda:1", 1), ("gpu", "cuda", 0), ("gpu", "cpu", None), ("fast", "cuda:1", None), ("exact", "cpu", None)],
)
def test_files_are_decoded_on_the_gpu_of_the_model(decode: Decode, device: str, gpu: int | None) -> None:
    preprocessing = Preprocessing(dtype="float16", decode=decode, window="auto")
    known = ModelInput(preprocessing=preprocessing, views=(), ages=None, aspects=(1.0, 1.0))
    network: Any = torch.nn.Identity()
    model = Model(members=(), input=known, ensemble=network, device=torch.device(device))
    assert model.decoding_gpu == gpu
