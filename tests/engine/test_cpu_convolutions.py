"""Convolutions whose weight gradients oneDNN computes wrongly on a CPU."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from timm.layers import ScaledStdConv2d
from torch import nn

from medscale.engine.parallel.cpu_convolutions import correct_convolutions
from run_comparison import distance

POINTWISE = """
import torch
from torch import nn
from medscale.engine.parallel.cpu_convolutions import correct_convolutions

torch.manual_seed(0)
layer = nn.Conv2d(8, 16, 1, 2, bias=False)
network = nn.Sequential(layer).to(memory_format=torch.channels_last)
correct_convolutions(network, low=False)
for _ in range(10):
    images = torch.randn(32, 8, 128, 128).to(memory_format=torch.channels_last)
    layer.weight.grad = None
    network(images).square().sum().backward()
    thinned = images[:, :, ::2, ::2].reshape(32, 8, -1)
    weight = layer.weight.detach().reshape(16, 8)
    expected = 2 * torch.einsum("oc,ncp,nip->oi", weight, thinned, thinned)
    torch.testing.assert_close(layer.weight.grad.reshape(16, 8), expected, rtol=1e-3, atol=1)
"""
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
    correct_convolutions(network, low=True)
    for _ in range(4):
        unwritten = [torch.full((2**k,), torch.nan) for k in range(4, 20)]
        del unwritten  # the next allocations get memory that holds NaN
        layer.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            output = network(images)
        output.sum().backward()
        assert torch.allclose(output.float(), expected_output, rtol=0.02, atol=0.05)
        assert torch.allclose(layer.weight.grad, expected, rtol=0.02, atol=0.1)


def test_strided_pointwise_convolutions_of_few_channels_do_not_write_outside_their_memory():
    """Without the correction the process is killed by SIGSEGV (AVX-512, PyTorch 2.14)."""
    result = subprocess.run(
        [sys.executable, "-c", POINTWISE], capture_output=True, text=True, timeout=300, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("dilation", [2, 3])
@pytest.mark.parametrize("groups", [8, 4])
def test_gradients_of_dilated_depthwise_convolutions_are_those_of_fp32(dilation, groups):
    layer = nn.Conv2d(8, 8, 3, padding=dilation, dilation=dilation, groups=groups)
    network = nn.Sequential(layer).to(memory_format=torch.channels_last)
    images = torch.randn(3, 8, 56, 56).to(memory_format=torch.channels_last)
    precise = copy.deepcopy(network).double()  # oneDNN has no convolutions of 64 bits
    loss = precise(images.double()).square().mean()
    (expected,) = torch.autograd.grad(loss, precise[0].weight)
    correct_convolutions(network, low=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(images).square().mean()
    (gradient,) = torch.autograd.grad(loss, layer.weight)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7])
def test_corrections_change_no_output(side):
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 16, 1, 2), nn.Conv2d(16, 4, 1, (2, 1))]
    layers += [nn.Conv2d(4, 4, 2, 2, 1), nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4)]
    layers += [ScaledStdConv2d(4, 4, 3, padding=2, dilation=2, groups=2)]
    network = nn.Sequential(*layers, nn.Conv2d(4, 4, 3, padding="same"))
    images = torch.randn(2, 3, side, side)
    expected = network(images)
    correct_convolutions(network, low=True)
    assert torch.allclose(copy.deepcopy(network)(images), expected, atol=1e-6)


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
