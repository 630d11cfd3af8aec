"""Class activation maps: which places of a layer's output spoke for pneumonia.

The layer's output is weighted by the gradient of the logit, summed over channels, and what speaks against is cut off.
The logit is that of the positive class for every image, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from pneumo_fast.errors import ConfigError
from pneumo_fast.explanation.options import Method
from pneumo_fast.run.model import map_shapes


def class_maps(
    model: nn.Module, layer: str, images_nchw: torch.Tensor, method: Method
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps of a batch of images.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, so that no image's gradient depends on another image.
    layer : str
        Name of the module whose output is looked at, as ``model.named_modules()`` has it.
    images_nchw : Tensor of float32, shape (n, 1, size, size)
        Normalized as in training.
    method : str
        ``gradcam``: each channel weighs as its mean gradient (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391).
        ``gradcam++``: as a weighted mean of its positive gradients (Chattopadhay et al. 2018,
        https://arxiv.org/abs/1710.11063). ``hirescam``: each place of each channel weighs as its own gradient (Draelos
        and Carin 2020, https://arxiv.org/abs/2011.08891).

    Returns
    -------
    logits : Tensor of float32, shape (n,)
    maps : Tensor of float32, shape (n, h, w)
        At least 0, with the layer's height and width; 0 everywhere where nothing speaks for pneumonia.

    Raises
    ------
    ConfigError
        If there is no such layer, or its output is no map.
    """
    with torch.enable_grad(), _output_of(model, layer) as outputs:
        logits = model(images_nchw.clone().requires_grad_())[:, 0]  # a clone: what was made to infer has no gradient
        if len(outputs) == 0 or outputs[-1].ndim != 4 or len(outputs[-1]) != len(images_nchw):
            raise ConfigError(f"layer {layer!r} gives no map: use one of {_outermost(map_layers(model, images_nchw))}")
        output = outputs[-1]
        (gradient,) = torch.autograd.grad(logits.sum(), output)
    output, gradient = (_channels_first(part.detach()) for part in (output, gradient))
    if method == "hirescam":
        weighted = gradient * output
    elif method == "gradcam++":
        weighted = _plus_plus_weights(output, gradient) * output
    else:
        weighted = gradient.mean(dim=(2, 3), keepdim=True) * output
    return logits.detach(), weighted.sum(dim=1).relu()


def _plus_plus_weights(output: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Channel weights (n, c, 1, 1) of Grad-CAM++, for exp(logit) as the score, but for a factor per image."""
    square = gradient**2
    scale = 2 * square + output.sum(dim=(2, 3), keepdim=True) * gradient**3
    share = torch.where(scale == 0, 0.0, square / torch.where(scale == 0, 1.0, scale))
    return (share * gradient.relu()).sum(dim=(2, 3), keepdim=True)


def _outermost(modules: Iterable[str]) -> str:
    """Names of modules, without those inside of another, of which a model has dozens."""
    names = list(modules)
    return f"{', '.join([name for name in names if '.' not in name] or names)}, or a module inside one"


@contextmanager
def _output_of(model: nn.Module, layer: str) -> Iterator[list[torch.Tensor]]:
    """What a layer gives in each forward pass of the block; nothing stays behind."""
    modules = dict(model.named_modules())
    if layer not in modules or not layer:
        raise ConfigError(f"layer {layer!r} is not in the model: use one of {_outermost(filter(None, modules))}")
    outputs: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> object:
        if not isinstance(output, torch.Tensor):
            return output
        outputs.append(output)
        return output.clone()  # what follows may work in place

    handle = modules[layer].register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


def map_layers(model: nn.Module, images_nchw: torch.Tensor) -> dict[str, tuple[int, int]]:
    """Height and width of each module's output that is a square map of more than one place, in the order they are done.

    Where a model has layers with the channels last, one whose channels are as many as its rows and columns is left out:
    its axes cannot be told apart.

    Parameters
    ----------
    images_nchw : Tensor of float32, shape (N, 1, size, size), normalized
        Only the first is looked at.
    """
    shapes = map_shapes(model, images_nchw)
    either = any(map(_has_channels_last, shapes.values()))
    sides = {
        name: shape[:2] if _has_channels_last(shape) else shape[1:]
        for name, shape in shapes.items()
        if not either or len(set(shape)) > 1
    }
    return {name: (height, width) for name, (height, width) in sides.items() if height == width > 1}


def _has_channels_last(shape: tuple[int, int, int]) -> bool:
    """Whether the sizes of a map of square images are height, width and channels: Swin's blocks have it so."""
    return shape[0] == shape[1] != shape[2]


def _channels_first(maps: torch.Tensor) -> torch.Tensor:
    """Maps as (n, c, h, w)."""
    _, first, second, third = maps.shape
    return maps.permute(0, 3, 1, 2) if _has_channels_last((first, second, third)) else maps


def default_layer(sizes: dict[str, tuple[int, int]]) -> str:
    """The last layer with a map of 4 x 4 or more, to point anywhere; the last of all where every map is coarser."""
    return [name for name, size in sizes.items() if min(size) >= 4 or max(sizes.values()) == size][-1]


def enlarge(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Bring maps (n, h, w) to images' size (n, size, size), bilinearly."""
    large: torch.Tensor = nn.functional.interpolate(maps[:, None], size=(size, size), mode="bilinear")[:, 0]
    return large
