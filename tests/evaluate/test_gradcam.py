"""Tests of Grad-CAM: its closed form, the place of a class, and every kind of network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medscale.base.errors import MedscaleError
from medscale.engine.models.gradcam import gradcam
from medscale.engine.models.registry import build
from medscale.engine.plan import Model


class Linear(nn.Module):
    """A network whose Grad-CAM is its feature maps weighted by the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 5, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(5, 4)

    def forward(self, x):
        return self.last(self.pool(self.maps(x)).flatten(1))


def test_it_is_the_class_activation_map_where_a_linear_layer_follows_the_pooling():
    torch.manual_seed(0)
    network, images, classes = Linear(), torch.randn(3, 3, 6, 7), torch.tensor([0, 3, 1])
    heat, logits = gradcam(network, images, classes)
    with torch.no_grad():
        expected = torch.einsum(
            "nc,nchw->nhw", network.last.weight[classes], network.maps(images)
        ).clamp(min=0)
        torch.testing.assert_close(logits, network(images))
    torch.testing.assert_close(heat, expected / expected.amax((1, 2), keepdim=True))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_it_lies_where_the_class_is():
    network = Linear()
    with torch.no_grad():
        network.maps.weight.zero_()
        network.maps.bias.zero_()
        network.maps.weight[0, 0, 1, 1] = (
            1.0  # the first map is the red channel, and speaks for class 2
        )
        network.last.weight.zero_()
        network.last.weight[2, 0] = 1.0
    images = torch.zeros(1, 3, 8, 8)
    images[0, 0, 5, 2] = 1.0
    heat, _ = gradcam(network, images, torch.tensor([2]))
    assert heat.argmax() == 5 * 8 + 2
    against, _ = gradcam(network, -images, torch.tensor([2]))
    assert against.abs().max() == 0


@pytest.mark.parametrize(
    ("name", "options", "trained", "side"),
    [
        ("medical_cnn", {"width": 4}, "all", 2),
        ("xray_cnn", {"size": 64, "width": 4}, "all", 16),
        ("test_resnet", {}, "last_layer", 2),
        ("test_efficientnet", {}, "all", 2),
    ],
)
def test_every_kind_of_network_has_a_last_map(name, options, trained, side):
    torch.manual_seed(0)
    network = build(Model(name=name, options=options, trained=trained), 3)
    images = torch.randn(2, 3, 64, 64)
    heat, logits = gradcam(network, images, torch.tensor([0, 2]))
    assert heat.shape == (2, side, side)
    assert 0 <= heat.min() <= heat.max() <= 1
    alone, _ = gradcam(network, images[1:], torch.tensor([2]))
    torch.testing.assert_close(alone[0], heat[1], rtol=1e-3, atol=1e-4)
    assert logits.shape == (2, 3)


def test_metadata_stand_beside_the_images():
    network = build(Model(name="tiny_cnn"), 2, 3, features=4)
    heat, _ = gradcam(network, (torch.randn(2, 3, 16, 16), torch.randn(2, 4)), torch.tensor([0, 1]))
    assert heat.shape == (2, 4, 4)


def test_a_network_without_maps_at_its_end_is_refused():
    network = nn.Sequential(
        nn.Conv2d(3, 2, 8, stride=8), nn.Flatten(), *[nn.Linear(8, 8) for _ in range(4)]
    )
    with pytest.raises(MedscaleError, match="ends in convolutional maps"):
        gradcam(network, torch.zeros(1, 3, 16, 16), torch.tensor([0]))
