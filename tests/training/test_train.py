"""Training: the same again, and figures that an independent pass confirms."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pneumo_fast import devices
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import TrainingError
from pneumo_fast.loading.batches import Rank
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.run.checkpoint import Trained, load_resumable, load_trained
from pneumo_fast.run.layout import BEST, CONFIG, CURVES, HISTORY, LAST, PREVIOUS
from pneumo_fast.run.model import build_model
from pneumo_fast.training import setup
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train, validate
from tests.support.devices import NO_GPU
from tests.support.judged import mann_whitney
from tests.support.make_dataset import make_dataset, stored_images
from tests.support.training import TIMINGS, check_same, check_same_run, history_of, weights

plain_step = Learner.step
pytestmark = pytest.mark.usefixtures("one_thread")

FIGURES = {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "val_ap"}
KEYS = TIMINGS | FIGURES | {"epoch", "lr", "skipped_steps"}


def infer(checkpoint: Trained, dataset: Dataset, split: str) -> torch.Tensor:
    """Logits of a split by nothing but torchvision's model and NumPy's arithmetic."""
    model = build_model(checkpoint.arch)
    model.load_state_dict(checkpoint.model)
    images = (stored_images(dataset, split).astype(np.float32) / dataset.scale - checkpoint.mean) / checkpoint.std
    with torch.no_grad():
        return torch.as_tensor(model.eval()(torch.from_numpy(images.astype(np.float32)[:, None]))[:, 0])


def test_the_same_seed_repeats_bit_for_bit(config: TrainConfig, reference_run: Path, tmp_path: Path) -> None:
    train(replace(config, out=tmp_path / "again"))
    check_same_run(tmp_path / "again", reference_run)


@pytest.mark.usefixtures("quick")
def test_the_seed_chooses_the_first_weights_and_the_order(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[torch.Tensor] = []
    steps: list[torch.Tensor] = []

    def spy(learner: Learner, images: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        if len(steps) % 6 == 0:
            first.append(next(learner.model.parameters()).detach().clone())
        steps.append(images[:, 0, 0, 0].clone())
        return plain_step(learner, images, labels, *rest)

    monkeypatch.setattr(Learner, "step", spy)
    for seed in (1, 2):
        train(replace(config, out=tmp_path / str(seed), seed=seed))
    epochs = [torch.cat(steps[at : at + 3]) for at in (0, 3, 6, 9)]
    assert not torch.equal(first[0], first[1])
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4
    assert all(torch.equal(epoch.sort()[0], epochs[0].sort()[0]) for epoch in epochs)


def test_validation_images_are_never_changed(config: TrainConfig, noise: Path) -> None:
    dataset = Dataset.open(noise)
    changed = replace(config, augment="strong", flip=True)
    with (
        setup.validation_loader(config, dataset, torch.device("cpu"), Rank(), 8) as plain,
        setup.validation_loader(changed, dataset, torch.device("cpu"), Rank(), 8) as other,
    ):
        for (images, _), (images_too, _) in zip(plain.epoch(0), other.epoch(0), strict=True):
            assert torch.equal(images, images_too)


@pytest.mark.usefixtures("quick")
def test_the_folder_layout_trains_the_same(config: TrainConfig, tmp_path: Path) -> None:
    make_dataset(tmp_path / "d", size=32, layout="folder")
    for name, dataset in (("shards", config.datasets[0]), ("folder", tmp_path / "d")):
        train(replace(config, out=tmp_path / name, datasets=(dataset,)))
    check_same(tmp_path / "shards" / LAST, tmp_path / "folder" / LAST)


def test_what_can_be_learned_is_learned(tmp_path: Path) -> None:
    """The positives have a bright square."""
    make_dataset(tmp_path / "d", size=32, labels={"train": [0, 0, 1] * 16, "val": [0, 1, 0] * 5}, learnable=True)
    config = TrainConfig(datasets=(tmp_path / "d",), out=tmp_path / "run", epochs=2, batch_size=4, device="cpu")
    history = train(config).history
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert history[-1]["train_accuracy"] > 0.85
    assert history[-1]["val_auroc"] > 0.95


def test_the_best_checkpoint_is_the_epoch_with_the_best_auroc(config: TrainConfig, noise: Path, tmp_path: Path) -> None:
    """Noise makes the AUROC go up and down; a rank statistic on the saved model's own logits confirms it."""
    summary = train(replace(config, out=tmp_path / "run", epochs=3))
    dataset = Dataset.open(noise)
    labels = torch.as_tensor(dataset.rows("val")["label"].tolist())
    aurocs = [record["val_auroc"] for record in history_of(tmp_path / "run")]
    best, last = load_trained(tmp_path / "run" / BEST), load_trained(tmp_path / "run" / LAST)
    assert len(set(aurocs)) > 1, "a test that cannot tell the epochs apart tells nothing"
    assert best.epoch == best.best_epoch == last.best_epoch == summary.best_epoch == 1 + aurocs.index(max(aurocs))
    assert last.epoch == 3
    for checkpoint in (best, last):
        logits = infer(checkpoint, dataset, "val")
        assert aurocs[checkpoint.epoch - 1] == pytest.approx(mann_whitney(labels.numpy(), logits.numpy()), abs=1e-6)
    assert summary.best == best.best == max(aurocs)


def test_the_validation_figures_are_those_of_the_saved_model(reference_run: Path, noise: Path) -> None:
    checkpoint, dataset = load_trained(reference_run / LAST), Dataset.open(noise)
    logits = infer(checkpoint, dataset, "val").double()
    labels = torch.as_tensor(dataset.rows("val")["label"].tolist()).double()
    record = history_of(reference_run)[-1]
    loss = -(2.5 * labels * logits.sigmoid().log() + (1 - labels) * (1 - logits.sigmoid()).log()).mean()
    assert record["val_loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert record["val_accuracy"] == pytest.approx(((logits > 0) == labels.bool()).double().mean().item())
    ranked = labels[logits.argsort(descending=True)]
    precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
    assert record["val_ap"] == pytest.approx((precision * ranked).sum().item() / ranked.sum().item(), abs=1e-6)


def test_validation_takes_a_probability_of_a_half_for_positive(noise: Path) -> None:
    undecided: Any = SimpleNamespace(
        judged_model=nn.Identity(), logits=lambda images, _: torch.zeros(len(images)), pos_weight=1.0
    )
    dataset = Dataset.open(noise)
    found = validate(undecided, Loader(dataset, "val", LoadConfig(batch_size=8), device=torch.device("cpu")), 0)
    assert found["val_accuracy"] == pytest.approx(dataset.rows("val")["label"].mean())
    assert found["val_auroc"] == 0.5


def test_history_and_configuration(reference_run: Path, noise: Path) -> None:
    history = history_of(reference_run)
    assert [record["epoch"] for record in history] == [1, 2]
    for record in history:
        assert record.keys() == KEYS
        assert all(math.isfinite(value) for value in record.values())
        assert 0 <= record["wait_share"] <= 1
        steps = record["train_seconds"] * record["wait_share"] * 1000 / record["wait_ms_per_step"]
        assert steps == pytest.approx(round(steps))
        assert 0 <= record["longest_wait_ms"] <= record["wait_share"] * record["train_seconds"] * 1000
        assert record["images_per_s"] == pytest.approx(21 / record["train_seconds"])
        assert all(0 <= record[key] <= 1 for key in KEYS if key.endswith(("accuracy", "auroc", "ap")))
    content = json.loads((reference_run / CONFIG).read_text())
    assert content["config"]["datasets"] == [str(noise)]
    assert {name: content["config"][name] for name in ("epochs", "batch_size", "lr", "seed", "pos_weight")} == {
        "epochs": 2, "batch_size": 8, "lr": 1e-3, "seed": 1, "pos_weight": "auto",
    }  # fmt: skip
    assert content["resolved"] == {
        "device": "cpu", "amp_dtype": "None", "pos_weight": 2.5, "batch_size": 8, "threads": 1, "loader": "fused",
        "processes": 1,
    }  # fmt: skip
    assert content["dataset"]["identity"] == Dataset.open(noise).identity
    assert {path.name for path in reference_run.iterdir()} == {BEST, LAST, PREVIOUS, HISTORY, CURVES, CONFIG}


def test_the_checkpoint_says_how_to_use_it(reference_run: Path, noise: Path) -> None:
    checkpoint, dataset = load_trained(reference_run / BEST), Dataset.open(noise)
    assert (checkpoint.arch, checkpoint.size) == ("resnet18", 32)
    assert (checkpoint.mean, checkpoint.std) == (dataset.mean, dataset.std)
    assert checkpoint.dataset_identity == dataset.identity


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("given", "expected"), [("auto", 15 / 6), (4.0, 4.0)])
def test_the_weight_of_a_positive(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, expected: float
) -> None:
    used = []

    def spy(learner: Learner, images: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        used.append(learner.pos_weight)
        return plain_step(learner, images, labels, *rest)

    monkeypatch.setattr(Learner, "step", spy)
    train(replace(config, out=tmp_path / "run", epochs=1, pos_weight=given))
    assert [float(weight) for weight in used] == [expected] * 3
    assert load_trained(tmp_path / "run" / LAST).pos_weight == expected
    assert json.loads((tmp_path / "run" / CONFIG).read_text())["resolved"]["pos_weight"] == expected


@pytest.mark.usefixtures("quick")
def test_the_training_loss_is_a_mean_over_images(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not over batches, of which the last has fewer."""
    seen: list[tuple[float, int]] = []

    def spy(learner: Learner, images: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        result = plain_step(learner, images, labels, *rest)
        seen.append((result[0].mean().item(), len(labels)))
        return result

    monkeypatch.setattr(Learner, "step", spy)
    (record,) = train(replace(config, out=tmp_path / "run", epochs=1)).history
    assert [count for _, count in seen] == [8, 8, 5]
    assert record["train_loss"] == pytest.approx(sum(loss * count for loss, count in seen) / 21, rel=1e-6)


@pytest.mark.usefixtures("quick")
def test_weights_spoiled_by_the_last_step_are_never_saved(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training loss, taken before the step, is still a number; the validation loss is not."""
    steps = iter(range(1, 100))

    def spy(learner: Learner, images: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        result = plain_step(learner, images, labels, *rest)
        if next(steps) == 6:
            with torch.no_grad():
                next(learner.model.parameters()).fill_(math.nan)
        return result

    monkeypatch.setattr(Learner, "step", spy)
    with pytest.raises(TrainingError, match="the validation loss became nan in epoch 2"):
        train(replace(config, out=tmp_path / "run"))
    assert load_trained(tmp_path / "run" / LAST).epoch == 1
    assert weights(tmp_path / "run" / BEST).isfinite().all()


@pytest.mark.usefixtures("quick")
def test_bfloat16_is_used_where_it_is_insisted_on(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, epochs=1)
    train(replace(config, out=tmp_path / "float32"))
    train(replace(config, out=tmp_path / "bfloat16", amp=True, amp_dtype="bfloat16"))
    plain, mixed = weights(tmp_path / "float32" / LAST), weights(tmp_path / "bfloat16" / LAST)
    assert not torch.equal(plain, mixed)
    assert torch.allclose(plain, mixed, atol=0.02)
    checkpoint = load_trained(tmp_path / "bfloat16" / LAST)
    assert all(value.dtype in {torch.float32, torch.int64} for value in checkpoint.model.values())
    assert json.loads((tmp_path / "bfloat16" / CONFIG).read_text())["resolved"]["amp_dtype"] == "torch.bfloat16"


@pytest.mark.usefixtures("quick")
def test_amp_on_a_cpu_that_gains_nothing_is_float32(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "cpu_gains_from_bfloat16", lambda: False)
    for name, amp in (("plain", False), ("amp", True)):
        train(replace(config, out=tmp_path / name, epochs=1, amp=amp))
    check_same(tmp_path / "plain" / LAST, tmp_path / "amp" / LAST)
    assert caplog.text.count("training in float32") == 1


@pytest.mark.gpu
@NO_GPU
def test_a_run_on_a_gpu(config: TrainConfig, tmp_path: Path) -> None:
    """With mixed precision, which a GPU gains from."""
    summary = train(replace(config, out=tmp_path / "run", epochs=1, device="cuda", amp=True))
    assert summary.epochs == 1
    checkpoint = load_trained(tmp_path / "run" / LAST)
    assert all(value.device.type == "cpu" for value in checkpoint.model.values())
    resolved = json.loads((tmp_path / "run" / CONFIG).read_text())["resolved"]
    assert (resolved["device"], resolved["amp_dtype"]) == ("cuda:0", "torch.float16")
    assert load_resumable(tmp_path / "run" / LAST).learner["scaler"]["scale"] > 1, "float16 needs a scaled loss"
