"""Convolutions in bf16 on a CPU whose stride exceeds their input."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medscale.engine.parallel.small_maps import pad_small_maps
from run_comparison import distance

NORMALIZED = {"name": "medical_cnn", "options": {"width": 4}}  # 1x1 maps at a stride of 2


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize(("kernel", "dilation", "stride"), [(3, 1, 2), (5, 1, 2), (3, 2, 3)])
def test_gradients_of_small_maps_are_those_of_fp32(kernel, dilation, stride, groups):
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(8, 8, kernel, stride, padding, dilation, groups, bias=False)
    network = nn.Sequential(layer).to(memory_format=torch.channels_last)
    images = torch.randn(9, 8, 1, 1)
    network(images).sum().backward()
    expected_output, expected = network(images), layer.weight.grad
    pad_small_maps(network)
    for _ in range(4):
        unwritten = [torch.full((2**k,), torch.nan) for k in range(4, 20)]
        del unwritten  # the next allocations get memory that holds NaN
        layer.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            output = network(images)
        output.sum().backward()
        assert torch.allclose(output.float(), expected_output, rtol=0.02, atol=0.05)
        assert torch.allclose(layer.weight.grad, expected, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_padding_changes_nothing_but_small_maps(side):
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 1, 2), nn.Conv2d(4, 4, 2, 2, 1)]
    network = nn.Sequential(*layers, nn.Conv2d(4, 4, 3, padding="same"))
    images = torch.randn(2, 3, side, side)
    expected = network(images)
    pad_small_maps(network)
    assert torch.allclose(network(images), expected, atol=1e-6)


def test_mixed_precision_on_small_maps_is_repeatable(training):
    first, second = (
        training.fork("serial_amp_1cpu", f"amp{k}", model=NORMALIZED) for k in range(2)
    )
    assert distance(first, second) == (0, 0, 0)


def test_sharded_normalization_layers_train_as_replicated_ones(training):
    """Under mixed precision they are a unit of FSDP of their own."""
    low = training.fork("ddp_amp_2cpu", model=NORMALIZED)
    sharded = distance(low, training.fork("fsdp_amp_2cpu", model=NORMALIZED))
    rounding = distance(low, training.fork("ddp_2cpu", model=NORMALIZED))
    assert sharded < rounding
    assert sharded[1] < rounding[1]
