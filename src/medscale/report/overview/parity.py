"""How far each run's training is from the baseline's, where both take the same steps over the same batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medscale.engine.run import RunSpec
from medscale.report.result.reading import Result

SHARED = (
    "accumulate",
    "fused",
    "compile",
    "channels_last",
    "batch_size",
    "batch_is",
    "lr",
    "lr_scaling",
)


def parity(results: Sequence[Result], baseline: str) -> pd.DataFrame:
    """Training losses beside the baseline's by epoch: what a strategy changes besides the time.

    Runs take the same steps when seeds, global batch, learning rate, recipe, augmentation and network are the same;
    then initial weights, order and augmentation are too. What is left are rounding, dropout, which each replica draws
    for its own share, and batch normalization, which sees ``images`` at a time (Wu and Johnson 2021, section 3): the
    whole global batch in a serial run, its own share in a replica, a micro-batch in a pipeline; NaN where the network
    has none.

    Returns:
        ``run, same_steps, images``, and differences from the baseline, NaN where the steps are not the same: of the
        training loss in the ``first`` epoch, the ``largest`` of it over the epochs, and of the test ``accuracy`` in
        points.
    """
    base = next(result for result in results if result.name == baseline)
    rows = []
    for result in results:
        same = _steps(result) == _steps(base)
        pairs = zip(_loss(result), _loss(base), strict=False)  # one may have stopped early
        apart = np.array([abs(ours - theirs) for ours, theirs in pairs] if same else [np.nan])
        points = 100 * (result.score("accuracy")["mean"] - base.score("accuracy")["mean"])
        seen = _seen(result) if result.normalizes else np.nan
        rows.append((result.name, same, seen, apart[0], apart.max(), points if same else np.nan))
    return pd.DataFrame(
        rows, columns=["run", "same_steps", "images", "first", "largest", "accuracy"]
    )


def _steps(result: Result) -> dict[str, object]:
    """What decides the steps that a run takes."""
    recipe = {key: value for key, value in result.summary["recipe"].items() if key not in SHARED}
    keys = ("seeds", "global_batch", "learning_rate", "augment", "model")
    return {"recipe": recipe, **{key: result.summary[key] for key in keys}}


def _loss(result: Result) -> np.ndarray:
    table = result.curves[result.curves["quantity"] == "train_loss"].sort_values("epoch")
    return table["mean"].to_numpy(dtype=float)


def _seen(result: Result) -> float:
    """Images that a batch normalization sees at a time."""
    run, recipe = RunSpec.parse(result.name), result.summary["recipe"]
    if recipe["sync_batchnorm"] and run.stages == 1:
        return float(result.summary["global_batch"] / recipe["accumulate"])
    micro = result.summary["parallel"]["microbatches"] if run.stages > 1 else 1
    return float(result.summary["global_batch"] / run.replicas / recipe["accumulate"] / micro)
