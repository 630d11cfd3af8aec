"""Progressive resizing: the first epochs see half the size, and nothing else changes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits

from pneumo_fast.errors import ConfigError, TrainingStoppedError
from pneumo_fast.loading.targets import box_masks
from pneumo_fast.training import setup
from pneumo_fast.training import train as training
from pneumo_fast.training.auxiliary import Taught
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train, validate
from tests.support.make_dataset import make_dataset
from tests.support.training import check_same_run, network
from tests.training.test_auxiliary import targets, taught
from tests.training.test_session import STEPS, after_step, plain_step

pytestmark = pytest.mark.usefixtures("one_thread")


def any_size() -> nn.Module:
    """A small network, for images of either size."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 1),
    )  # fmt: skip


@pytest.fixture(scope="module")
def config(painted: Path) -> Iterator[TrainConfig]:
    with network(any_size):
        yield TrainConfig(
            datasets=(painted,), out=Path("unset"), epochs=3, half_size_epochs=2, batch_size=4, lr=1e-3, device="cpu",
            augment="strong", teach=("boxes",), teach_stage="2",
        )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with an average of the weights. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(replace(config, ema=0.9, out=run))
    return run


def test_the_first_epochs_see_means_of_2_x_2_pixels_and_validation_the_whole(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    validated: list[int] = []

    def spy(learner: Learner, images: torch.Tensor, *rest: Any) -> Any:
        seen.append(images.clone())
        return plain_step(learner, images, *rest)

    def look(learner: Learner, loader: Any, *rest: Any) -> Any:
        validated.append(loader.size)
        return validate(learner, loader, *rest)

    monkeypatch.setattr(Learner, "step", spy)
    monkeypatch.setattr(training, "validate", look)
    train(replace(config, out=tmp_path / "half"))
    assert [images.shape[-1] for images in seen] == [16] * 2 * STEPS + [32] * STEPS
    assert validated == [32] * 3
    half = seen[:]
    seen.clear()
    train(replace(config, out=tmp_path / "whole", half_size_epochs=None))
    for image, whole in zip(half[: 2 * STEPS], seen, strict=False):
        assert torch.equal(image, avg_pool2d(whole, 2))


@pytest.mark.parametrize("step", [7, 10, 12], ids=["at half size", "between", "at whole size"])
def test_a_stopped_run_goes_on_to_the_same_bits(
    config: TrainConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    config = replace(config, ema=0.9)
    with monkeypatch.context() as patch:
        after_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(TrainingStoppedError):
            train(replace(config, out=tmp_path / "run"))
    train(replace(config, out=tmp_path / "run", resume=True))
    check_same_run(tmp_path / "run", whole)


def test_boxes_stay_where_they_are_in_smaller_images() -> None:
    module, wanted = taught(), targets()
    features: list[torch.Tensor] = []
    module.model.get_submodule("layer3").register_forward_hook(lambda _m, _i, output: features.append(output))
    with torch.enable_grad():
        _, losses = module.eval()(torch.randn(4, 1, 32, 32), wanted)
    logits = module.heads["boxes"](features[0])[:, 0]
    masks = box_masks(wanted.boxes, wanted.matrices, 64, logits.shape[-1])  # of images that have 64 pixels
    expected = binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2)) * wanted.boxed
    torch.testing.assert_close(losses[0], expected)
    assert isinstance(module, Taught)
    assert logits.shape[-1] == 2


def test_what_cannot_work(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="half-size-epochs 3 of 3 epochs: fewer expected"):
        replace(config, half_size_epochs=3)
    odd = tmp_path / "odd"
    make_dataset(odd, size=33, findings=True)
    with pytest.raises(
        ConfigError, match="half-size-epochs with images of 33 x 33 pixels: convert with an even --size"
    ):
        train(replace(config, datasets=(odd,), out=tmp_path / "run"))


@pytest.mark.parametrize(("done", "size"), [(0, 16), (2, 32)])
def test_a_compiler_is_warmed_up_for_the_size_that_comes_first(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int, size: int
) -> None:
    config = replace(config, out=tmp_path / "run", half_size_epochs=1, compile=True)
    monkeypatch.setattr(torch, "compile", lambda network: network)
    if done:
        train(replace(config, epochs=done))
    sizes: list[int] = []
    monkeypatch.setattr(setup, "warm_up_compiler", lambda *arguments: sizes.append(arguments[2]))
    train(replace(config, resume=True))
    assert sizes == [size]
