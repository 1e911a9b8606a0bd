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
    """Load a trained run from its result folder, or from a copy of that folder.

    Nothing is unpickled: weights are safetensors, everything else is JSON. Raises MedscaleError
    when the folder is no result folder or incomplete, or has no such replicate.

    Args:
        folder: ``results/<study>/<run>``.
        seed: of the replicate; None for the best on the validation split, 'all' for the mean over
            all replicates. With folds a seed has a network for each, and predictions are their
            mean.
        device: such as ``cpu`` or ``cuda:0``; None for a GPU if there is one.

    Returns:
        The loaded run, whose ``predict`` takes images.
    """
    from medscale.base.paths import usable_result

    usable_result(folder)
    from medscale.serve.predict import load as load_result  # PyTorch is imported when it is needed

    return load_result(folder, seed, device)
