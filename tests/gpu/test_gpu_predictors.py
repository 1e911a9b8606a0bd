"""Predictions on a GPU: captured networks give the outputs of eager ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medscale.engine.formats import use
from medscale.serve.batches import FixedBatches


@pytest.mark.gpu
@pytest.mark.parametrize("card", [0, 1])
def test_a_captured_network_gives_the_eager_outputs(card):
    """A batch is filled up to another size, for which cuDNN may choose another algorithm."""
    if not torch.cuda.is_available() or torch.cuda.device_count() <= card:
        pytest.skip(f"{card + 1} cards are needed")
    torch.manual_seed(0)
    use("fp32")
    device = torch.device("cuda", card)  # the current one stays the first
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).to(device).eval()
    images = torch.randn(5, 3, 16, 16, device=device)
    with torch.inference_mode():
        run = FixedBatches(network)
        for batch in (images, images[:2], images):
            torch.testing.assert_close(run(batch), network(batch), rtol=1e-4, atol=1e-4)
