"""Class activation maps, against maps worked out otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import Permute

from pneumo_fast.errors import ConfigError
from pneumo_fast.explanation.cam import class_maps, default_layer, enlarge, map_layers
from pneumo_fast.explanation.options import Method
from pneumo_fast.run.model import build_model


class Pooled(nn.Module):
    """A convolution, the mean over places, and a linear layer: its class activation map is known exactly."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(1, 3, 3, padding=1)
        self.head = nn.Linear(3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


IMAGES = torch.rand(4, 1, 6, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_of_a_pooled_network_it_is_the_class_activation_map(method: Method) -> None:
    # Zhou et al. 2016: the features, weighted by the linear layer; the mean over 30 places scales it
    model = Pooled().eval()
    logits, maps = class_maps(model, "features", IMAGES, method)
    with torch.no_grad():
        features = model.features(IMAGES)
        expected = (features * model.head.weight[0][:, None, None]).sum(dim=1).relu() / 30
        assert torch.equal(logits, model(IMAGES)[:, 0])
    torch.testing.assert_close(maps, expected)


def test_gradcam_plus_plus_by_the_papers_formula() -> None:
    model = Pooled().eval()
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[0.7, -0.4, 0.2]]))
        model.features.bias.copy_(torch.tensor([0.3, 0.5, -0.1]))  # type: ignore[union-attr]
    _, maps = class_maps(model, "features", IMAGES, "gradcam++")
    assert maps.any()
    for image, found in zip(IMAGES, maps, strict=True):
        features = model.features(image[None])[0].detach().requires_grad_()
        score = model.head(features.mean(dim=(1, 2))[None])[0, 0].exp()
        (first,) = torch.autograd.grad(score, features)
        # for exp(logit) the second and third derivatives are powers of the first, divided by the score
        gradient = first / score
        share = gradient**2 / (2 * gradient**2 + features.sum(dim=(1, 2), keepdim=True) * gradient**3)
        weights = (share * first.relu()).sum(dim=(1, 2), keepdim=True)
        expected = (weights * features).sum(dim=0).relu().detach()
        torch.testing.assert_close(found * score.detach(), expected)


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam"])
def test_an_images_map_does_not_depend_on_its_batch(method: Method) -> None:
    torch.manual_seed(0)
    model = build_model().eval()
    images = torch.randn(3, 1, 64, 64)
    _, together = class_maps(model, "layer3", images, method)
    alone = torch.cat([class_maps(model, "layer3", image[None], method)[1] for image in images])
    assert together.shape == (3, 4, 4)
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-6)


def seen_at(model: nn.Module, layer: str, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What goes into a layer and what comes out, before anything changes it in place."""
    seen: list[torch.Tensor] = []

    def look(_module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen.extend([inputs[0].clone(), output.clone()])

    handle = model.get_submodule(layer).register_forward_hook(look)
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0], seen[1]


def test_layers_that_are_changed_in_place_afterwards_are_seen_as_they_were() -> None:
    torch.manual_seed(0)
    model = build_model().eval()
    images = torch.randn(2, 1, 64, 64)
    _, maps = class_maps(model, "layer3.1.bn2", images, "hirescam")
    (before, _), (_, feature) = (seen_at(model, name, images) for name in ("layer3.1", "layer3.1.bn2"))
    feature.requires_grad_()
    # beyond this layer the block adds its input and cuts off below 0, and layer4 follows
    after = torch.relu(feature + before)
    for name in ("layer4", "avgpool"):
        after = model.get_submodule(name)(after)
    logits = model.get_submodule("fc")(after.flatten(1))
    (gradient,) = torch.autograd.grad(logits.sum(), feature)
    torch.testing.assert_close(maps, (gradient * feature).sum(dim=1).relu().detach(), rtol=1e-3, atol=1e-5)


def test_nothing_stays_behind() -> None:
    model = Pooled().eval()
    class_maps(model, "features", IMAGES, "gradcam")
    map_layers(model, IMAGES)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_images_made_to_infer_can_be_explained() -> None:
    with torch.inference_mode():
        images = IMAGES + 0
    _, maps = class_maps(Pooled().eval(), "features", images, "gradcam")
    assert maps.shape == (4, 6, 5)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer9", "layer 'layer9' is not in the model: use one of features, head, or a module inside one"),
        ("", "''"),
        ("head", "gives no map: use one of features"),
    ],
)
def test_layers_that_cannot_be_used(layer: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        class_maps(Pooled().eval(), layer, IMAGES[:, :, :5], "gradcam")


class ChannelsLast(Pooled):
    """The same with a layer that puts the channels last, and one whose output is of no image."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.table = Permute([0, 2, 3, 1]), nn.Conv2d(1, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        places = self.last(self.features(images)) + self.table(torch.ones(1, 1, 5, 5)).mean()
        logits: torch.Tensor = self.head(places.mean(dim=(1, 2)))
        return logits


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam"])
def test_a_layer_with_the_channels_last_gives_the_map_of_the_one_with_them_first(method: Method) -> None:
    model, images = ChannelsLast().eval(), IMAGES[:, :, :5]
    first, last = (class_maps(model, layer, images, method)[1] for layer in ("features", "last"))
    assert first.shape == (4, 5, 5)
    torch.testing.assert_close(last, first)


def test_what_is_not_of_each_image_is_no_map() -> None:
    model, images = ChannelsLast().eval(), IMAGES[:, :, :5]
    assert map_layers(model, images[:1]) == {"features": (5, 5), "last": (5, 5)}
    with pytest.raises(ConfigError, match="layer 'table' gives no map: use one of features, last"):
        class_maps(model, "table", images, "gradcam")


def test_axes_that_cannot_be_told_apart_are_left_out() -> None:
    model = ChannelsLast().eval()
    model.features = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(5, 3, 1))  # type: ignore[assignment]
    assert set(map_layers(model, IMAGES[:, :, :5])) == {"features.1", "features", "last"}


@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t"])
def test_swin_has_square_maps(name: str) -> None:
    torch.manual_seed(0)
    model, images = build_model(name).eval(), torch.randn(2, 1, 64, 64)
    sizes = map_layers(model, images)
    layer = default_layer(sizes)
    _, maps = class_maps(model, layer, images, "gradcam")
    assert layer == "features.5"
    assert sizes[layer] == maps.shape[1:] == (4, 4)
    alone = class_maps(model, layer, images[1:], "gradcam")[1]
    torch.testing.assert_close(maps[1:], alone, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "last", "side"), [(32, "layer2", 4), (64, "layer3", 4), (128, "layer4", 4), (224, "layer4", 7)]
)
def test_the_last_layer_that_is_fine_enough(size: int, last: str, side: int) -> None:
    sizes = map_layers(build_model().eval(), torch.zeros(1, 1, size, size))
    assert default_layer(sizes) == last
    assert sizes[last] == (side, side)


def test_of_maps_that_are_all_too_coarse_the_finest() -> None:
    assert default_layer({"a": (3, 3), "b": (3, 3), "c": (2, 2)}) == "b"


def test_enlarged_maps_keep_even_values_and_the_middle() -> None:
    assert torch.equal(enlarge(torch.ones(1, 2, 2), 8), torch.ones(1, 8, 8))
    large = enlarge(torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]), 9)
    assert (int(large[0].argmax()), float(large.max())) == (40, 1.0)
