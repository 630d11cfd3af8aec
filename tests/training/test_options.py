"""Every option of training has a test that fails when its effect is removed: here, or where it is said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.batches import Rank
from pneumo_fast.run.checkpoint import load_resumable, load_trained
from pneumo_fast.run.layout import BEST, LAST
from pneumo_fast.run.model import build_model
from pneumo_fast.training import setup
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train
from tests.support.make_dataset import make_dataset
from tests.support.training import weights

plain_step = Learner.step
pytestmark = pytest.mark.usefixtures("one_thread")

CHANGES: Sequence[tuple[str, Any, dict[str, Any]]] = [
    ("accumulate", 2, {}),  # by way of BatchNorm
    ("augment", "light", {}),
    ("balance", "image_id", {"order": "weighted", "pos_weight": 1.0}),
    ("batch_size", 4, {}),
    ("clip_norm", 0.01, {}),
    ("epochs", 3, {}),
    ("flip", True, {"augment": "light"}),
    ("fold", 2, {"folds": 3, "fold": 1}),
    ("folds", 4, {"folds": 3, "fold": 1}),
    ("label_smoothing", 0.2, {}),
    ("limit_images", 12, {}),
    ("lr", 0.01, {}),
    ("optimizer", "adamw", {"weight_decay": 0.1}),
    ("order", "weighted", {"pos_weight": 1.0}),
    ("order", "windowed", {}),
    ("pos_weight", 1.0, {}),
    ("schedule", "cosine", {}),
    ("schedule", "onecycle", {}),
    ("seed", 2, {}),
    ("shares", (1.0, 0.5), {"datasets": 2}),
    ("warmup_epochs", 1.0, {}),
    ("weight_decay", 0.1, {}),
    ("window", 1, {"order": "windowed"}),
]
"""An option, a value, and what both runs have besides; the trained weights must differ from those without it."""

HERE = {
    "compile": "test_the_model_is_compiled_before_the_first_step_and_trains_the_same",
    "datasets": "test_an_option_changes_the_trained_weights",  # by shares, of two datasets
    "ema": "test_an_average_of_the_weights_is_kept_as_the_best",
    "loader": "test_the_loader_and_where_its_images_are_kept",
    "model": "test_the_model_and_its_weights_are_those_asked_for",
    "resident_share": "test_the_loader_and_where_its_images_are_kept",
    "sync_bn": "test_batchnorm_is_shared_by_several_processes_where_asked_for",
    "weights": "test_the_model_and_its_weights_are_those_asked_for",
}
ELSEWHERE = {
    "amp": "test_train: test_bfloat16_is_used_where_it_is_insisted_on",
    "amp_dtype": "test_setup: test_what_cannot_be_done_is_said_before_anything_is_written",
    "cache": "test_direct: test_a_cache_is_the_converted_dataset",
    "checkpoint_minutes": "test_session: test_the_state_is_saved_by_the_clock",
    "class_info": "test_direct: test_options_of_the_tables_reach_the_conversion",
    "decode": "test_direct: test_options_of_the_tables_reach_the_conversion",
    "device": "test_setup: test_what_cannot_be_done_is_said_before_anything_is_written",
    "groups": "test_direct: test_the_run_is_that_of_the_converted_dataset",
    "half_size_epochs": "test_progressive: test_the_first_epochs_see_means_of_2_x_2_pixels_and_validation_the_whole",
    "images": "test_direct: test_the_run_is_that_of_the_converted_dataset",
    "labels": "test_direct: test_the_run_is_that_of_the_converted_dataset",
    "max_rejects": "test_direct: test_options_of_the_tables_reach_the_conversion",
    "max_skipped": "test_session: test_too_many_of_them_stop_the_run_and_the_last_good_state_is_kept",
    "monitor": "test_session: test_the_monitored_figure_decides",
    "out": "test_train: test_history_and_configuration",
    "overwrite": "test_resume: test_a_run_is_replaced_only_on_request",
    "patience": "test_session: test_patience_ends_a_run_that_gets_no_better",
    "profile": "test_observers: test_a_few_steps_are_traced",
    "recipe": "test_recipes: test_options_that_are_given_override_the_recipe",
    "resume": "test_resume: test_a_resumed_run_is_the_uninterrupted_one",
    "size": "test_direct: test_the_run_is_that_of_the_converted_dataset",
    "teach": "test_auxiliary: test_each_auxiliary_task_and_its_weight_changes_the_result",
    "teach_boxes_weight": "test_auxiliary: test_each_auxiliary_task_and_its_weight_changes_the_result",
    "teach_classes_weight": "test_auxiliary: test_each_auxiliary_task_and_its_weight_changes_the_result",
    "teach_stage": "test_auxiliary: test_each_auxiliary_task_and_its_weight_changes_the_result",
    "test_fraction": "test_direct: test_the_run_is_that_of_the_converted_dataset",
    "tensorboard": "test_observers: test_figures_go_to_tensorboard",
}


def test_every_option_has_a_test() -> None:
    folder = Path(__file__).parent
    for place in (*(f"{Path(__file__).stem}: {name}" for name in HERE.values()), *ELSEWHERE.values()):
        module, name = place.split(": ")
        assert f"def {name}(" in (folder / f"{module}.py").read_text(), place
    assert {name for name, *_ in CHANGES} | HERE.keys() | ELSEWHERE.keys() == {f.name for f in fields(TrainConfig)}


@pytest.fixture(scope="module")
def without() -> dict[str, torch.Tensor]:
    """Weights of the runs that options are compared with, by what these have besides; each is trained once."""
    return {}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("name", "value", "beside"), CHANGES, ids=lambda value: str(value)[:12])
def test_an_option_changes_the_trained_weights(
    config: TrainConfig, tmp_path: Path, without: dict[str, torch.Tensor], name: str, value: Any, beside: dict[str, Any]
) -> None:
    if "datasets" in beside:
        other = make_dataset(tmp_path / "other", size=32, labels={"train": [0, 1, 0], "val": [0, 1]})
        beside = {"datasets": (*config.datasets, other.path)}
    config = replace(config, **beside)
    if repr(beside) not in without:
        train(replace(config, out=tmp_path / "without"))
        without[repr(beside)] = weights(tmp_path / "without" / LAST)
    train(replace(config, out=tmp_path / "with", **{name: value}))
    assert not torch.equal(without[repr(beside)], weights(tmp_path / "with" / LAST))


@pytest.mark.usefixtures("quick")
def test_an_average_of_the_weights_is_kept_as_the_best(config: TrainConfig, tmp_path: Path) -> None:
    for decay in (None, 0.0, 0.5):
        train(replace(config, out=tmp_path / str(decay), epochs=1, ema=decay))
    for name in ("None", "0.0"):
        assert torch.equal(weights(tmp_path / name / BEST), weights(tmp_path / "None" / LAST))
    assert torch.equal(weights(tmp_path / "0.5" / LAST), weights(tmp_path / "None" / LAST))
    assert not torch.equal(weights(tmp_path / "0.5" / BEST), weights(tmp_path / "0.5" / LAST))


def test_the_model_and_its_weights_are_those_asked_for(config: TrainConfig, tmp_path: Path) -> None:
    torch.manual_seed(7)
    given = build_model("squeezenet1_1")
    torch.save(given.state_dict(), tmp_path / "w.pt")
    config = replace(config, model="squeezenet1_1", weights=str(tmp_path / "w.pt"), epochs=1, lr=1e-9)
    train(replace(config, out=tmp_path / "run"))
    trained = load_trained(tmp_path / "run" / LAST)
    assert trained.arch == "squeezenet1_1"
    for name, value in given.state_dict().items():
        torch.testing.assert_close(trained.model[name], value, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("change", "engine"),
    [({}, "fused"), ({"loader": "resident"}, "resident"), ({"resident_share": 1.0}, "resident")],
)
def test_the_loader_and_where_its_images_are_kept(
    config: TrainConfig, tmp_path: Path, change: dict[str, Any], engine: str
) -> None:
    train(replace(config, out=tmp_path / "run", epochs=1, **change))
    assert load_resumable(tmp_path / "run" / LAST).session["machine"]["loader"] == engine


@pytest.mark.usefixtures("quick")
def test_the_model_is_compiled_before_the_first_step_and_trains_the_same(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_, graphs, at_steps = torch.compile, [], []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> Any:
        graphs.append(graph)
        return graph.forward

    def spy(learner: Learner, images: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        at_steps.append(len(graphs))
        return plain_step(learner, images, labels, *rest)

    monkeypatch.setattr(torch, "compile", lambda model: compile_(model, backend=backend))
    monkeypatch.setattr(Learner, "step", spy)
    train(replace(config, out=tmp_path / "plain"))
    assert at_steps == [0] * 6
    train(replace(config, out=tmp_path / "compiled", compile=True))
    assert at_steps[6] > 0, "before the clock runs"
    assert at_steps[7] == at_steps[6], "once for all full batches"
    torch.testing.assert_close(weights(tmp_path / "compiled" / LAST), weights(tmp_path / "plain" / LAST))
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("raised", "told", "message"),
    [
        (
            AssertionError("expected stride 9==1\nError in op: convolution"), ConfigError,
            r"torch.compile fails for .* \(expected stride 9==1\): omit --compile",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError, "^DefaultCPUAllocator"),
    ],
)  # fmt: skip
def test_a_compiler_that_fails_is_told_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, config: TrainConfig, tmp_path: Path, raised: Exception, told: type[Exception],
    message: str,
) -> None:  # fmt: skip
    class Broken(torch.nn.Module):
        def __init__(self, _model: torch.nn.Module) -> None:
            super().__init__()

        def forward(self, _images: torch.Tensor) -> torch.Tensor:
            raise raised

    monkeypatch.setattr(torch, "compile", Broken)
    with pytest.raises(told, match=message):
        train(replace(config, out=tmp_path / "run", compile=True))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("asked", [False, True])
def test_batchnorm_is_shared_by_several_processes_where_asked_for(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", lambda model, _devices: model)
    learner = setup.make_learner(
        replace(config, sync_bn=asked), torch.device("cpu"), Rank(number=1, world_size=2), size=32, batches=3,
        pos_weight=1.0, amp_dtype=None,
    )  # fmt: skip
    assert any(isinstance(module, nn.SyncBatchNorm) for module in learner.network.modules()) == asked
    assert learner.config.sync_bn == asked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sync_bn": True}, "sync-bn without a GPU: omit it"),
        ({"batch_size": "auto"}, "batch-size auto without a GPU: give a number of images"),
    ],
)
def test_what_needs_a_gpu(config: TrainConfig, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(replace(config, out=tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": ()}, "0 datasets with 0 shares: one share for each expected"),
        ({"shares": (1.0, 2.0)}, "1 datasets with 2 shares: one share for each expected"),
        ({"batch_size": 1}, "batch-size 1: at least 2 expected"),
        ({"lr": math.nan}, "lr nan: a number above 0 expected"),
        ({"clip_norm": 0.0}, "clip-norm 0.0: a number above 0 expected"),
        ({"ema": 1.0}, "ema 1.0: a number from 0 to below 1 expected"),
        ({"label_smoothing": 1.0}, "label-smoothing 1.0: a number from 0 to below 1 expected"),
        ({"pos_weight": 0.0}, "pos-weight 0.0: auto, or a number above 0 expected"),
        ({"checkpoint_minutes": 0.0}, "checkpoint-minutes 0.0: a number above 0 expected"),
        ({"schedule": "onecycle", "warmup_epochs": 1.0}, "which has a rise of its own: give one of them"),
        ({"resident_share": 1.5}, "resident-share 1.5: a share from 0 to 1 expected"),
        ({"flip": True}, "flip without augment: give --augment light or strong as well"),
        ({"shares": (1.0,), "folds": 3}, "shares with folds or limit-images: give one of them"),
        ({"window": 3}, "window without order windowed: give --order windowed as well"),
        ({"order": "windowed", "balance": "view"}, "balance without order weighted: give --order weighted as well"),
        ({"order": "sequential"}, "order 'sequential' is unknown: use one of shuffle, weighted, windowed"),
        ({"fold": 1}, "fold 1 of no folds: give --folds K as well, with K at least 2"),
        ({"folds": 5, "fold": 6}, "fold 6 of 5 folds: 1 to 5 expected"),
        ({"patience": 0}, "patience 0: at least 1 expected"),
        ({"warmup_epochs": math.inf}, "warmup-epochs inf: 0 to 1000000 expected"),
        ({"weight_decay": -1.0}, "weight-decay -1.0: at least 0 expected"),
        ({"resume": True, "overwrite": True}, "resume and overwrite exclude each other"),
    ],
)
def test_values_that_cannot_work(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**change)
