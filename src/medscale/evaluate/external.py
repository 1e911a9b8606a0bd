"""External validation: scores on images of another origin, compared with the test split's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from medscale.evaluate.assessment import PAIRED, SEED, Assessment, Fitted
from medscale.evaluate.bootstrap import interval
from medscale.evaluate.operating import LIMIT

SPLITS = ("train", "val", "test")


def fitted(summary: Mapping[str, Any], operating: pd.DataFrame) -> Fitted:
    """Return the temperatures and thresholds of a result folder, from its validation split.

    Args:
        summary: content of summary.json.
        operating: operating.csv.
    """
    temperatures = summary["calibration"]["temperatures"]
    columns = [str(name) for name in operating if str(name).startswith(LIMIT)]
    return Fitted(
        [np.nan if value is None else float(value) for value in temperatures],
        operating[["class", "wanted", "threshold", *columns]],
    )


def shift(summary: Mapping[str, Any], resamples: pd.DataFrame, outside: Assessment) -> pd.DataFrame:
    """Compare the metrics of the test split (inside) with those of external images (outside).

    Both sets have other patients, so that their resamples are independent.

    Args:
        summary: summary.json of the result, for the values of the test split.
        resamples: resamples.csv of the result.
        outside: the assessment of the external images.

    Returns:
        A row for each metric: ``metric``, and ``inside, outside, difference`` (outside minus
        inside), each with ``_low`` and ``_high``. The interval of the difference is NaN for
        metrics of which the result holds no resamples.
    """
    order = np.random.default_rng(SEED).permutation(len(resamples))
    rows = []
    for row in outside.scores.to_dict("records"):
        name = str(row["metric"])
        score = summary["metrics"]["test"].get(name)
        if score is None:
            continue
        ends = {"": "mean", "_low": "low", "_high": "high"}
        line: dict[str, Any] = {"metric": name}
        for side, values in (("inside", score), ("outside", row)):
            for ending, key in ends.items():
                value = values[key]
                line[f"{side}{ending}"] = np.nan if value is None else float(value)
        line["difference"] = line["outside"] - line["inside"]
        low, high = np.nan, np.nan
        if name in PAIRED:
            count = min(len(resamples), len(outside.resamples))
            inside = resamples[name].to_numpy(np.float64)[order[:count]]
            low, high = interval(outside.resamples[name].to_numpy()[:count] - inside)
        rows.append(line | {"difference_low": low, "difference_high": high})
    return pd.DataFrame(rows)


def copies(digests: pd.Series, training: pd.DataFrame | None) -> dict[str, int] | None:
    """Count the external images that are copies, byte by byte, of images of the study.

    Args:
        digests: SHA-256 of the external images (column ``sha256`` of their index).
        training: index of the study; None where it is not available.

    Returns:
        Images by split of the study; None where its index is not available.
    """
    if training is None:
        return None
    return {
        split: int(digests.isin(set(training.loc[training["split"] == split, "sha256"])).sum())
        for split in SPLITS
    }
