"""Predictions on a GPU: captured networks give the outputs of eager ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medscale.serve.batches import FixedBatches


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
def test_a_captured_network_gives_the_eager_outputs():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).cuda().eval()
    images = torch.randn(5, 3, 16, 16, device="cuda")
    with torch.inference_mode():
        run = FixedBatches(network)
        torch.testing.assert_close(run(images), network(images))
        torch.testing.assert_close(run(images[:2]), network(images[:2]))
