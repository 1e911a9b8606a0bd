"""Grad-CAM heat maps of convolutional networks (Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medscale.base.errors import MedscaleError

Inputs = Tensor | tuple[Tensor, Tensor]


def gradcam(network: nn.Module, inputs: Inputs, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return heat maps of the network's last convolutional block for a class of each image.

    The block's maps are weighted by the mean gradient of the class's logit with respect to each map
    and summed; negative values are set to 0 (Selvaraju et al. 2017, equations 1 and 2). The block
    is the last one whose output has more than one point, determined by running the network. Raises
    MedscaleError when the network does not end in convolutional maps (vision transformers).

    Args:
        network: from ``models.registry.build``, on the inputs' device; it is switched to evaluation
            mode and stays in it.
        inputs: images, float, shape n,C,H,W, or images and metadata (n,F).
        classes: class codes, int64, shape n.

    Returns:
        Heat maps in [0, 1], shape n,h,w, and logits, shape n,K. h,w is the size of the block's
        maps. The largest value of each heat map is 1, or 0 where nothing indicates the class.
    """
    images = inputs[0] if isinstance(inputs, tuple) else inputs
    # Weights may be frozen, so gradients are computed with respect to the images.
    leaf = images.detach().clone().requires_grad_()
    network.eval()
    with torch.enable_grad():
        maps, logits = _last_maps(network, (leaf, inputs[1]) if isinstance(inputs, tuple) else leaf)
        # In evaluation mode the rows are independent, so the sum has each row's own gradient.
        class_logits = logits.gather(1, classes.to(logits.device)[:, None]).sum()
        (gradient,) = torch.autograd.grad(class_logits, maps)
    weights = gradient.mean((2, 3), keepdim=True)
    heat = (weights * maps.detach()).sum(1).clamp_(min=0)
    largest = heat.amax((1, 2), keepdim=True)
    return heat / torch.where(largest > 0, largest, 1.0), logits.detach()


def _last_maps(network: nn.Module, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return the output of the last leaf module with maps (n,C,h,w), and the logits."""
    calls, last_call, maps = 0, 0, torch.empty(0)

    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal calls, last_call, maps
        calls += 1
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
            last_call, maps = calls, output

    leaves = [part for part in network.modules() if not list(part.children())]
    handles = [leaf.register_forward_hook(keep) for leaf in leaves]
    try:
        logits = network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if 4 * last_call <= calls:  # maps in the first quarter only, such as a transformer's patches
        raise MedscaleError(
            "Grad-CAM needs a network that ends in convolutional maps; "
            f"{type(network).__name__} does not"
        )
    return maps, logits
