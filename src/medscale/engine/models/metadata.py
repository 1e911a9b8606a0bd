"""A network for images and metadata, whose branches' logits are added (late fusion)."""

from __future__ import annotations

from torch import Tensor, nn

HIDDEN = 32


class WithMetadata(nn.Module):
    """The sum of an image network's logits and those of a small network for metadata.

    Input: a pair of images (n,C,H,W) and metadata (float32, n,F). Output: logits (n,K). The image
    network's parameters are below ``image.``.

    Args:
        image: a network from images to logits.
        features: number F of metadata per image.
        num_classes: number K of logits.
    """

    def __init__(self, image: nn.Module, features: int, num_classes: int) -> None:
        super().__init__()
        self.image = image
        last = nn.Linear(HIDDEN, num_classes)
        nn.init.zeros_(last.weight)  # training begins with the logits of the image network
        nn.init.zeros_(last.bias)
        self.metadata = nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), last)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Return logits for images and metadata."""
        images, features = inputs
        return self.image(images) + self.metadata(features)
