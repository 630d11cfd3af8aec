"""Auxiliary supervision: while it trains, a model also learns to say where the boxes are, and which class it sees.

The heads that say so are here and not in the model: a convolution of 1 x 1 on a stage's features predicts the mask of
the boxes, a linear layer on the pooled features the class. They go with the training; the model stays as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import ConfigError, DatasetError
from pneumo_fast.loading.targets import NO_CLASS, Targets, box_masks, boxes_of
from pneumo_fast.run.model import map_shapes
from pneumo_fast.vocabulary import AuxiliaryTask

logger = logging.getLogger(__name__)

LEAST_CLASSES: Final = 2


class Taught(nn.Module):
    """A model with the heads of its auxiliary tasks: what is called in training in the model's place.

    Parameters
    ----------
    model : nn.Module
        Maps images (N, 1, H, W) to logits (N, 1); stays as it is.
    tasks : sequence of str
        ``boxes``, ``classes`` or both.
    stage : str, optional
        Name of the module whose features the boxes' head reads; by default what :func:`default_stage` says.
    classes : int
        Number of classes.
    size : int
        Height and width of the images, in pixels, in which their boxes are given.

    Raises
    ------
    ConfigError
        If the model has no such stage, or does not end with a linear layer that could share its input.
    """

    def __init__(
        self, model: nn.Module, tasks: Sequence[AuxiliaryTask], *, stage: str | None, classes: int, size: int
    ) -> None:
        super().__init__()
        self.model, self.tasks, self.classes, self.size = model, tuple(tasks), classes, size
        self.heads = nn.ModuleDict()
        self._features: dict[str, torch.Tensor] = {}
        device = next(model.parameters()).device
        if "boxes" in tasks:
            shapes = square_maps(model, torch.zeros(2, 1, size, size, device=device))
            self.stage = stage or default_stage(model, shapes)
            if self.stage not in shapes:
                raise ConfigError(f"teach-stage {stage!r} gives no map: use one of {', '.join(_stages(model, shapes))}")
            channels, self.cells = shapes[self.stage]
            self.heads["boxes"] = nn.Conv2d(channels, 1, kernel_size=1).to(device)
            model.get_submodule(self.stage).register_forward_hook(_feature_hook(self._features, "boxes"))
        if "classes" in tasks:
            last = last_layer(model)
            self.heads["classes"] = nn.Linear(last.in_features, classes).to(device)
            last.register_forward_hook(_feature_hook(self._features, "classes"))

    def forward(self, images: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        """Call the model, and judge the heads by their targets.

        Parameters
        ----------
        images : Tensor of float32, shape (N, 1, H, W)
            Normalized; of any size that the model takes.

        Returns
        -------
        logits : Tensor, shape (N, 1)
            Those of the model.
        losses : Tensor of float32, shape (tasks, N)
            Of each auxiliary task, in their order; 0 where an image says nothing of it.
        """
        logits = self.model(images)
        losses_of = {"boxes": self._box_losses, "classes": self._class_losses}
        return logits, torch.stack([losses_of[name](self._features.pop(name), targets) for name in self.tasks])

    def _box_losses(self, features: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Mean cross-entropy over the cells of the share that boxes cover of each, (N,)."""
        logits = self.heads["boxes"](features)[:, 0].float()
        masks = box_masks(targets.boxes, targets.matrices, self.size, logits.shape[-1])
        return binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2)) * targets.boxed

    def _class_losses(self, features: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Cross-entropy of the classes, (N,)."""
        logits = self.heads["classes"](features).float()
        return cross_entropy(logits, targets.classes, ignore_index=NO_CLASS, reduction="none")

    def describe(self) -> tuple[str, ...]:
        """What teaches, in words."""
        words = {"classes": f"{self.classes} classes on the pooled features"}
        if "boxes" in self.tasks:
            words["boxes"] = f"boxes on {self.stage} ({self.cells} x {self.cells} cells)"
        return tuple(words[name] for name in self.tasks)


def _feature_hook(features: dict[str, torch.Tensor], name: AuxiliaryTask) -> Callable[..., None]:
    """A hook that keeps the features a head reads; a function, which is shared by a copy of the model, as for EMA."""

    def keep(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if torch.is_grad_enabled():  # not where the model is validated
            features[name] = output if name == "boxes" else inputs[0]

    return keep


def square_maps(model: nn.Module, images_nchw: torch.Tensor) -> dict[str, tuple[int, int]]:
    """Channels and side of each module's output that is a square map, in the order they are done."""
    shapes = map_shapes(model.eval(), images_nchw)
    model.train()
    return {name: (channels, height) for name, (channels, height, width) in shapes.items() if height == width}


def default_stage(model: nn.Module, shapes: dict[str, tuple[int, int]]) -> str:
    """The last stage whose map is at least twice as fine as the coarsest: ``layer3`` of a ResNet.

    Raises
    ------
    ConfigError
        If the model has no such stage.
    """
    sides = {name: shapes[name][1] for name in _stages(model, shapes)}
    finer = [name for name, side in sides.items() if side >= 2 * min(sides.values())]
    if not finer:
        raise ConfigError(
            "teach boxes: the model has no stage whose map is finer than its last one: name one with --teach-stage"
            + (f", of {', '.join(sides)}" if sides else ", or use resnet18")
        )
    return finer[-1]


def _stages(model: nn.Module, shapes: dict[str, tuple[int, int]]) -> list[str]:
    """The model's parts, and the parts of those that are rows of modules, which give maps; not its pooling."""
    rows = [(name, part) for name, part in model.named_children() if isinstance(part, nn.Sequential | nn.ModuleList)]
    inner = ((f"{name}.{number}", part) for name, row in rows for number, part in row.named_children())
    stages = {name for name, part in chain(model.named_children(), inner) if not isinstance(part, nn.AdaptiveAvgPool2d)}
    return [name for name in shapes if name in stages]


def last_layer(model: nn.Module) -> nn.Linear:
    """The linear layer that gives the logit.

    Raises
    ------
    ConfigError
        If the model ends otherwise.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1].out_features != 1:
        raise ConfigError("teach classes: the model does not end with a linear layer: use resnet18, for instance")
    return linear[-1]


def check_teachable(dataset: Dataset, tasks: Sequence[AuxiliaryTask]) -> tuple[str, ...]:
    """See that the training images have what the auxiliary tasks learn; gives the names of the classes.

    Returns
    -------
    tuple of str
        Of the training images, in alphabetical order; empty where classes are not taught.

    Raises
    ------
    DatasetError
        If no training image has a box, or they do not have two classes.
    """
    rows = dataset.rows("train")
    if "boxes" in tasks:
        boxes, lost = boxes_of(dataset, rows)
        if boxes.empty:
            raise DatasetError(
                f"teach boxes: no training image of {dataset.path} has a box: convert with a label table that has the "
                "columns x, y, width and height"
            )
        if lost:
            logger.warning("teach boxes: %d boxes lie outside of their images or have no area, and are left out", lost)
    if "classes" not in tasks:
        return ()
    names = tuple(sorted(set(rows["class"]) - {""}))
    if len(names) < LEAST_CLASSES:
        found = f"are of class {names[0]!r} only" if names else "have no class"
        raise DatasetError(
            f"teach classes: the training images of {dataset.path} {found}: convert with --class-info and a table of "
            "at least two classes"
        )
    return names
