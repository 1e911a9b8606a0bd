"""How far the training of each run is from the baseline's, step by step."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medscale.engine.run import RunSpec
from medscale.report.result.reading import Result

NOT_STEPS = (  # settings of the recipe that change how fast a step is, or are in other terms below
    "accumulate",
    "compile",
    "graph",
    "channels_last",
    "tf32",
    "half",
    "batch_size",
    "batch_is",
    "lr",
    "lr_scaling",
)


def parity(results: Sequence[Result], baseline: str) -> pd.DataFrame:
    """Compare each run's training loss with the baseline's, epoch by epoch.

    Runs take the same steps when seeds, global batch, learning rate, recipe, augmentation and
    network are the same; then initial weights, order and augmentation are the same too. What still
    differs is rounding, dropout, which each replica draws for its own share of a batch, and batch
    normalization, which sees ``images`` at a time (Wu and Johnson 2021, section 3): the whole
    global batch in a serial run, its own share in a replica, a micro-batch in a pipeline.

    Returns:
        ``run, format, same_steps, images`` (NaN where the network has no batch normalization), and
        differences from the baseline, NaN where the steps are not the same: of the training loss
        in the ``first`` epoch, the ``largest`` of it over epochs, and of the test ``accuracy`` in
        percentage points.
    """
    base = next(result for result in results if result.name == baseline)
    rows = []
    for result in results:
        same_steps = _steps(result) == _steps(base)
        pairs = zip(_loss(result), _loss(base), strict=False)  # early stopping may shorten a run
        losses = np.array(
            [abs(loss - of_base) for loss, of_base in pairs] if same_steps else [np.nan]
        )
        points = 100 * (result.score("accuracy")["mean"] - base.score("accuracy")["mean"])
        images = _normalized_together(result) if result.normalizes else np.nan
        rows.append(
            (
                result.name,
                result.summary["format"],
                same_steps,
                images,
                losses[0],
                losses.max(),
                points if same_steps else np.nan,
            )
        )
    columns = ["run", "format", "same_steps", "images", "first", "largest", "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def _steps(result: Result) -> dict[str, object]:
    """Return all settings that decide a run's steps."""
    recipe = {key: v for key, v in result.summary["recipe"].items() if key not in NOT_STEPS}
    keys = ("seeds", "global_batch", "learning_rate", "augment", "model")
    return {"recipe": recipe, **{key: result.summary[key] for key in keys}}


def _loss(result: Result) -> np.ndarray:
    table = result.curves[result.curves["quantity"] == "train_loss"].sort_values("epoch")
    return table["mean"].to_numpy(dtype=float)


def _normalized_together(result: Result) -> float:
    """Return the number of images whose statistics a batch normalization takes together."""
    run, recipe = RunSpec.parse(result.name), result.summary["recipe"]
    step = result.summary["global_batch"] / recipe["accumulate"]
    if recipe["sync_batchnorm"] and run.stages == 1:
        return float(step)
    micro_batches = result.summary["parallel"]["microbatches"] if run.stages > 1 else 1
    return float(
        result.summary["global_batch"] / run.replicas / recipe["accumulate"] / micro_batches
    )
