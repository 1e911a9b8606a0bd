"""Operating points: thresholds from validation images, and their rates on other images."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.config.sections import Evaluate, positive_classes
from medscale.evaluate.bootstrap import ratio, score_interval, spread_interval, with_interval
from medscale.evaluate.predictive import ODDS, consequences, cost_without_test, odds
from medscale.evaluate.replicates import Predictions

LIMIT = "threshold_"  # prefix of the columns of the replicates' thresholds


def threshold(scores: np.ndarray, specificity: float) -> float:
    """Return the smallest score that at most a share ``1 - specificity`` of the scores exceed.

    An image is called positive when its score is greater than the threshold.

    Args:
        scores: probabilities of the class for validation images of other classes, shape N.
        specificity: smallest share of these images at or below the threshold, 0 to 1.

    Returns:
        The threshold; NaN without scores.
    """
    if not len(scores):
        return float("nan")
    rank = int(np.ceil(specificity * len(scores) - 1e-9))
    return float(np.sort(scores)[max(rank, 1) - 1])


def thresholds(
    val: Predictions, classes: Sequence[str], specificities: Sequence[float]
) -> pd.DataFrame:
    """Choose each replicate's threshold for each class and specificity on the validation split.

    Args:
        val: predictions of the validation split.
        classes: class names. The last of two is positive; more are each compared with the rest.
        specificities: smallest specificities on the validation split.

    Returns:
        One row for each class and specificity: ``class, wanted`` (the specificity), ``threshold``
        (mean over replicates) and ``threshold_<n>`` of the n-th replicate. With folds, each
        replicate has the validation images of its fold. A threshold is NaN without validation
        images of other classes.
    """
    rows = []
    for code in positive_classes(classes):
        for specificity in specificities:
            limits = [
                threshold(probabilities[labels != code, code], specificity)
                for labels, probabilities in val.networks()
            ]
            row = {"class": classes[code], "wanted": specificity}
            row |= {"threshold": float(np.mean(limits))}
            rows.append(row | {f"{LIMIT}{n}": limit for n, limit in enumerate(limits, start=1)})
    return pd.DataFrame(rows)


def limit_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of the replicates' thresholds in a result of ``thresholds``."""
    return [str(name) for name in table if str(name).startswith(LIMIT)]


def operating_points(
    test: Predictions,
    limits: pd.DataFrame,
    classes: Sequence[str],
    settings: Evaluate,
    draw_counts: np.ndarray,
) -> pd.DataFrame:
    """Compute rates, predictive values and costs of fixed thresholds on the test images.

    Each replicate has its own threshold, and rates are means over replicates. Intervals are over
    patients; the thresholds, and a prevalence from the settings, are fixed.

    Args:
        test: predictions of the test images.
        limits: result of ``thresholds``.
        classes: class names in the order of their codes.
        settings: prevalence by class, and the cost of a missed case. A class without a prevalence
            has that of the test images.
        draw_counts: resamples of the test split's groups, from ``bootstrap.draw``, shape R,G.

    Returns:
        The rows of ``limits`` with ``positives, negatives`` (test images), ``sensitivity,
        specificity, prevalence, stated`` (whether the settings give the prevalence), the values
        of ``predictive.consequences``, each with ``<name>_low, <name>_high``, and
        ``cost_untested``. Values are NaN if a class or the validation split has no images;
        intervals of ``predictive.consequences`` also if one patient is positive or negative.

    Raises:
        MedscaleError: when ``settings.prevalence`` names a class that does not exist.
    """
    check_prevalence(settings, classes)
    draw_counts = draw_counts.astype(np.float64)  # once instead of in every product
    rows = []
    for row, code, positive_calls in calls(test, limits, classes):
        positive = test.labels == code
        points, resample_values, ends, patients = {}, {}, {}, {}
        for name, hits, part in right_calls(positive_calls, positive):
            points[name], resample_values[name] = rate(hits, part, test.groups, draw_counts)
            patients[name] = len(np.unique(test.groups[part]))
            ends[name] = score_interval(resample_values[name], patients[name])
        stated = settings.prevalence.get(classes[code])
        prevalence, prevalences = share(positive, stated, test.groups, draw_counts)
        points |= consequences(**points, prevalence=prevalence, miss_cost=settings.miss_cost)
        resample_values |= consequences(
            **resample_values, prevalence=prevalences, miss_cost=settings.miss_cost
        )
        row |= {"positives": int(positive.sum()), "negatives": int((~positive).sum())}
        row |= {"prevalence": prevalence, "stated": stated is not None}
        fewest = min(patients.values())
        for name, value in points.items():
            value_ends = ends.get(name) or spread_interval(resample_values[name], fewest)
            line = with_interval(name, value, value_ends)
            if name in ODDS:
                line = {column: float(odds(end)) for column, end in line.items()}
            row |= line
        row |= {"cost_untested": cost_without_test(prevalence, settings.miss_cost)}
        rows.append(row)
    return pd.DataFrame(rows)


def calls(
    test: Predictions, limits: pd.DataFrame, classes: Sequence[str]
) -> Iterator[tuple[dict[str, object], int, np.ndarray]]:
    """Yield each row of ``limits``, the code of its class, and the share of positive calls.

    This is the share of the replicates that call an image positive, float64, shape N. It is NaN if
    a threshold is undefined.
    """
    columns = limit_columns(limits)
    for number in range(len(limits)):
        row = limits.iloc[number]
        code = list(classes).index(row["class"])
        values = row[columns].to_numpy(np.float64)
        above = test.probabilities[:, :, code] > test.by_row(values)
        positive_calls = above.mean(axis=0)
        if not np.isfinite(values).all():
            positive_calls = np.full(len(positive_calls), np.nan)
        yield {str(key): value for key, value in row.items()}, code, positive_calls


def right_calls(
    positive_calls: np.ndarray, positive: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield sensitivity and specificity: the name, the share of right calls, and the images."""
    yield "sensitivity", positive_calls, positive
    yield "specificity", 1 - positive_calls, ~positive


def rate(
    hits: np.ndarray, part: np.ndarray, groups: np.ndarray, draw_counts: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return a rate, and the rate on each resample (shape R); NaN if no image is in ``part``.

    Args:
        hits: share of replicates that count an image, 0 to 1, shape N.
        part: images of the denominator, bool, shape N.
        groups: group code of each image, shape N.
        draw_counts: resamples from ``bootstrap.draw``, shape R,G.
    """
    size = draw_counts.shape[1]
    above = draw_counts @ np.bincount(groups[part], hits[part], size)
    below = draw_counts @ np.bincount(groups[part], minlength=size).astype(np.float64)
    return (float(hits[part].mean()) if part.any() else float("nan")), ratio(above, below)


def share(
    positive: np.ndarray, stated: float | None, groups: np.ndarray, draw_counts: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the prevalence of a class and that on each resample: ``stated``, or of the images."""
    if stated is not None:
        return stated, np.full(len(draw_counts), stated)
    return rate(positive.astype(np.float64), np.ones(len(positive), bool), groups, draw_counts)


def check_prevalence(settings: Evaluate, classes: Sequence[str]) -> None:
    """Raise MedscaleError if ``settings.prevalence`` does not fit the classes."""
    if mistake := settings.wrong_prevalence(classes):
        raise MedscaleError(mistake)
