"""Scores of each fold of a cross-validation, their spread, and tests of runs paired by fold."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from medscale.base.errors import MedscaleError
from medscale.evaluate import bootstrap, metrics
from medscale.evaluate.assessment import PAIRED_METRICS, draws
from medscale.evaluate.replicates import Predictions

ROUNDING = 1e-9  # relative spread of values that are equal but for rounding
TESTED_METRICS = ("accuracy", "auroc")  # metrics that the tests between runs compare


@dataclass(frozen=True)
class Folds:
    """The scores of a run by fold.

    The score of the pooled out-of-fold predictions (``Assessment.scores``) and the mean over folds
    are different estimates. An area under a curve of pooled predictions also compares images that
    different networks predict (Forman & Scholz, SIGKDD Explorations 2010).
    """

    # one row for each fold and metric: ``fold`` (from 1), ``images, groups, metric, value`` (mean
    # over seeds), ``low, high`` (95 % bootstrap over the patients of the fold), and
    # ``seed_<k>_value`` of each seed
    scores: pd.DataFrame
    # one row for each metric: ``metric, mean, sd, low, high`` over folds (``corrected_t_test``)
    spread: pd.DataFrame


def by_fold(test: Predictions, seeds: Sequence[int], resamples: int, test_to_train: float) -> Folds:
    """Compute the metrics ``PAIRED_METRICS`` in each fold, and their spread over folds.

    A cross-validation has three intervals:

    - The interval of one fold is over patients. It holds for the networks that were trained, and
      for other patients of the same population.
    - The interval of the pooled predictions is over patients, too. For many patients, the interval
      of the pooled error is an interval of the mean error of the k networks (Bayle et al., NeurIPS
      2020).
    - The interval over folds also covers other training images, as far as k folds with overlapping
      training sets show their effect.

    None of them covers another division into folds, other settings, or patients of another origin.

    Args:
        test: out-of-fold predictions with their folds.
        seeds: seeds of the replicates.
        resamples: number of bootstrap resamples.
        test_to_train: number of test images per training image of a fold.
    """
    draw_counts, parts = draws(test, resamples), _parts(test)
    class_mask = test.class_mask
    rows = []
    for fold, part in enumerate(parts, start=1):
        head = {"fold": fold, "images": len(part.ids), "groups": len(np.unique(part.groups))}
        rows += [head | row for row in _scores(part, seeds, draw_counts, class_mask)]
    scores = pd.DataFrame(rows)
    spread = pd.DataFrame(
        {"metric": metric} | corrected_t_test(part["value"].to_numpy(np.float64), test_to_train)
        for metric, part in scores.groupby("metric", sort=False)
    )
    # Student's t knows no bounds, but these metrics have them.
    highest = np.where(spread["metric"] == "nll", np.inf, 1.0)
    spread["low"], spread["high"] = spread["low"].clip(lower=0), spread["high"].clip(upper=highest)
    return Folds(scores, spread.drop(columns="p"))


def _scores(
    part: Predictions, seeds: Sequence[int], draw_counts: np.ndarray, class_mask: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Yield the mean of each metric over the replicates in one fold, its interval, each value."""
    drawn = metrics.resamples(part, draw_counts, class_mask, complete=False)
    resample_values = [values.overall for values in drawn]
    points = metrics.points(part, class_mask)
    names = [f"seed_{seed}_value" for seed in seeds]
    for metric in PAIRED_METRICS:
        low, high = metrics.interval(metric, part, points, resample_values, class_mask)
        values = [point[metric] for point in points]
        row = {"metric": metric, "value": float(np.mean(values)), "low": low, "high": high}
        yield row | dict(zip(names, values, strict=True))


def corrected_t_test(values: np.ndarray, test_to_train: float) -> dict[str, float]:
    """Return mean, standard deviation, 95 % interval and p-value of values by fold.

    This is the corrected resampled t-test (Nadeau & Bengio, Machine Learning 2003). The training
    sets of folds overlap, so that ``sd**2 / k`` would underestimate the variance of the mean. The
    test takes ``(1/k + test_to_train) sd**2`` instead. Student's t has k - 1 degrees of freedom.
    The p-value tests a mean of 0. All results are NaN if a value is undefined; interval and p-value
    are NaN if all values are equal, since equal folds of so few do not show that others are equal.

    Args:
        values: the metric of each fold, shape k.
        test_to_train: number of test images per training image of a fold.
    """
    folds, mean, sd = len(values), float(values.mean()), float(values.std(ddof=1))
    error = sd * math.sqrt(1 / folds + test_to_train)
    if error <= ROUNDING * max(1.0, abs(mean)):
        error = math.nan
    half = float(stats.t.ppf((1 + bootstrap.LEVEL) / 2, folds - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, folds - 1))
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half, "p": p}


def compare_folds(
    names: Sequence[str], predictions: Sequence[Predictions], baseline: int, test_to_train: float
) -> pd.DataFrame:
    """Compare each run with the baseline, paired by fold: the same images train both.

    The values of a fold are means over seeds.

    Args:
        names: names of the runs.
        predictions: out-of-fold predictions of each run.
        baseline: position of the baseline among the runs.
        test_to_train: number of test images per training image of a fold.

    Returns:
        One row for each run but the baseline and each of ``TESTED_METRICS``: ``run, metric,
        folds``, and ``mean, sd, low, high, p`` from ``corrected_t_test`` of the differences by
        fold, run minus baseline (accuracy in percentage points).

    Raises:
        MedscaleError: when a run has other folds than the baseline.
    """
    base = predictions[baseline]
    for name, run in zip(names, predictions, strict=True):
        _same_folds(name, run, names[baseline], base)
    class_mask = base.class_mask
    base_scores = [_mean_scores(part, class_mask) for part in _parts(base)]
    rows = []
    for number, (name, run) in enumerate(zip(names, predictions, strict=True)):
        if number == baseline:
            continue
        run_scores = [_mean_scores(part, class_mask) for part in _parts(run)]
        for metric in TESTED_METRICS:
            scale = 100 if metric == "accuracy" else 1
            pairs = zip(run_scores, base_scores, strict=True)
            changes = np.array([scale * (r[metric] - b[metric]) for r, b in pairs])
            row = {"run": name, "metric": metric, "folds": len(changes)}
            rows.append(row | corrected_t_test(changes, test_to_train))
    return pd.DataFrame(rows, columns=["run", "metric", "folds", "mean", "sd", "low", "high", "p"])


def _same_folds(name: str, run: Predictions, base_name: str, base_run: Predictions) -> None:
    """Raise MedscaleError unless two runs test the same images in the same folds."""
    if (
        run.folds is None
        or base_run.folds is None
        or not np.array_equal(run.ids, base_run.ids)
        or not np.array_equal(run.folds, base_run.folds)
    ):
        raise MedscaleError(
            f"{name} and {base_name} have different folds and cannot be compared by fold; train "
            "both with the same split.folds and split.seed"
        )


def _parts(test: Predictions) -> list[Predictions]:
    """Return the predictions of each fold."""
    assert test.folds is not None
    return [test.part(test.folds == fold) for fold in range(int(test.folds.max()) + 1)]


def _mean_scores(part: Predictions, class_mask: np.ndarray) -> dict[str, float]:
    """Return ``TESTED_METRICS`` of the images of a fold, means over seeds."""
    points = metrics.points(part, class_mask)
    return {name: float(np.mean([point[name] for point in points])) for name in TESTED_METRICS}
