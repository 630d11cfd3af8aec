"""The training step in plain PyTorch, and what it works on. Nothing in a step waits for the device."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from torch import nn

from pneumo_fast.loading.targets import Targets
from pneumo_fast.records import build
from pneumo_fast.training.auxiliary import Taught
from pneumo_fast.training.distributed import apart
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.schedule import lr_factor


class OptimizerState(TypedDict):
    """What is taken of an optimizer's state, by the parameter's number."""

    state: dict[int, dict[str, torch.Tensor]]


class GuardState(TypedDict):
    """State of a :class:`Guard`."""

    buffers: list[torch.Tensor]
    skipped: int


class HeadsState(TypedDict, total=False):
    """What there is only with auxiliary supervision."""

    heads: dict[str, torch.Tensor]


class LearnerState(HeadsState):
    """State of a :class:`Learner`."""

    model: dict[str, torch.Tensor]
    optimizer: OptimizerState
    scaler: dict[str, float | int]
    ema: dict[str, Any]
    """Empty without an average."""
    guard: GuardState
    steps_done: int


@dataclass(kw_only=True, slots=True)
class Learner:
    """A model and all that changes it, step by step."""

    config: TrainConfig
    model: nn.Module
    """Maps images (N, 1, H, W) to logits (N, 1)."""
    network: nn.Module
    """What is called in training: model or ``taught`` itself, or compiled, or as one of several processes' copies."""
    taught: Taught | None = None
    """The model with its auxiliary heads, where there are any."""
    optimizer: torch.optim.Optimizer
    """Fused, so that a step can be skipped without waiting for the device."""
    device: torch.device
    pos_weight: float
    """Weight of a positive image in the loss."""
    total_steps: int
    warmup_steps: int = 0
    """Steps in which the learning rate rises."""
    amp_dtype: torch.dtype | None = None
    """Data type of mixed precision, where it is on."""
    world_size: int = 1
    """Processes among which a batch is shared out."""
    steps_done: int = 0
    """Steps of the run so far, skipped ones included."""
    ema: Ema | None = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)
    """Scales the loss where float16 needs it, and everywhere skips a step with a gradient that is not finite."""
    guard: Guard = field(init=False)
    _loss: nn.BCEWithLogitsLoss = field(init=False)
    _weights: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Make what the options ask for."""
        half = self.amp_dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=2.0**16 if half else 1.0)
        self.ema = Ema(self.model, self.config.ema) if self.config.ema else None
        self.guard = Guard(self.model)
        pos_weight = torch.tensor(self.pos_weight, device=self.device)
        self._loss = nn.BCEWithLogitsLoss(pos_weight=pos_weight, reduction="none")
        weights = [float(self.config.auxiliary_weights[task]) for task in self.config.auxiliary]
        self._weights = torch.tensor(weights, device=self.device)

    def step(
        self, images: torch.Tensor, labels: torch.Tensor, batch_size: int | None = None, targets: Targets | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One optimizer step; nothing here waits for the device.

        Parameters
        ----------
        images : Tensor of float32, shape (N, 1, H, W)
            Normalized, on the device.
        labels : Tensor of float32, shape (N,)
            0 or 1.
        batch_size : int, optional
            Images in the batch of all processes together, over which the loss is a mean; N where not given.
        targets : Targets, optional
            What the auxiliary tasks learn of the images, where there are any.

        Returns
        -------
        losses : Tensor of float32, shape (N,)
            Of the label, before the step.
        logits : Tensor of float32, shape (N,)
        auxiliary : Tensor of float32, shape (tasks, N)
            Losses of the auxiliary tasks, unweighted.
        """
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * lr_factor(config.schedule, self.steps_done, self.total_steps, self.warmup_steps)
        losses, logits, auxiliary = self._forward_backward(images, labels, batch_size or len(labels), targets)
        if config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._parameters, config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update(None if self.amp_dtype == torch.float16 else 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        self.steps_done += 1
        self.guard.settle(self._taken)  # before the average takes the statistics over
        if self.ema is not None:
            self.ema.update(self.model)
        return losses, logits, auxiliary

    def _forward_backward(
        self, images: torch.Tensor, labels: torch.Tensor, batch_size: int, targets: Targets | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What :meth:`step` returns, and the gradient of the batch's mean loss, part by part."""
        count, smoothing = self.parts(batch_size // self.world_size), self.config.label_smoothing
        smoothed = labels * (1 - smoothing) + smoothing / 2
        targets_of_parts = targets.parts(count) if targets else [None] * count
        parts = zip(images.tensor_split(count), smoothed.tensor_split(count), targets_of_parts, strict=True)
        share = self.world_size / batch_size  # processes average their gradients
        if self.world_size > 1:  # of the last batch a process may have one image or none: too few for its BatchNorm
            self.model.train(len(labels) > 1 or self.config.sync_bn)
        collected: tuple[list[torch.Tensor], ...] = ([], [], [])
        for number, (part, part_labels, part_targets) in enumerate(parts, start=1):
            with nullcontext() if number == count else apart(self.network):
                logits, auxiliary = self.forward(part, part_targets)
                losses = self._loss(logits, part_labels)
                total = losses.sum() if part_targets is None else losses.sum() + self._weights @ auxiliary.sum(1)
                self.scaler.scale(total * share).backward()
                for values, value in zip(collected, (losses, logits, auxiliary), strict=True):
                    values.append(value.detach())
        losses, logits, auxiliary = (torch.cat(values, -1) for values in collected)
        return losses, logits, auxiliary

    def parts(self, images: int) -> int:
        """Into how many parts a process's share of a batch is divided, whose sizes differ by one image at most."""
        return max(1, min(self.config.accumulate, images // 2))  # of two images at least, for BatchNorm

    def forward(self, images: torch.Tensor, targets: Targets | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N,) of images (N, 1, H, W), and the auxiliary losses (tasks, N), as training makes them."""
        if targets is None:
            logits = self.logits(images)
            return logits, logits.new_zeros(0, len(logits))
        with self._autocast():
            logits, losses = self.network(images, targets)
        return logits.squeeze(1).float(), losses

    def logits(self, images: torch.Tensor, network: nn.Module | None = None) -> torch.Tensor:
        """Logits (N,) float32 of images (N, 1, H, W), under mixed precision where it is on.

        Parameters
        ----------
        network : Module, optional
            What to call in place of the one that is trained.
        """
        called = self.network if network is None else network
        with self._autocast():
            logits: torch.Tensor = called(images)
        return logits.squeeze(1).float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def _taken(self) -> torch.Tensor:
        """Steps that the optimizer has taken, on the device; it does not count those that it skipped."""
        count: torch.Tensor = next((state["step"] for state in self.optimizer.state.values()), torch.zeros(()))
        return count

    @property
    def judged_model(self) -> nn.Module:
        """The model to validate and to keep: the averaged one, where there is one."""
        return self.ema.model if self.ema else self.model

    def check(self) -> int:
        """Count the steps skipped so far. Waits for the device."""
        self.guard.skipped = self.steps_done - int(self._taken)
        return self.guard.skipped

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on; tensors are the learner's own, not copies."""
        heads = {"heads": self.taught.heads.state_dict()} if self.taught else {}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else {},
            "guard": self.guard.state_dict(),
            "steps_done": self.steps_done,
            **heads,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another learner of the same options was.

        Raises
        ------
        RuntimeError, ValueError
            If the state is that of another model, or damaged.
        """
        checked = build(state, LearnerState)
        self.model.load_state_dict(checked["model"])
        if self.taught is not None:
            self.taught.heads.load_state_dict(checked["heads"])
        self._load_optimizer(checked["optimizer"]["state"])
        self.scaler.load_state_dict(checked["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(checked["ema"])
        self.guard.load_state_dict(checked["guard"], self._taken)
        self.steps_done = checked["steps_done"]

    def _load_optimizer(self, moments: dict[int, dict[str, torch.Tensor]]) -> None:
        """Take what the optimizer keeps of each parameter; what it was told is in this learner's options already."""
        parameters = self._parameters
        if moments and list(moments) != list(range(len(parameters))):
            raise ValueError("the optimizer's state is that of other parameters")
        for number, kept in moments.items():
            sizes = {"step": torch.Size(), "exp_avg": parameters[number].shape, "exp_avg_sq": parameters[number].shape}
            if {name: value.shape for name, value in kept.items()} != sizes:
                raise ValueError(f"the optimizer's state does not fit parameter {number}")
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


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
        if buffers := list(self.model.buffers()):  # a model without BatchNorm may have none
            torch._foreach_copy_(buffers, list(model.buffers()))

    def state_dict(self) -> dict[str, Any]:
        """State of the averaged model, and how often it was updated."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from another average."""
        self.model.load_state_dict(build(state["model"], dict[str, torch.Tensor]))
        self.updates = build(state["updates"], int)


class Guard:
    """Undoes what a skipped step did to BatchNorm's running statistics in its forward pass, on the device alone."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        norms = [module for module in model.modules() if getattr(module, "track_running_stats", False)]
        buffers = [buffer.view(-1) for norm in norms for buffer in norm.buffers(recurse=False)]
        kinds = {buffer.dtype: [other for other in buffers if other.dtype == buffer.dtype] for buffer in buffers}
        self._groups = [(group, torch.cat(group)) for group in kinds.values()]  # joined: a few calls, not some for each
        self._taken = torch.zeros((), device=buffers[0].device if buffers else None)
        self.skipped = 0  # steps of the run, as of the last check

    @torch.no_grad()
    def settle(self, taken: torch.Tensor) -> None:
        """Keep the statistics after a step, or put back those before it if it is not among the steps taken."""
        if not self._groups:  # no statistics; to copy the count from a GPU would wait for it
            return
        stepped = taken > self._taken
        for buffers, kept in self._groups:
            torch.where(stepped, torch.cat(buffers), kept, out=kept)
            torch._foreach_copy_(buffers, torch.split(kept, [len(buffer) for buffer in buffers]))
        self._taken.copy_(taken)

    def state_dict(self) -> GuardState:
        """Buffers as of the last step that was not skipped, which are the model's; skipped steps."""
        return {"buffers": list(self._model.buffers()), "skipped": self.skipped}

    @torch.no_grad()
    def load_state_dict(self, state: GuardState, taken: torch.Tensor) -> None:
        """Go on from another guard, with a model that has its state already, after so many steps taken."""
        for buffer, good in zip(self._model.buffers(), state["buffers"], strict=True):
            if not buffer.isfinite().all():  # written by a release that restored them every 50 steps alone
                buffer.copy_(good)
        for buffers, kept in self._groups:
            torch.cat(buffers, out=kept)
        self._taken.copy_(taken)
        self.skipped = state["skipped"]
