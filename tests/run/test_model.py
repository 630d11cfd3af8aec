"""Backbones for one grey channel and one logit."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from pneumo_fast.errors import ConfigError, RunError
from pneumo_fast.run.model import SmallMapConv2d, build_model, with_small_map_products


def parameters_of_resnet18(channels: int, outputs: int) -> int:
    """Counted from the paper's table 1 (He et al. 2016), without torchvision."""

    def convolution(inputs: int, filters: int, kernel: int) -> int:
        return inputs * filters * kernel**2 + 2 * filters  # no bias, but the scale and shift of a BatchNorm

    count = convolution(channels, 64, 7)
    width = 64
    for filters in (64, 128, 256, 512):
        count += convolution(width, filters, 3) + 3 * convolution(filters, filters, 3)
        count += convolution(width, filters, 1) if width != filters else 0
        width = filters
    return count + 512 * outputs + outputs


def test_resnet18_has_as_many_parameters_as_the_paper_says() -> None:
    assert parameters_of_resnet18(3, 1000) == 11_689_512  # torchvision's own figure, to check the counting
    assert sum(p.numel() for p in build_model().parameters()) == parameters_of_resnet18(1, 1)


def test_resnet18_begins_with_one_channel_and_ends_with_one_logit() -> None:
    model = build_model("resnet18")
    first, last = model.get_submodule("conv1"), model.get_submodule("fc")
    assert isinstance(first, nn.Conv2d)
    assert isinstance(last, nn.Linear)
    assert (first.in_channels, first.out_channels, first.bias) == (1, 64, None)
    assert (first.kernel_size, first.stride, first.padding) == ((7, 7), (2, 2), (3, 3))
    assert (last.in_features, last.out_features) == (512, 1)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121", "squeezenet1_0"])
def test_images_become_logits(name: str) -> None:
    model = build_model(name).eval()
    assert next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels == 1
    with torch.inference_mode():
        logits = model(torch.randn(2, 1, 64, 64))
    assert logits.shape == (2, 1)
    assert logits.dtype == torch.float32


def test_the_first_convolution_keeps_its_geometry_and_initialisation() -> None:
    torch.manual_seed(0)
    first = build_model("mobilenet_v3_small").get_submodule("features.0.0")
    assert isinstance(first, nn.Conv2d)
    assert (first.kernel_size, first.stride, first.padding, first.bias) == ((3, 3), (2, 2), (1, 1), None)
    resnet = build_model().get_submodule("conv1")
    assert isinstance(resnet, nn.Conv2d)
    expected = (2 / (64 * 7 * 7)) ** 0.5  # He et al. 2015, by fan-out
    assert resnet.weight.std().item() == pytest.approx(expected, rel=0.05)


def test_the_seed_alone_decides_the_weights() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_model().get_parameter("conv1.weight"))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", ["", "resnet19", "ResNet18Model", "fasterrcnn_resnet50_fpn", "fcn_resnet50"])
def test_names_of_no_classifier(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^torchvision has no classifier called '{name}': use resnet18"):
        build_model(name)


@pytest.mark.parametrize("begin", [nn.Linear(3, 3), nn.Conv2d(4, 8, 3)])
def test_a_classifier_that_does_not_begin_with_three_channels(
    monkeypatch: pytest.MonkeyPatch, begin: nn.Module
) -> None:
    monkeypatch.setattr("torchvision.models.get_model", lambda *_, **__: nn.Sequential(begin))
    with pytest.raises(ConfigError, match="'vgg11' does not begin with a 3-channel convolution"):
        build_model("vgg11")


def test_pretrained_colours_are_added_up_and_the_last_layer_starts_anew(tmp_path: Path) -> None:
    torch.manual_seed(1)
    colour = torchvision.models.resnet18(weights=None).eval()
    torch.save(colour.state_dict(), tmp_path / "w.pth")
    grey = build_model("resnet18", str(tmp_path / "w.pth")).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        features = nn.Sequential(*list(colour.children())[:-1])(images.expand(-1, 3, -1, -1))
        torch.testing.assert_close(nn.Sequential(*list(grey.children())[:-1])(images), features, rtol=1e-4, atol=1e-4)
    assert grey.get_submodule("fc").weight.shape == (1, 512)


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("invalid hash value"), ValueError("no weights")])
def test_pretrained_weights_that_do_not_come_are_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    plain = torchvision.models.get_model

    def get_model(name: str, weights: str | None = None, **options: Any) -> nn.Module:
        if weights:
            raise error
        model: nn.Module = plain(name, weights=None, **options)
        return model

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    what = rf"pretrained weights of 'resnet18' cannot be downloaded \({type(error).__name__}\): give the path of a file"
    with pytest.raises(ConfigError, match=what):
        build_model("resnet18", "default")


def test_weights_of_our_own_checkpoint_come_whole(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = build_model()
    torch.save({"model": trained.state_dict()}, tmp_path / "best.pt")
    again = build_model("resnet18", str(tmp_path / "best.pt"))
    for name, value in trained.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"weights .*w\.pth: .* of another model\?"):
        build_model("resnet50", str(tmp_path / "w.pth"))
    (tmp_path / "w.pth").write_bytes(b"rubbish")
    with pytest.raises(RunError, match=r"w\.pth is damaged or not a checkpoint"):
        build_model("resnet18", str(tmp_path / "w.pth"))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_classifiers_with_several_outputs(name: str) -> None:
    with pytest.raises(ConfigError, match=f"model '{name}' has several outputs while it trains"):
        build_model(name)


def test_convolutions_of_many_weights_become_products() -> None:
    model = with_small_map_products(build_model("resnet18"))
    names = {name for name, module in model.named_modules() if isinstance(module, SmallMapConv2d)}
    assert names == {f"layer4.{block}.conv{number}" for block in (0, 1) for number in (1, 2)}
    assert model.state_dict().keys() == build_model("resnet18").state_dict().keys()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 4, 7])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_product_is_the_convolution(stride: int, side: int, *, autocast: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(64, 32, 3, stride=stride, padding=1)
    product = nn.Conv2d(64, 32, 3, stride=stride, padding=1)
    product.load_state_dict(plain.state_dict())
    product.__class__ = SmallMapConv2d
    inputs = [torch.randn(3, 64, side, side).requires_grad_() for _ in range(2)]
    with torch.no_grad():
        inputs[1].copy_(inputs[0])
    outputs = []
    for module, images in zip((plain, product), inputs, strict=True):
        # in bfloat16 oneDNN leaves some gradients of 1 x 1 maps unset, so it is compared with float32
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast and module is product):
            outputs.append(module(images))
        outputs[-1].float().square().sum().backward()
    pairs = (outputs, [images.grad for images in inputs], [plain.weight.grad, product.weight.grad])
    for one, other in pairs:
        assert one is not None
        assert other is not None
        assert (one.float() - other.float()).norm() <= (0.03 if autocast else 0.0) * one.float().norm()
