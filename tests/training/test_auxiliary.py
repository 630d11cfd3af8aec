"""Auxiliary supervision: what is taught changes the result, and leaves nothing behind but the weights of the model."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import ConfigError, DatasetError, RunError, TrainingStoppedError
from pneumo_fast.loading.batches import Rank
from pneumo_fast.loading.targets import NO_CLASS, Targets, blank_targets, box_masks
from pneumo_fast.run.checkpoint import load_resumable, load_trained
from pneumo_fast.run.layout import BEST, CURVES, LAST
from pneumo_fast.run.model import build_model
from pneumo_fast.training import setup
from pneumo_fast.training.auxiliary import Taught, check_teachable
from pneumo_fast.training.batch_size import trial_step
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train
from tests.support.make_dataset import CLASSES
from tests.support.training import check_same, check_same_run, history_of, network, weights
from tests.training.test_session import ALL_STATES, STEPS, Dropping, after_step

pytestmark = pytest.mark.usefixtures("one_thread")
BOTH: dict[str, Any] = {"teach": ("boxes", "classes")}


@pytest.fixture(scope="module")
def config(painted: Path) -> Iterator[TrainConfig]:
    """Three epochs of five steps of a small network, with all kinds of state."""
    with network(Dropping):
        yield TrainConfig(
            datasets=(painted,), out=Path("unset"), epochs=3, batch_size=4, lr=1e-3, device="cpu", seed=1,
            teach_stage="layers.2", **BOTH,
        )  # fmt: skip


@pytest.fixture(scope="module")
def begun(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run after its first epoch. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "begun"
    train(replace(config, out=run, epochs=1))
    return run


ALL_CHANGES: dict[str, Any] = {**ALL_STATES, "augment": "strong", "flip": True}


@pytest.fixture(scope="module")
def whole(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with all states. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(replace(config, out=run, **ALL_CHANGES))
    return run


def taught(**options: Any) -> Taught:
    torch.manual_seed(0)
    return Taught(build_model(), ("boxes", "classes"), **{"stage": None, "classes": 3, "size": 64} | options)


def targets() -> Targets:
    """Of four images: negative, with a box, without the box they should have, and without a class."""
    some = blank_targets(4, torch.device("cpu"))
    some.boxes[1, 0] = torch.tensor([8.0, 16.0, 40.0, 48.0])
    some.boxed[2] = 0
    some.classes[:] = torch.tensor([2, 0, 0, NO_CLASS])
    return some


def test_the_losses_are_those_defined_and_images_that_say_nothing_are_left_out() -> None:
    network, images, of = taught(), torch.randn(4, 1, 64, 64), targets()
    seen: dict[str, torch.Tensor] = {}
    network.model.get_submodule("layer3").register_forward_hook(lambda _m, _i, out: seen.update(map=out))
    network.model.get_submodule("fc").register_forward_hook(lambda _m, inputs, _o: seen.update(pooled=inputs[0]))
    logits, losses = network(images, of)
    assert logits.shape == (4, 1)
    cells = network.heads["boxes"](seen["map"])[:, 0]
    masks = box_masks(of.boxes, of.matrices, 64, 4)
    assert masks[1].tolist() == [[0, 0, 0, 0], [0.5, 1, 0.5, 0], [0.5, 1, 0.5, 0], [0, 0, 0, 0]]
    of_boxes = binary_cross_entropy_with_logits(cells, masks, reduction="none").mean((1, 2))
    of_classes = cross_entropy(network.heads["classes"](seen["pooled"])[:3], of.classes[:3], reduction="none")
    torch.testing.assert_close(losses[0], of_boxes * torch.tensor([1.0, 1.0, 0.0, 1.0]))
    torch.testing.assert_close(losses[1], torch.cat([of_classes, torch.zeros(1)]))


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("resnet18", "layer3"),
        ("densenet121", "features.denseblock3"),
        ("efficientnet_b0", "features.5"),
        ("regnet_y_400mf", "trunk_output.block3"),
        ("shufflenet_v2_x0_5", "stage3"),
        ("vgg11_bn", "features.27"),
    ],
)
def test_the_stage_is_the_last_with_a_map_twice_as_fine_as_the_coarsest(name: str, stage: str) -> None:
    network = Taught(build_model(name), ("boxes",), stage=None, classes=0, size=64)
    assert network.stage == stage
    assert network.describe() == (f"boxes on {stage} (4 x 4 cells)",)


@pytest.mark.parametrize(
    ("name", "task", "stage", "message"),
    [
        ("swin_t", "boxes", None, "no stage whose map is finer than its last one: name one with --teach-stage"),
        (
            "resnet18",
            "boxes",
            "layer9",
            "teach-stage 'layer9' gives no map: use one of conv1, bn1, relu, maxpool, ",
        ),
        ("resnet18", "boxes", "fc", "teach-stage 'fc' gives no map"),
        ("squeezenet1_1", "classes", None, "does not end with a linear layer: use resnet18"),
    ],
)
def test_a_model_that_cannot_be_taught(name: str, task: Any, stage: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Taught(build_model(name), (task,), stage=stage, classes=3, size=64)


def test_each_auxiliary_task_and_its_weight_changes_the_result(config: TrainConfig, tmp_path: Path) -> None:
    changes: dict[str, dict[str, Any]] = {
        "none": {"teach": (), "teach_stage": None},
        "boxes": {"teach": ("boxes",)},
        "classes": {"teach": ("classes",), "teach_stage": None},
        "both": {},
        "boxes weigh": {"teach_boxes_weight": 2.0},
        "classes weigh": {"teach_classes_weight": 2.0},
        "another stage": {"teach_stage": "layers.0"},
    }
    found = {}
    for name, change in changes.items():
        train(replace(config, out=tmp_path / name, epochs=1, **change))
        found[name] = weights(tmp_path / name / LAST)
    names = list(found)
    for number, name in enumerate(names):
        assert not any(torch.equal(found[name], found[other]) for other in names[:number]), name


def test_the_order_in_which_auxiliary_tasks_are_named_is_nothing(config: TrainConfig, tmp_path: Path) -> None:
    orders: dict[str, Any] = {"one": ("boxes", "classes"), "other": ("classes", "boxes", "classes")}
    for name, teach in orders.items():
        train(replace(config, out=tmp_path / name, epochs=1, teach=teach))
    check_same(tmp_path / "one" / LAST, tmp_path / "other" / LAST)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_what_is_kept_to_be_judged_is_a_plain_resnet(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float | None
) -> None:
    monkeypatch.setattr(setup, "build_model", build_model)
    train(replace(config, out=tmp_path / "run", epochs=1, batch_size=8, ema=ema, teach_stage=None))
    plain = torchvision.models.resnet18(num_classes=1)
    plain.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    for name in (BEST, LAST):
        plain.load_state_dict(load_trained(tmp_path / "run" / name).model, strict=True)
    assert "heads" not in torch.load(tmp_path / "run" / BEST, weights_only=True)
    state = load_resumable(tmp_path / "run" / LAST).learner
    assert sorted(state["heads"]) == ["boxes.bias", "boxes.weight", "classes.bias", "classes.weight"]
    assert state["heads"]["classes.weight"].shape == (3, 512)
    assert state["heads"]["boxes.weight"].shape == (1, 256, 1, 1)


def test_the_losses_are_recorded_each_by_its_name(config: TrainConfig, tmp_path: Path) -> None:
    summary = train(replace(config, out=tmp_path / "both"))
    for name in ("train_boxes_loss", "train_classes_loss"):
        values = [record[name] for record in history_of(tmp_path / "both")]
        assert values[-1] < values[0] < 1.5
    assert summary.history == history_of(tmp_path / "both")
    trained = load_trained(tmp_path / "both" / BEST)
    kept = {name: trained.settings[name] for name in ("teach", "teach-boxes-weight", "teach-stage", "classes")}
    assert kept == {
        "teach": ["boxes", "classes"], "teach-boxes-weight": 1.0, "teach-stage": "layers.2", "classes": sorted(CLASSES),
    }  # fmt: skip
    assert (tmp_path / "both" / CURVES).stat().st_size > 10_000


def test_the_label_is_judged_as_without_auxiliary_tasks(config: TrainConfig, tmp_path: Path) -> None:
    """Weight of positives, prior shift and the losses before the first step."""
    first: list[torch.Tensor] = []
    plain_step = Learner.step
    for name, change in (("with", {}), ("without", {"teach": (), "teach_stage": None})):
        with pytest.MonkeyPatch.context() as patch:

            def spy(learner: Learner, images: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
                result = plain_step(learner, images, labels, *rest)
                first.append(result[0])
                return result

            patch.setattr(Learner, "step", spy)
            train(replace(config, out=tmp_path / name, epochs=1, **change))  # type: ignore[arg-type]
    assert torch.equal(first[0], first[STEPS])
    one, other = (load_trained(tmp_path / name / BEST) for name in ("with", "without"))
    assert (one.pos_weight, one.prior_shift) == (other.pos_weight, other.prior_shift)
    assert other.settings["teach"] is None


@pytest.mark.parametrize("step", [1, 8, 10])
def test_a_stopped_run_goes_on_to_the_same_bits(
    config: TrainConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    config = replace(config, **ALL_CHANGES)
    with monkeypatch.context() as patch:
        after_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(TrainingStoppedError):
            train(replace(config, out=tmp_path / "run"))
    assert load_resumable(tmp_path / "run" / LAST).learner["steps_done"] == step
    train(replace(config, out=tmp_path / "run", resume=True))
    check_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teach": (), "teach_stage": None}, r"was trained with teach \['boxes', 'classes'\], now it is None"),
        ({"teach": ("boxes",)}, r"was trained with teach \['boxes', 'classes'\], now it is \['boxes'\]"),
        ({"teach_boxes_weight": 2.0}, "was trained with teach-boxes-weight 1.0, now it is 2.0"),
        ({"teach_stage": "layers.0"}, "was trained with teach-stage 'layers.2', now it is 'layers.0'"),
    ],
)
def test_resuming_with_other_auxiliary_tasks_is_refused(
    config: TrainConfig, begun: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        train(replace(config, out=begun, resume=True, **change))


def test_a_run_from_before_auxiliary_supervision_goes_on(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, teach=(), teach_stage=None)
    train(replace(config, out=tmp_path / "whole"))
    run = tmp_path / "run"
    train(replace(config, out=run, epochs=1))
    content = torch.load(run / LAST, weights_only=True)
    del content["settings"]["teach"]
    torch.save(content, run / LAST)
    train(replace(config, out=run, resume=True))
    check_same(run / LAST, tmp_path / "whole" / LAST)
    with pytest.raises(RunError, match=r"was trained with teach None, now it is \['boxes'\]"):
        train(replace(config, out=run, epochs=4, resume=True, teach=("boxes",)))


def test_a_batch_in_parts_makes_the_step_of_the_whole_batch(config: TrainConfig) -> None:
    def plain(*_: object) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 15 * 15, 1))

    images, labels, of = torch.randn(4, 1, 64, 64), torch.tensor([0.0, 1.0, 1.0, 0.0]), targets()
    found = []
    for accumulate in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(setup, "build_model", plain)
            learner = setup.make_learner(
                replace(config, accumulate=accumulate, teach_stage="1"), torch.device("cpu"), Rank(), size=64,
                batches=3, pos_weight=1.0, amp_dtype=None, classes=3,
            )  # fmt: skip
        assert learner.taught
        *result, auxiliary = learner.step(images, labels, 4, of)
        assert auxiliary.shape == (2, 4)
        found.append([*result, auxiliary, *(parameter.detach() for parameter in learner.taught.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_gradients_norm_is_that_of_model_and_heads(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = setup.make_learner(
        replace(config, clip_norm=0.01), torch.device("cpu"), Rank(), size=32, batches=3, pos_weight=1.0,
        amp_dtype=None, classes=3,
    )  # fmt: skip
    assert learner.taught
    monkeypatch.setattr(learner.optimizer, "zero_grad", lambda **_: None)
    learner.step(torch.randn(4, 1, 32, 32), torch.tensor([0.0, 1.0, 1.0, 0.0]), 4, targets())
    gradients = [parameter.grad for parameter in learner.taught.parameters() if parameter.grad is not None]
    assert len(gradients) == len(list(learner.taught.parameters()))
    assert nn.utils.get_total_norm(gradients).item() == pytest.approx(0.01, rel=1e-3)


def test_model_and_auxiliary_heads_are_compiled_once_and_train_the_same(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_, graphs, at_steps, plain_step = torch.compile, [], [], Learner.step

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> Any:
        graphs.append(graph)
        return graph.forward

    def spy(learner: Learner, *arguments: Any) -> Any:
        at_steps.append(len(graphs))
        return plain_step(learner, *arguments)

    def build(*_: object) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 7, 1))

    monkeypatch.setattr(torch, "compile", lambda model: compile_(model, backend=backend))
    monkeypatch.setattr(setup, "build_model", build)
    monkeypatch.setattr(Learner, "step", spy)
    config = replace(config, teach_stage="1", augment="light", ema=0.9)
    train(replace(config, out=tmp_path / "plain"))
    train(replace(config, out=tmp_path / "compiled", compile=True))
    compiled = at_steps[3 * STEPS :]
    assert compiled[0] > 0, "before the clock runs"
    assert compiled[STEPS - 1] == compiled[0], "once for all full batches"
    assert compiled[-1] - compiled[0] <= 2, "once more for the last batch, which is larger"
    torch.testing.assert_close(weights(tmp_path / "compiled" / LAST), weights(tmp_path / "plain" / LAST))
    torch.compiler.reset()


def test_mixed_precision(config: TrainConfig) -> None:
    learner = setup.make_learner(
        config,
        torch.device("cpu"),
        Rank(),
        size=32,
        batches=3,
        pos_weight=1.0,
        amp_dtype=torch.bfloat16,
        classes=3,
    )
    images, labels = torch.randn(4, 1, 32, 32), torch.tensor([0.0, 1.0, 1.0, 0.0])
    losses = [learner.step(images, labels, 4, targets())[2] for _ in range(8)]
    assert losses[0].dtype == torch.float32
    assert losses[-1].sum() < losses[0].sum()


def test_the_largest_batch_is_found_with_the_auxiliary_tasks_at_work(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_step = Learner.step
    given: list[Any] = []

    def spy(learner: Learner, images: torch.Tensor, labels: torch.Tensor, **rest: Any) -> Any:
        given.append((learner.network.tasks, len(images), len(rest["targets"].boxes)))
        return plain_step(learner, images, labels, **rest)

    monkeypatch.setattr(Learner, "step", spy)
    trial_step(config, 32, torch.device("cpu"), None, 3)(4)
    assert given == [(("boxes", "classes"), 4, 4)] * 2


@pytest.mark.parametrize(
    ("teach", "classes", "message"),
    [
        (
            ("boxes",),
            None,
            "no training image of .*noise has a box: convert with a label table that has the",
        ),
        (("classes",), None, "the training images of .*noise have no class: convert with --class-info"),
        (("classes",), "Normal", "are of class 'Normal' only: convert with --class-info and a table of at least two"),
    ],
)
def test_data_that_lack_what_is_taught(
    noise: Path, config: TrainConfig, tmp_path: Path, teach: Any, classes: str | None, message: str
) -> None:
    dataset = Dataset.open(noise)
    if classes:
        dataset = replace(dataset, index=dataset.index.assign(**{"class": classes}))
    with pytest.raises(DatasetError, match=message):
        check_teachable(dataset, teach)
    if not classes:
        stage = config.teach_stage if "boxes" in teach else None
        with pytest.raises(DatasetError, match=message):
            train(replace(config, datasets=(noise,), teach=teach, teach_stage=stage, out=tmp_path / "run"))
        assert not (tmp_path / "run").exists()


def test_boxes_that_cannot_be_are_counted(painted: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = Dataset.open(painted)
    outside = replace(dataset, boxes=dataset.boxes.assign(x=[100.0, *dataset.boxes["x"][1:]]))
    check_teachable(outside, ("boxes",))
    assert "teach boxes: 1 boxes lie outside of their images or have no area, and are left out" in caplog.text
    with pytest.raises(DatasetError, match=r"no training image of .*painted has a box"):
        check_teachable(replace(dataset, boxes=dataset.boxes.assign(x=100.0)), ("boxes",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teach": ("lungs",)}, "teach 'lungs' is unknown: use one of boxes, classes"),
        ({"teach": ("boxes",), "teach_boxes_weight": 0.0}, "teach-boxes-weight 0.0: a number above 0 expected"),
        ({"teach_boxes_weight": 2.0}, "teach-boxes-weight without teach boxes: give --teach boxes as well"),
        ({"teach": ("boxes",), "teach_classes_weight": 2.0}, "teach-classes-weight without teach classes"),
        ({"teach": ("classes",), "teach_stage": "layer3"}, "teach-stage without teach boxes"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**options)


@pytest.mark.usefixtures("config")
def test_the_plan_names_the_auxiliary_tasks(painted: Path, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    words = ["--teach", "boxes", "--teach", "classes", "--teach-stage", "layers.2", "--epochs", "1", "--device", "cpu"]
    ended = run_cli("train", painted, "--out", tmp_path / "run", *words)
    assert ended.code == 0, ended.err
    shown = " ".join((ended.out + ended.err).split())
    assert "boxes on layers.2 (7 x 7 cells); 3 classes on the pooled features" in shown
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["teach"] == ["boxes", "classes"]
