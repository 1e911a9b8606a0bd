"""Operating points: thresholds from validation images, and their rates on other images."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.config.sections import Evaluate
from medscale.evaluate.bootstrap import interval
from medscale.evaluate.predictive import ODDS, consequences, cost_without_test, odds
from medscale.evaluate.replicates import Predicted

LIMIT = "threshold_"  # prefix of the columns of the replicates' thresholds


def threshold(scores: np.ndarray, specificity: float) -> float:
    """Return the smallest score that at most a share ``1 - specificity`` of the scores exceed.

    An image is called positive when its score is greater than the threshold.

    Args:
        scores: probabilities of the class for validation images of other classes, shape N.
        specificity: share of these images that must lie at or below the threshold, 0 to 1.
    """
    if not len(scores):
        return float("nan")
    rank = int(np.ceil(specificity * len(scores) - 1e-9))
    return float(np.sort(scores)[max(rank, 1) - 1])


def thresholds(
    val: Predicted, classes: Sequence[str], specificities: Sequence[float]
) -> pd.DataFrame:
    """Choose each replicate's threshold for each class and specificity on the validation split.

    Args:
        val: predictions of the validation split.
        classes: class names; of two the last is positive, of more each against the rest.
        specificities: on the validation split, at least, by the thresholds.

    Returns:
        ``class, wanted, threshold`` (mean over replicates) and ``threshold_<n>`` of the n-th
        replicate, with folds each from its own validation images; NaN without validation images of
        other classes.
    """
    rows = []
    for code in positive_classes(classes):
        for specificity in specificities:
            limits = [
                threshold(odds[labels != code, code], specificity)
                for labels, odds in val.networks()
            ]
            row = {"class": classes[code], "wanted": specificity}
            row |= {"threshold": float(np.mean(limits))}
            rows.append(row | {f"{LIMIT}{n}": limit for n, limit in enumerate(limits, start=1)})
    return pd.DataFrame(rows)


def positive_classes(classes: Sequence[str]) -> list[int]:
    """Return the codes of the classes to detect: of two classes the last, of more every class."""
    return [len(classes) - 1] if len(classes) == 2 else list(range(len(classes)))


def operating_points(
    test: Predicted,
    limits: pd.DataFrame,
    classes: Sequence[str],
    settings: Evaluate,
    drawn: np.ndarray,
) -> pd.DataFrame:
    """Compute rates and predictive values of fixed thresholds on the test images.

    Predictive values and costs are those at a stated prevalence, or at that of the images.

    Each replicate has its own threshold, and rates are means over replicates. Intervals are over
    patients, with fixed thresholds and, where it is stated, a fixed prevalence. Raises
    MedscaleError where ``settings.prevalence`` names a class that does not exist.

    Args:
        test: predictions of the test images.
        limits: the thresholds, from ``thresholds``.
        classes: class names in the order of their codes.
        settings: prevalence by class (that of the test images where none is stated), and the
            cost of a missed case.
        drawn: resamples of the test split's groups, from ``bootstrap.draw``, shape R,G.

    Returns:
        The rows of ``limits`` with ``positives, negatives`` (test images), ``sensitivity,
        specificity, prevalence, stated`` (whether the prevalence is stated), the values of
        ``predictive.consequences``, each with ``<name>_low, <name>_high``, and ``cost_untested``.
        NaN where a class or the validation split has no images.
    """
    check_prevalence(settings, classes)
    drawn = drawn.astype(np.float64)  # once instead of in every product
    rows = []
    for row, code, positive_calls in calls(test, limits, classes):
        positive = test.labels == code
        points, resampled = {}, {}
        for name, hits, part in (
            ("sensitivity", positive_calls, positive),
            ("specificity", 1 - positive_calls, ~positive),
        ):
            points[name], resampled[name] = rate(hits, part, test.groups, drawn)
        stated = settings.prevalence.get(classes[code])
        prevalence, prevalences = share(positive, stated, test.groups, drawn)
        points |= consequences(**points, prevalence=prevalence, miss_cost=settings.miss_cost)
        resampled |= consequences(**resampled, prevalence=prevalences, miss_cost=settings.miss_cost)
        row |= {"positives": int(positive.sum()), "negatives": int((~positive).sum())}
        row |= {"prevalence": prevalence, "stated": stated is not None}
        for name, value in points.items():
            row |= with_interval(name, value, resampled[name])
        row |= {"cost_untested": cost_without_test(prevalence, settings.miss_cost)}
        rows.append(row)
    return pd.DataFrame(rows)


def calls(
    test: Predicted, limits: pd.DataFrame, classes: Sequence[str]
) -> Iterator[tuple[dict[str, object], int, np.ndarray]]:
    """Yield each row of ``limits``, the code of its class, and the share of positive calls.

    The share is that of the replicates which call an image positive, float64, shape N; NaN where
    a threshold is undefined.
    """
    columns = [str(name) for name in limits if str(name).startswith(LIMIT)]
    for number in range(len(limits)):
        row = limits.iloc[number]
        code = list(classes).index(row["class"])
        values = row[columns].to_numpy(np.float64)
        above = test.probabilities[:, :, code] > test.by_row(values)
        positive_calls = above.mean(axis=0)
        if not np.isfinite(values).all():
            positive_calls = np.full(len(positive_calls), np.nan)
        yield {str(key): value for key, value in row.items()}, code, positive_calls


def rate(
    hits: np.ndarray, part: np.ndarray, groups: np.ndarray, drawn: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the mean of ``hits`` (0..1, N) over the images ``part`` (bool, N), and on resamples.

    NaN where no image is in ``part``.
    """
    size = drawn.shape[1]
    above = drawn @ np.bincount(groups[part], hits[part], size)
    below = drawn @ np.bincount(groups[part], minlength=size).astype(np.float64)
    resampled = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return (float(hits[part].mean()) if part.any() else float("nan")), resampled


def share(
    positive: np.ndarray, stated: float | None, groups: np.ndarray, drawn: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return a class's prevalence and that on each resample: the stated one, or of the images."""
    if stated is not None:
        return stated, np.full(len(drawn), stated)
    return rate(positive.astype(np.float64), np.ones(len(positive), bool), groups, drawn)


def with_interval(name: str, value: float, resampled: np.ndarray) -> dict[str, float]:
    """Return ``<name>, <name>_low, <name>_high``; shares of ``ODDS`` become odds."""
    values = [float(value), *interval(resampled)]
    if name in ODDS:
        values = [float(odds(end)) for end in values]
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def check_prevalence(settings: Evaluate, classes: Sequence[str]) -> None:
    """Raise MedscaleError where a prevalence is stated for a class that does not exist."""
    positive = [classes[code] for code in positive_classes(classes)]
    if unknown := [name for name in settings.prevalence if name not in positive]:
        raise MedscaleError(
            f"evaluate.prevalence names {', '.join(map(repr, unknown))}; "
            f"state the prevalence of: {', '.join(positive)}"
        )
