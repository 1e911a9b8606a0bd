"""Grad-CAM: which parts of an image speak for a class, from any convolutional network (Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medscale.base.errors import MedscaleError

Inputs = Tensor | tuple[Tensor, Tensor]


def gradcam(network: nn.Module, inputs: Inputs, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Heat maps of the network's last convolutional block, each for a class.

    The block's maps are weighted by the mean gradient of the class's logit with respect to each, summed, and what
    speaks against the class is cut off (Selvaraju et al. 2017, equations 1 and 2). The block is found by running the
    network: it is the last whose output is a map of more than one point, as the pooling and what follows it have none.

    Args:
        network: from ``models.registry.build``, on the inputs' device; it is put into evaluation mode and left there.
        inputs: images, float, shape n,C,H,W, or images and metadata (n,F).
        classes: class codes, int64, shape n.

    Returns:
        Heat maps in [0, 1], shape n,h,w (h, w: size of the block's maps; the largest value of each is 1, or 0
        where nothing speaks for the class), and logits, shape n,K.

    Raises:
        MedscaleError: when the network ends in no convolutional maps, as vision transformers do.
    """
    images = inputs[0] if isinstance(inputs, tuple) else inputs
    seen = (
        images.detach().clone().requires_grad_()
    )  # weights may be frozen: gradients start at the images
    network.eval()
    with torch.enable_grad():
        maps, logits = _last_maps(network, (seen, inputs[1]) if isinstance(inputs, tuple) else seen)
        wanted = logits.gather(
            1, classes.to(logits.device)[:, None]
        ).sum()  # rows are independent in evaluation mode
        (gradient,) = torch.autograd.grad(wanted, maps)
    weights = gradient.mean((2, 3), keepdim=True)
    heat = (weights * maps.detach()).sum(1).clamp_(min=0)
    largest = heat.amax((1, 2), keepdim=True)
    return heat / torch.where(largest > 0, largest, 1.0), logits.detach()


def _last_maps(network: nn.Module, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Output of the last leaf module that gives maps (n,C,h,w), and the logits."""
    calls, at, maps = 0, 0, torch.empty(0)

    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal calls, at, maps
        calls += 1
        if (
            isinstance(output, Tensor)
            and output.dim() == 4
            and output.shape[2] * output.shape[3] > 1
        ):
            at, maps = calls, output

    leaves = [part for part in network.modules() if not list(part.children())]
    handles = [leaf.register_forward_hook(keep) for leaf in leaves]
    try:
        logits = network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if 4 * at <= calls:  # only the first layers are convolutions
        raise MedscaleError(
            f"Grad-CAM needs a network that ends in convolutional maps; {type(network).__name__} does not"
        )
    return maps, logits
