"""What cannot be trained on, or resumed: one clear line, before anything is written or thrown away."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pneumo_fast.errors import ConfigError, DatasetError, DeviceError, RunError
from pneumo_fast.run.checkpoint import load_resumable, save_checkpoint
from pneumo_fast.run.layout import BEST, LAST, PREVIOUS
from pneumo_fast.run.model import build_model
from pneumo_fast.training import setup
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.setup import open_data
from pneumo_fast.training.train import train
from tests.support.checkpoint import Payload
from tests.support.make_dataset import LABELS, make_dataset

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({**LABELS, "train": [0] * 9}, "the train split of .* has images of label 0 only"),
        ({**LABELS, "train": [1] * 9}, "the train split of .* has images of label 1 only"),
        ({**LABELS, "val": [0] * 9}, "the val split of .* has images of label 0 only: convert with more images"),
        ({"train": [0, 1]}, "has no 'val' images: its splits are train"),
        ({"train": [], "val": [0, 1]}, "has no 'train' images: its splits are val"),
    ],
)
def test_data_from_which_nothing_can_be_learned_or_told(
    config: TrainConfig, tmp_path: Path, labels: dict[str, list[int]], message: str
) -> None:
    make_dataset(tmp_path / "d", labels=labels)
    with pytest.raises(DatasetError, match=message):
        train(replace(config, out=tmp_path / "run", datasets=(tmp_path / "d",)))
    assert not (tmp_path / "run").exists()


def test_the_shares_are_of_the_training_images(config: TrainConfig, noise: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "d", size=32, labels={"train": [0, 1, 1], "val": [0, 1]})
    several = replace(config, datasets=(noise, tmp_path / "d"))
    data = open_data(replace(several, shares=(3.0, 1.0)))
    assert [(part.rows, part.used) for part in data.parts] == [(21, 9), (3, 3)]
    assert data.epoch_length == 12
    assert open_data(several).epoch_length == 24


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("ema", None, 0.9),
        ("optimizer", "adam", "adamw"),
        ("schedule", "none", "cosine"),
        ("clip_norm", None, 1.0),
        ("label_smoothing", 0.0, 0.1),
        ("accumulate", 1, 2),
        ("weight_decay", 0.0, 0.1),
        ("warmup_epochs", 0.0, 1.0),
        ("monitor", "auroc", "ap"),
        ("patience", None, 3),
        ("limit_images", None, 9),
        ("model", "resnet18", "resnet34"),
        ("weights", "none", "default"),
        ("order", "shuffle", "windowed"),
        ("balance", "label", "group"),
        ("window", 8, 4),
        ("compile", False, True),
        ("augment", "light", "strong"),
        ("flip", False, True),
        ("fold", 1, 2),
    ],
)
def test_an_option_that_shapes_the_result_is_a_setting_that_a_resumed_run_must_have(
    config: TrainConfig, name: str, value: Any, other: Any
) -> None:
    needed: dict[str, dict[str, Any]] = {
        "augment": {"augment": "light"}, "flip": {"augment": "light"}, "balance": {"order": "weighted"},
        "window": {"order": "windowed"}, "fold": {"folds": 3, "fold": 1},
    }  # fmt: skip
    config = replace(config, **needed.get(name, {}))
    data = open_data(config)
    before, after = (setup.settings_of(each, data, 1.0, None) for each in (config, replace(config, **{name: other})))
    spelled = name.replace("_", "-")
    assert (before[spelled], after[spelled]) == (value, other)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed - {"epochs"} == {spelled}, "epochs are a setting where the schedule depends on them"


def test_too_few_images_for_both_classes(config: TrainConfig, tmp_path: Path) -> None:
    make_dataset(tmp_path / "d", labels={"train": [0] * 5 + [1] * 5, "val": [0, 1]})
    limited = replace(config, out=tmp_path / "run", datasets=(tmp_path / "d",), limit_images=5)
    with pytest.raises(DatasetError, match="label 0 only: use fewer --folds or more --limit-images"):
        train(limited)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"device": "cuda:99"}, DeviceError, "device 'cuda:99' is asked for"),
        ({"seed": 2**64}, ConfigError, "seed 18446744073709551616: a whole number of 64 bits expected"),
        ({"amp_dtype": "bfloat16"}, ConfigError, "is given without amp"),
        ({"amp": True, "amp_dtype": "float16"}, ConfigError, "amp-dtype float16 needs a GPU"),
        ({"datasets": (Path("nowhere"),)}, DatasetError, "dataset nowhere does not exist"),
        (
            {"batch_size": 22},
            ConfigError,
            "batch size 22 is larger than an epoch of 21 images: give a --batch-size of at most that many",
        ),
        ({"folds": 35, "fold": 1}, DatasetError, "35 folds of 34 patients in dataset .*: use fewer --folds"),
        ({"order": "weighted", "balance": "hue"}, ConfigError, "no column 'hue' to balance: the index has image_id"),
        ({"model": "resnet19"}, ConfigError, "torchvision has no classifier called 'resnet19'"),
        ({"model": "alexnet"}, ConfigError, r"'alexnet' does not take images of 32 x 32 pixels \(.*\): convert with"),
        ({"model": "vit_b_16"}, ConfigError, r"'vit_b_16' does not take images of 32 x 32 pixels \(.*\): convert with"),
        ({"weights": "nowhere.pt"}, ConfigError, "weights 'nowhere.pt': no such file"),
        ({"weights": "imagenet", "batch_size": 22}, ConfigError, "weights 'imagenet': no such file; .* default for"),
        ({"model": "resnet9", "batch_size": 22}, ConfigError, "torchvision has no classifier called 'resnet9'"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    config: TrainConfig, tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        train(replace(config, out=tmp_path / "run", **change))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("zipped", [False, True], ids=["pickle", "torch"])
@pytest.mark.parametrize("use", ["resume", "weights"])
def test_a_pickle_dressed_as_a_checkpoint_is_refused_and_does_not_run(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str, zipped: bool
) -> None:
    run, target = tmp_path / "run", tmp_path / "ran"
    train(replace(config, out=run, epochs=1))
    (run / PREVIOUS).unlink(missing_ok=True)
    if zipped:
        torch.save(Payload(target), run / LAST)
    else:
        (run / LAST).write_bytes(pickle.dumps(Payload(target)))
    monkeypatch.setattr(setup, "build_model", build_model)
    changes: dict[str, Any] = {"resume": True} if use == "resume" else {"weights": str(run / LAST), "overwrite": True}
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(RunError, match=r"last\.pt is damaged or not a checkpoint") as caught:
        train(replace(config, out=run, **changes))
    assert "\n" not in str(caught.value)
    assert not target.exists()
    assert sorted(path.name for path in run.iterdir()) == before, "the run is as it was"


@pytest.fixture
def run(config: TrainConfig, tmp_path: Path) -> Path:
    """A short run of a small model, whose checkpoint is 3 MB."""
    train(replace(config, out=tmp_path / "run", epochs=1, model="squeezenet1_1"))
    return tmp_path / "run"


def test_a_checkpoint_of_another_architecture(config: TrainConfig, run: Path, tmp_path: Path) -> None:
    small = replace(config, model="squeezenet1_1")
    with pytest.raises(RunError, match="was trained with model 'squeezenet1_1', now it is 'squeezenet1_0'"):
        train(replace(small, out=run, model="squeezenet1_0", resume=True))
    with pytest.raises(ConfigError, match=r"weights .*best\.pt: .* is .* expected: of another model\?"):
        train(replace(small, out=tmp_path / "other", model="squeezenet1_0", weights=str(run / BEST)))
    assert not (tmp_path / "other").exists()
    last = load_resumable(run / LAST)
    last.trained.model.popitem()
    save_checkpoint(last, run / LAST)
    with pytest.raises(RunError, match=r"the checkpoint of run .* is damaged or does not fit model 'squeezenet1_1' "):
        train(replace(small, out=run, resume=True))


def test_a_checkpoint_of_another_image_size(
    config: TrainConfig, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As weights it may be what is wanted, for these models take images of any size: it is said."""
    make_dataset(tmp_path / "d", size=40)
    larger = replace(config, model="squeezenet1_1", datasets=(tmp_path / "d",), epochs=1)
    with pytest.raises(RunError, match="was trained with image size 32, now it is 40"):
        train(replace(larger, out=run, resume=True))
    assert not caplog.text
    train(replace(larger, out=tmp_path / "other", weights=str(run / BEST)))
    assert f"weights {run / BEST} were trained on images of 32 pixels, these have 40" in caplog.text


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "nowhere.pt"}, "no such file"),
        ({"batch_size": 22}, "batch size 22 is larger than an epoch of 21 images"),
        ({"tensorboard": True}, "tensorboard"),
    ],
)
def test_a_run_is_not_thrown_away_for_one_that_cannot_begin(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    run = tmp_path / "run"
    train(replace(config, out=run, epochs=1))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    monkeypatch.setattr(setup, "build_model", build_model)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=message):
        train(replace(config, out=run, overwrite=True, **change))
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.usefixtures("quick")
def test_a_batch_that_memory_has_no_room_for(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n2 GiB")

    monkeypatch.setattr(Learner, "step", step)
    with pytest.raises(
        DeviceError, match="a batch of 8 images does not fit into the memory of cpu: lower --batch-size"
    ):
        train(replace(config, out=tmp_path / "run"))
