"""An optional branch beside an image network: metadata add to its logits (late fusion)."""

from __future__ import annotations

from torch import Tensor, nn

HIDDEN = 32


class WithMetadata(nn.Module):
    """Logits of an image network plus those of a small network over metadata.

    The two are added, so that either says what it knows on its own; the image network keeps its parameter names below
    ``image.``. Input: a pair of images (n,C,H,W) and features (float32, n,F). Output: logits (n,K).

    Args:
        image: a network from images to logits.
        features: number F of features.
        num_classes: number K of logits.
    """

    def __init__(self, image: nn.Module, features: int, num_classes: int) -> None:
        super().__init__()
        self.image = image
        last = nn.Linear(HIDDEN, num_classes)
        nn.init.zeros_(last.weight)  # training begins with the image network's own logits
        nn.init.zeros_(last.bias)
        self.metadata = nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), last)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Images and features to logits."""
        images, features = inputs
        return self.image(images) + self.metadata(features)
