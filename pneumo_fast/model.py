"""Backbones that take one grey channel and give one logit.

Any classifier of torchvision whose first convolution can be replaced will do: the library's own list of models
serves, so there is no registry here.
"""

from __future__ import annotations

import torchvision
from torch import nn

from pneumo_fast.errors import ConfigError


def build_model(name: str = "resnet18") -> nn.Module:
    """Make a freshly initialised 1-channel classifier.

    Parameters
    ----------
    name : str
        A torchvision classifier, for instance ``resnet18`` (He et al. 2016, https://arxiv.org/abs/1512.03385).

    Returns
    -------
    nn.Module
        Maps images (N, 1, H, W) float32, normalized, to logits (N, 1) float32. The first convolution keeps its
        kernel, stride and padding (ResNet-18: 7, 2, 3) and takes one channel.

    Raises
    ------
    ConfigError
        If torchvision has no classifier of that name, or it does not begin with a 3-channel convolution.
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ConfigError(f"torchvision has no classifier called {name!r}: use resnet18, for instance")
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=1)
    path, first = next(((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    if first is None or first.in_channels != 3:
        raise ConfigError(f"model {name!r} does not begin with a 3-channel convolution: use resnet18, for instance")
    model.set_submodule(path, _one_channel(first))
    return model


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
