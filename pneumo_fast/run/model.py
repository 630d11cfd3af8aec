"""Backbones that take one grey channel and give one logit.

Any classifier of torchvision whose first convolution can be replaced will do: the library's own list of models
serves, so there is no registry here.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
import torchvision
from torch import nn
from torch.nn.functional import linear, pad

from pneumo_fast.errors import ConfigError
from pneumo_fast.run.checkpoint import read_weights

logger = logging.getLogger(__name__)

SEVERAL_OUTPUTS: Final = {"googlenet", "inception_v3"}
"""Classifiers that give more than logits while they train."""

CHANNELS_LAST_FROM: Final = 128
"""Pixels from which that layout is faster in float32 on a CPU (docs/experiments.md)."""
SMALL_MAP: Final = 16
"""The largest map, in places, for which a product was faster, given so many weights:"""
MANY_WEIGHTS: Final = 2**20


def build_model(name: str = "resnet18", weights: str = "none", size: int | None = None) -> nn.Module:
    """Make a 1-channel classifier.

    Parameters
    ----------
    name : str
        A torchvision classifier, for instance ``resnet18`` (He et al. 2016, https://arxiv.org/abs/1512.03385).
    weights : str
        ``none`` for random ones; ``default`` for torchvision's pretrained ones, which are fetched where they are not
        there yet; or the path of a file: a state dictionary of the same classifier, or a checkpoint of this package. A
        first convolution of three channels becomes the sum over them, which answers to a grey image as it would to the
        same one in colour. The last layer starts anew unless it gives one logit already.
    size : int, optional
        Height and width in pixels of the images that the model is for; if a file of weights says another, it is logged.

    Returns
    -------
    nn.Module
        Maps images (N, 1, H, W) float32, normalized, to logits (N, 1) float32. The first convolution keeps its
        kernel, stride and padding (ResNet-18: 7, 2, 3) and takes one channel.

    Raises
    ------
    ConfigError
        If torchvision has no classifier of that name, it does not begin with a 3-channel convolution or has several
        outputs, or the weights cannot be read or do not fit.
    """
    check_choice(name, weights)
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=1)
    path, first = next(((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    if first is None or first.in_channels != 3:
        raise ConfigError(f"model {name!r} does not begin with a 3-channel convolution: use resnet18, for instance")
    model.set_submodule(path, _one_channel(first))
    if weights != "none":
        _load(model, _pretrained(name) if weights == "default" else _from_file(weights, size), path, weights)
    return model


def check_choice(name: str, weights: str) -> None:
    """Refuse with a ConfigError what :func:`build_model` cannot make, as far as it is known without making it."""
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ConfigError(f"torchvision has no classifier called {name!r}: use resnet18, for instance")
    if name in SEVERAL_OUTPUTS:
        raise ConfigError(f"model {name!r} has several outputs while it trains: use resnet18, for instance")
    if weights not in {"none", "default"} and not Path(weights).is_file():
        raise ConfigError(
            f"weights {weights!r}: no such file; give a file of weights, default for torchvision's pretrained ones, or "
            "none"
        )


def map_shapes(model: nn.Module, images_nchw: torch.Tensor) -> dict[str, tuple[int, int, int]]:
    """Channels, height and width of each module's output that is a map of each image, in the order they are done.

    Of a layer that puts the channels last, as Swin's blocks do, it is height, width and channels.

    Parameters
    ----------
    images_nchw : Tensor of float32, shape (N, 1, H, W), normalized
        Only the first is looked at; the model must be in evaluation mode.
    """
    twice = torch.cat([images_nchw[:1]] * 2)  # an output that is not of images, such as a table of positions, has 1
    shapes: dict[str, tuple[int, int, int]] = {}

    def note(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and len(output) == len(twice):
            shapes[name] = output.shape[1], output.shape[2], output.shape[3]

    handles = [module.register_forward_hook(partial(note, name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model(twice)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


class SmallMapConv2d(nn.Conv2d):
    """A convolution that becomes one matrix product where its maps are small beside its weights, in bfloat16 on a CPU.

    oneDNN's own takes two to three times as long there: backward, ResNet-18's last stage then takes half of a step at
    64 pixels (``docs/experiments.md``). Elsewhere it is the plain convolution. The weights are the same.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name
        """See :class:`torch.nn.Conv2d`."""
        if isinstance(self.padding, str) or input.ndim != 4 or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        (above, left), (height, width), (down, across) = self.padding, self.kernel_size, self.stride
        rows = (input.shape[2] + 2 * above - height) // down + 1
        columns = (input.shape[3] + 2 * left - width) // across + 1
        if rows * columns > SMALL_MAP:
            return super().forward(input)
        padded = pad(input.permute(0, 2, 3, 1), (0, 0, left, left, above, above))  # (N, H, W, C): channels last
        shifted = [
            padded[:, y : y + down * rows : down, x : x + across * columns : across]
            for y in range(height)
            for x in range(width)
        ]
        weights = self.weight.permute(0, 2, 3, 1).flatten(1)
        return linear(torch.cat(shifted, dim=-1), weights, self.bias).permute(0, 3, 1, 2)


def for_inference(model: nn.Module, device: torch.device, size: int) -> nn.Module:
    """A model on its device, for images of this size in pixels, laid out as float32 is fastest there."""
    return model.to(device).to(memory_format=memory_format(device, size, None))


def memory_format(device: torch.device, size: int, amp_dtype: torch.dtype | None) -> torch.memory_format:
    """How the model's weights lie in memory, which decides the same of what passes through it."""
    last = device.type == "cuda" or amp_dtype is not None or size >= CHANNELS_LAST_FROM
    return torch.channels_last if last else torch.contiguous_format


def with_small_map_products(model: nn.Module) -> nn.Module:
    """The same model, whose convolutions of many weights are :class:`SmallMapConv2d`."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _may_be_product(module):
            module.__class__ = SmallMapConv2d
    return model


def _may_be_product(convolution: nn.Conv2d) -> bool:
    geometry = convolution.groups, convolution.dilation, convolution.padding_mode
    large = convolution.kernel_size != (1, 1) and convolution.weight.numel() >= MANY_WEIGHTS
    return large and geometry == (1, (1, 1), "zeros")


def _one_channel(convolution: nn.Conv2d) -> nn.Conv2d:
    """Copy a convolution's geometry for one input channel, with torchvision's initialisation."""
    grey = nn.Conv2d(
        1,
        convolution.out_channels,
        kernel_size=convolution.kernel_size,  # type: ignore[arg-type]  # torch types it as any tuple
        stride=convolution.stride,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        bias=convolution.bias is not None,
    )
    nn.init.kaiming_normal_(grey.weight, mode="fan_out", nonlinearity="relu")
    return grey


def _pretrained(name: str) -> dict[str, Any]:
    try:
        return dict(torchvision.models.get_model(name, weights="DEFAULT").state_dict())
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"pretrained weights of {name!r} cannot be downloaded ({type(error).__name__}): give the path of a file, "
            "or none"
        ) from error


def _from_file(path: str, size: int | None) -> dict[str, Any]:
    state, other = read_weights(Path(path))
    if size and other and other != size:
        logger.warning("weights %s were trained on images of %s pixels, these have %d", path, other, size)
    return state


def _load(model: nn.Module, state: dict[str, Any], first: str, source: str) -> None:
    """Put weights into a model of one channel and one logit."""
    own = model.state_dict()
    head = list(own)[-1].rpartition(".")[0] + "."
    grey = f"{first}.weight"
    fitted = {}
    for key, mine in own.items():
        theirs = state.get(key)
        if isinstance(theirs, torch.Tensor) and key == grey and theirs.ndim == 4 and theirs.shape[1] == 3:
            theirs = theirs.sum(dim=1, keepdim=True)
        fits = isinstance(theirs, torch.Tensor) and theirs.shape == mine.shape
        if not fits and not key.startswith(head):
            found = list(theirs.shape) if isinstance(theirs, torch.Tensor) else "nothing"
            raise ConfigError(f"weights {source}: {key} is {found}, {list(mine.shape)} expected: of another model?")
        fitted[key] = theirs if fits else mine
    model.load_state_dict(fitted)
