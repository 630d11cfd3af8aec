"""The training step in plain PyTorch, and what it works on. Nothing in a step waits for the device."""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pneumo_fast.vocabulary import ScheduleName


@dataclass(kw_only=True, slots=True)
class Learner:
    """What a training step works on."""

    model: nn.Module
    """Maps images (N, 1, H, W) to logits (N, 1)."""
    optimizer: torch.optim.Optimizer
    """Fused, so that a step can be left out without waiting for the device."""
    device: torch.device
    pos_weight: torch.Tensor
    """Weight of a positive image in the loss; scalar, on the device."""
    lr: float
    """Highest learning rate."""
    steps: int
    """Steps of the whole run."""
    network: nn.Module
    """What is called in training: the model itself, or compiled, or as one of several processes' copies."""
    amp_dtype: torch.dtype | None = None
    """Data type of mixed precision, where it is on."""
    schedule: ScheduleName = "none"
    warm_up: int = 0
    """Steps in which the learning rate rises."""
    pieces: int = 1
    """Parts in which a batch is worked through; only their gradients are added up."""
    clip_norm: float | None = None
    """Longest gradient, over all weights."""
    smoothing: float = 0.0
    """Labels become ``smoothing / 2`` and ``1 - smoothing / 2``."""
    ema: Ema | None = None
    """Running average of the weights."""
    world_size: int = 1
    """Processes among which a batch is shared out."""
    synced: bool = False
    """Whether BatchNorm uses what all processes see; all of them must then call it equally often."""
    step: int = 0
    """Steps done, those included that were left out."""
    scaler: torch.amp.GradScaler = field(init=False)
    """Scales the loss where float16 needs it, and everywhere leaves out a step with a gradient that is not finite."""

    def __post_init__(self) -> None:
        """Make the scaler."""
        half = self.amp_dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=2.0**16 if half else 1.0)

    def logits(self, images: torch.Tensor, network: nn.Module | None = None) -> torch.Tensor:
        """Logits (N,) float32 of images (N, 1, H, W), under mixed precision where it is on."""
        called = self.network if network is None else network
        with torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            logits: torch.Tensor = called(images)
        return logits.squeeze(1).float()

    def skipped(self) -> int:
        """Steps that were left out so far; waits for the device."""
        states = list(self.optimizer.state.values())
        return self.step - int(states[0]["step"] if states else 0)


def train_step(
    learner: Learner, images: torch.Tensor, labels: torch.Tensor, batch_size: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """One optimizer step; nothing here waits for the device.

    Parameters
    ----------
    images : Tensor of float32, shape (N, 1, H, W)
    labels : Tensor of float32, shape (N,)
        0 or 1.
    batch_size : int, optional
        Images in the batch of all processes together, over which the loss is a mean; N where not given.

    Returns
    -------
    losses : Tensor of float32, shape (N,)
    logits : Tensor of float32, shape (N,)
    """
    targets = labels * (1 - learner.smoothing) + learner.smoothing / 2
    whole = batch_size or len(labels)
    pieces = max(1, min(learner.pieces, whole // learner.world_size // 2))  # of two images at least, for BatchNorm
    parts = list(zip(images.tensor_split(pieces), targets.tensor_split(pieces), strict=True))
    share = learner.world_size / whole  # processes average their gradients
    if learner.world_size > 1:  # of the last batch a process may have one image or none: too few for its BatchNorm
        learner.model.train(len(labels) > 1 or learner.synced)
    losses, logits = [], []
    for number, (part, target) in enumerate(parts, start=1):
        with nullcontext() if number == len(parts) else _apart(learner.network):
            logits.append(learner.logits(part))
            losses.append(
                binary_cross_entropy_with_logits(logits[-1], target, pos_weight=learner.pos_weight, reduction="none")
            )
            learner.scaler.scale(losses[-1].sum() * share).backward()  # type: ignore[no-untyped-call]
    for group in learner.optimizer.param_groups:
        group["lr"] = learner.lr * lr_factor(learner.schedule, learner.step, learner.steps, learner.warm_up)
    if learner.clip_norm is not None:
        learner.scaler.unscale_(learner.optimizer)
        nn.utils.clip_grad_norm_(learner.model.parameters(), learner.clip_norm)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update(None if learner.amp_dtype == torch.float16 else 1.0)
    learner.optimizer.zero_grad(set_to_none=True)
    learner.step += 1
    if learner.ema is not None:
        learner.ema.update(learner.model)
    return torch.cat(losses).detach(), torch.cat(logits).detach()


def _apart(network: nn.Module) -> AbstractContextManager[None]:
    """Processes exchange gradients once for a batch, with its last part, and not within this."""
    if isinstance(network, nn.parallel.DistributedDataParallel):
        apart: AbstractContextManager[None] = network.no_sync()
        return apart
    return nullcontext()


class Ema:
    """An exponential moving average of a model's weights; other state, as of BatchNorm, is that of the model.

    Early steps count more than the decay says, so that the first weights are soon forgotten: the decay of step n is
    at most (1 + n) / (10 + n).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        _copy(list(self.model.buffers()), list(model.buffers()))


def _copy(to: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    if to:  # a model without BatchNorm has no buffers
        torch._foreach_copy_(to, values)


class Guard:
    """Keeps BatchNorm's running statistics from what a step that was left out did to them in its forward pass."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.kept = [buffer.clone() for buffer in learner.model.buffers()]
        """How the buffers were when nothing had been left out since the look before."""
        self.skipped = 0
        """Steps left out, as of the last look."""

    def look(self) -> int:
        """Put back what is not finite; returns the steps left out so far. Waits for the device."""
        buffers = list(self._learner.model.buffers())
        skipped = self._learner.skipped()
        if skipped == self.skipped:
            _copy(self.kept, buffers)
        else:
            for buffer, kept in zip(buffers, self.kept, strict=True):
                if not buffer.isfinite().all():
                    buffer.copy_(kept)
        self.skipped = skipped
        return skipped


RISE, FIRST_SHARE, LAST_SHARE = 0.3, 1 / 25, 1 / 250_000
"""Of one-cycle (Smith and Topin 2017, https://arxiv.org/abs/1708.07120), with PyTorch's values: the share of the steps
in which the rate rises, and where it begins and ends, as shares of the highest rate."""


def lr_factor(schedule: ScheduleName, step: int, steps: int, warm_up: int) -> float:
    """What the learning rate is multiplied with.

    Parameters
    ----------
    step : int
        From 0 to ``steps - 1``.
    steps : int
        Of the whole run.
    warm_up : int
        Steps in which the rate rises in a straight line to its full value, before ``none`` keeps it there and
        ``cosine`` lets it fall to 0; ``onecycle`` has a rise of its own and takes no notice.
    """
    if schedule == "onecycle":
        top = RISE * steps - 1
        if step <= top:
            return _between(FIRST_SHARE, 1.0, step / top if top > 0 else 1.0)
        return _between(1.0, LAST_SHARE, (step - top) / (steps - 1 - top))
    if step < warm_up:
        return (step + 1) / warm_up
    if schedule == "cosine":
        return _between(1.0, 0.0, (step - warm_up) / (steps - warm_up))
    return 1.0


def _between(start: float, end: float, share: float) -> float:
    """Half a wave of the cosine from one value to another."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
