"""medscale: how far parallel training takes medical imaging, and at what cost in accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from medscale.serve.predict import Predictor

__version__ = "0.1.0"


def load(
    folder: str | Path, seed: int | Literal["all"] | None = None, device: str | None = None
) -> Predictor:
    """Load a trained run from its result folder; see ``medscale.serve.predict.load``."""
    from medscale.base.paths import usable

    usable(folder)
    from medscale.serve.predict import load as load_result  # PyTorch is imported when it is needed

    return load_result(folder, seed, device)
