"""The training step: against one written out, and each of its options against its own definition."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pneumo_fast.run.model import build_model
from pneumo_fast.training.learner import Ema, Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.setup import warm_up_compiler
from tests.support.devices import DEVICES, NO_GPU
from tests.support.training import small as normed
from tests.training.test_schedule import rates


def make_learner(device: str = "cpu", model: nn.Module | None = None, **options: Any) -> Learner:
    torch.manual_seed(0)
    model = (model or build_model()).to(device)
    names = {"total_steps", "warmup_steps", "amp_dtype", "world_size"}  # others are options of the training
    own: dict[str, Any] = {"total_steps": 100} | {name: options.pop(name) for name in names & options.keys()}
    return Learner(
        config=TrainConfig(**{"lr": 1e-3} | options),
        model=model,
        network=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-3, fused=True),
        device=torch.device(device),
        pos_weight=2.0,
        **own,
    )


def small() -> nn.Module:
    """Without BatchNorm, so that a batch may be worked through in any parts."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 7, 1))


def batch(device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Eight images of 32 x 32 pixels, the positives brighter."""
    labels = torch.tensor([0.0, 1.0] * 4)
    images = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(1)) + labels[:, None, None, None]
    return images.to(device), labels.to(device)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def gradient(
    learner: Learner, images: torch.Tensor, labels: torch.Tensor, batch_size: int | None = None
) -> torch.Tensor:
    """That of a step, which Adam alone would not tell from a multiple of it."""
    learner.optimizer.zero_grad = lambda **_: None  # type: ignore[method-assign]
    learner.step(images, labels, batch_size)
    return torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])


@DEVICES
@pytest.mark.parametrize("amp_dtype", [None, torch.bfloat16, torch.float16], ids=["float32", "bfloat16", "float16"])
def test_a_step_learns(device: str, amp_dtype: torch.dtype | None) -> None:
    if device == "cpu" and amp_dtype == torch.float16:
        pytest.skip("float16 is for GPUs")
    learner = make_learner(device, normed(), amp_dtype=amp_dtype, lr=0.01)
    learner.model.train()
    steps = [learner.step(*batch(device)) for _ in range(6)]
    for losses, logits, _ in steps:
        assert (losses.shape, losses.dtype, losses.requires_grad) == ((8,), torch.float32, False)
        assert (logits.shape, logits.dtype, logits.requires_grad) == ((8,), torch.float32, False)
    assert steps[-1][0].mean() < 0.5 * steps[0][0].mean()
    assert all(parameter.dtype == torch.float32 for parameter in learner.model.parameters())
    too_large = math.log2((65536.0 if amp_dtype == torch.float16 else 1.0) / learner.scaler.get_scale())
    assert (learner.steps_done, learner.check()) == (6, too_large)  # halved at each step that float16 could not hold


def test_a_step_is_the_plain_one() -> None:
    """Against a step written out: forward, loss, backward, Adam."""
    learner, plain = make_learner(), make_learner()
    images, labels = batch()
    for _ in range(2):
        losses, logits, _ = learner.step(images, labels)
        expected_logits = plain.model(images)[:, 0]
        expected = binary_cross_entropy_with_logits(
            expected_logits, labels, pos_weight=torch.tensor(plain.pos_weight, device=plain.device)
        )
        assert torch.equal(logits, expected_logits)
        assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-6)
        plain.optimizer.zero_grad()
        expected.backward()  # type: ignore[no-untyped-call]
        plain.optimizer.step()
    torch.testing.assert_close(weights(learner.model), weights(plain.model), rtol=0, atol=1e-6)


def test_a_batch_in_parts_makes_the_step_of_the_whole_batch() -> None:
    whole, parted = make_learner(model=small()), make_learner(model=small(), accumulate=3)
    images, labels = batch()
    calls: list[int] = []
    parted.model.register_forward_hook(lambda _module, arguments, _out: calls.append(len(arguments[0])))
    first, second = whole.step(images, labels), parted.step(images, labels)
    assert calls == [3, 3, 2]
    torch.testing.assert_close(second, first)
    torch.testing.assert_close(weights(parted.model), weights(whole.model), rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient(parted, images, labels), gradient(whole, images, labels))


@pytest.mark.parametrize(("images", "accumulate"), [(7, 3), (9, 4), (5, 4), (3, 2)])
def test_no_part_of_a_batch_is_too_small_for_batchnorm(images: int, accumulate: int) -> None:
    learner = make_learner(model=small(), accumulate=accumulate)
    calls: list[int] = []
    learner.model.register_forward_hook(lambda _module, arguments, _out: calls.append(len(arguments[0])))
    learner.step(torch.randn(images, 1, 32, 32), torch.zeros(images))
    assert sum(calls) == images
    assert min(calls) >= 2
    assert max(calls) - min(calls) <= 1


@pytest.mark.parametrize(("images", "accumulate"), [(8, 1), (8, 16), (16, 3), (16, 4)])
def test_a_compiler_is_warmed_up_for_the_parts_of_a_step(images: int, accumulate: int) -> None:
    learner = make_learner(accumulate=accumulate)
    learner.model.train()
    calls: list[int] = []
    learner.model.register_forward_hook(lambda _module, arguments, _out: calls.append(len(arguments[0])))
    warm_up_compiler(learner, images, 32)
    warmed_up = calls[:]
    calls.clear()
    learner.step(torch.randn(images, 1, 32, 32), torch.zeros(images))
    assert warmed_up == sorted(set(calls), reverse=True)


@pytest.mark.parametrize("synced", [False, True])
def test_processes_call_a_shared_batchnorm_equally_often(synced: bool) -> None:
    """Or they would wait for each other for ever; a process's own is left out where it has one image or none."""
    counts: dict[int, list[bool]] = {}
    for share in (4, 3, 1, 0):
        learner = make_learner(model=nn.Sequential(small()), accumulate=2, world_size=2, sync_bn=synced)
        calls = counts.setdefault(share, [])
        learner.model.register_forward_hook(lambda module, *_, calls=calls: calls.append(module.training))
        learner.step(torch.randn(share, 1, 32, 32), torch.zeros(share), 7 if share > 1 else 1)
    assert counts == {4: [True], 3: [True], 1: [synced], 0: [synced]}


def test_shares_of_a_batch_add_up_to_its_gradient() -> None:
    """Processes average their gradients, so each loss is scaled by the size of the whole batch."""
    images, labels = batch()

    shares = [
        gradient(make_learner(model=small(), world_size=2), images[part], labels[part], 8)
        for part in (slice(0, 5), slice(5, 8))
    ]
    whole = gradient(make_learner(model=small()), images, labels)
    torch.testing.assert_close(torch.stack(shares).mean(0), whole)


def test_smoothing_draws_the_labels_together() -> None:
    images, labels = batch()
    losses, logits, _ = make_learner(model=small(), label_smoothing=0.2).step(images, labels)
    expected = binary_cross_entropy_with_logits(
        logits, torch.where(labels > 0, 0.9, 0.1), pos_weight=torch.tensor(2.0), reduction="none"
    )
    torch.testing.assert_close(losses, expected)


def test_a_long_gradient_is_cut() -> None:
    whole, cut = (gradient(make_learner(model=small(), clip_norm=limit), *batch()) for limit in (None, 0.01))
    assert whole.norm() > 0.05
    torch.testing.assert_close(cut, whole * 0.01 / whole.norm(), rtol=1e-3, atol=0)


def test_the_average_of_the_weights_is_the_one_defined() -> None:
    learner = make_learner(model=build_model())
    start = copy.deepcopy(learner.model)
    learner.ema = Ema(learner.model, 0.15)
    expected = weights(start)
    for decay in (0.1, 0.15, 0.15):  # (1 + n) / (10 + n) is 0.1 at first and 0.18 then
        learner.step(*batch())
        expected = decay * expected + (1 - decay) * weights(learner.model)
    torch.testing.assert_close(weights(learner.ema.model), expected)
    for mine, theirs in zip(learner.ema.model.buffers(), learner.model.buffers(), strict=True):
        assert torch.equal(mine, theirs)


Batch = tuple[torch.Tensor, torch.Tensor]


def spoil_one_image(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    return torch.cat([torch.full_like(images[:1], math.inf), images[1:]]), labels


def spoil_all_images(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    return torch.full_like(images, math.nan), labels


def spoil_gradient(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    """As where float16 overflows on the way back: the forward pass, and what BatchNorm keeps of it, are finite."""
    return images, torch.full_like(labels, math.nan)


@DEVICES
@pytest.mark.parametrize("spoil", [spoil_one_image, spoil_all_images, spoil_gradient])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_with_a_gradient_that_is_not_finite_leaves_no_mark(device: str, spoil: Any, accumulate: int) -> None:
    """Not even until the next check; the moving average, too, stays what the steps before made of it."""
    learner = make_learner(device, normed(), ema=0.5, accumulate=accumulate)
    learner.model.train()
    images, labels = batch(device)
    for _ in range(2):
        learner.step(images, labels)
    before = copy.deepcopy([learner.model.state_dict(), learner.optimizer.state_dict()["state"]])
    learner.step(*spoil(images, labels))
    assert learner.steps_done == 3
    torch.testing.assert_close(
        [learner.model.state_dict(), learner.optimizer.state_dict()["state"]], before, rtol=0, atol=0
    )
    average = learner.judged_model.state_dict()
    for name, buffer in learner.model.named_buffers():
        assert torch.equal(average[name], buffer), name
    assert weights(learner.judged_model).isfinite().all()
    assert learner.check() == 1
    learner.step(images, labels)
    assert not torch.equal(next(learner.model.buffers()), before[0]["1.running_mean"]), "statistics go on"
    assert (learner.steps_done, learner.check()) == (4, 1)


def test_the_first_step_may_be_the_one_that_leaves_no_mark() -> None:
    learner = make_learner()
    learner.model.train()
    before = copy.deepcopy(learner.model.state_dict())
    learner.step(*spoil_all_images(*batch()))
    torch.testing.assert_close(dict(learner.model.state_dict()), dict(before), rtol=0, atol=0)
    assert learner.check() == 1


def test_statistics_that_an_earlier_release_left_spoiled_are_put_back() -> None:
    """It put them back every 50 steps, and might be stopped in between."""
    learner = make_learner()
    learner.model.train()
    learner.step(*batch())
    state = copy.deepcopy(learner.state_dict())
    good = copy.deepcopy(state["guard"]["buffers"])
    state["model"]["bn1.running_var"].fill_(math.nan)
    state["guard"]["buffers"] = good
    resumed = make_learner()
    resumed.load_state_dict(state)
    for buffer, expected in zip(resumed.model.buffers(), good, strict=True):
        assert torch.equal(buffer, expected)
    resumed.step(*batch())
    assert resumed.check() == 0
    learner.step(*batch())
    torch.testing.assert_close(dict(resumed.model.state_dict()), dict(learner.model.state_dict()), rtol=0, atol=1e-5)


@pytest.mark.gpu
@NO_GPU
def test_a_step_that_overflows_float16_is_left_out() -> None:
    learner = make_learner("cuda", amp_dtype=torch.float16)
    images, labels = batch("cuda")
    learner.step(images, labels)
    before, scale = weights(learner.model), learner.scaler.get_scale()
    learner.step(images * 1e30, labels)
    assert learner.scaler.get_scale() == scale / 2
    assert torch.equal(before, weights(learner.model))


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("make", [build_model, small], ids=["with statistics", "without"])
def test_a_step_does_not_wait_for_the_gpu(make: Callable[[], nn.Module]) -> None:
    learner = make_learner("cuda", make(), ema=0.9)
    images, labels = batch("cuda")
    learner.step(images, labels)
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.step(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_step_uses_the_schedule() -> None:
    learner = make_learner(model=small(), schedule="cosine", total_steps=5, warmup_steps=2)
    used = []
    for _ in range(5):
        learner.step(*batch())
        used.append(learner.optimizer.param_groups[0]["lr"])
    assert used == pytest.approx([1e-3 * rate for rate in rates("cosine", 5, 2)])
    assert used[0] == pytest.approx(5e-4)
