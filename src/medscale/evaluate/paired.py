"""Is a run as good as another on the same images? Paired tests of accuracy and AUROC, by patient, over replicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from medscale.evaluate import bootstrap
from medscale.evaluate.replicates import Predicted

SAME, OPEN = "equal within the margin", "undecided"
APART_WITHIN, APART = "interval leaves out 0, within the margin", "interval leaves out 0"


class Areas(NamedTuple):
    """An AUROC and each patient's share in its error: ``influence`` (shape G) squared and summed is the variance."""

    auroc: float
    influence: np.ndarray


def compare(
    names: Sequence[str],
    predicted: Sequence[Predicted],
    baseline: int,
    margin: float,
    drawn: np.ndarray,
) -> pd.DataFrame:
    """Each run beside the baseline, on the same test images.

    Args:
        names: of the runs.
        predicted: the test split by each.
        baseline: its place among them.
        margin: percentage points of accuracy within which runs count as equal.
        drawn: resamples of the groups, from ``bootstrap.draw``.

    Returns:
        A row a run without the baseline: ``run``; ``only_run, only_baseline`` (images that one alone has right, summed
        over pairs of replicates), ``accuracy, accuracy_low, accuracy_high`` (difference in points, 95 % bootstrap
        interval), ``accuracy_p``; ``auroc, auroc_low, auroc_high, auroc_p`` (difference, interval and test by
        ``auroc``); ``accuracy_p_holm, auroc_p_holm`` (adjusted for the number of runs); and ``reading`` against the
        margin: of the interval of the accuracy, see ``reading``.
    """
    base = predicted[baseline]
    base_areas, base_right = auroc(base), _right(base)
    rows = []
    for number, (name, run) in enumerate(zip(names, predicted, strict=True)):
        if number == baseline:
            continue
        right, areas = _right(run), auroc(run)
        pairs = min(len(right), len(base_right))  # replicates of equal seed stand at equal places
        change = right[:pairs].astype(np.int64) - base_right[:pairs]
        of_patient = (
            np.bincount(base.groups, change.sum(axis=0), drawn.shape[1]).round().astype(np.int64)
        )
        mean_change = 100 * (right.mean(axis=0) - base_right.mean(axis=0))
        below = drawn @ np.bincount(base.groups, minlength=drawn.shape[1])
        low, high = bootstrap.interval(
            drawn @ np.bincount(base.groups, mean_change, drawn.shape[1]) / below
        )
        difference = areas.auroc - base_areas.auroc
        error = float(np.sqrt(((areas.influence - base_areas.influence) ** 2).sum()))
        half = float(stats.norm.ppf((1 + bootstrap.LEVEL) / 2)) * error
        rows.append(
            {
                "run": name,
                "only_run": int((change > 0).sum()),
                "only_baseline": int((change < 0).sum()),
                "accuracy": float(mean_change.mean()),
                "accuracy_low": low,
                "accuracy_high": high,
                "accuracy_p": sign_flips(of_patient),
                "auroc": difference,
                "auroc_low": difference - half,
                "auroc_high": difference + half,
                "auroc_p": normal_p(difference, error),
                "reading": reading(low, high, margin),
            }
        )
    table = pd.DataFrame(rows)
    for metric in ("accuracy", "auroc"):
        if len(table):
            table[f"{metric}_p_holm"] = holm(table[f"{metric}_p"].to_numpy(dtype=float))
    return table


def auroc(predicted: Predicted) -> Areas:
    """The AUROC (two classes: of the last; more: mean over classes), mean over replicates, with its variance.

    The variance is that of DeLong et al. (1988), whose structural components are had from ranks (Sun & Xu 2014), with
    the components of a patient's images added before they are squared (Obuchowski 1997), so that several images of one
    patient do not count as independent ones. With one image a patient, two classes and one replicate it is DeLong's.
    """
    classes = predicted.probabilities.shape[2]
    codes = [1] if classes == 2 else [c for c in range(classes) if (predicted.labels == c).any()]
    size = int(predicted.groups.max()) + 1
    found = [
        _area(predicted.labels == code, odds[:, code], predicted.groups, size)
        for odds in predicted.probabilities
        for code in codes
    ]
    areas = np.array([one.auroc for one in found])
    return Areas(float(areas.mean()), np.mean([one.influence for one in found], axis=0))


def sign_flips(changes: np.ndarray) -> float:
    """Exact two-sided p-value of the sum of these integers when each one's sign is as likely + as -.

    With changes of +1 and -1 it is McNemar's exact test (1947); a patient's images, and replicates, come as one sum.
    The distribution is had by convolution of binomial ones, one a size of change.
    """
    sizes, counts = np.unique(np.abs(changes[changes != 0]), return_counts=True)
    law = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        one = np.zeros(2 * size * count + 1)
        one[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        law = np.convolve(law, one)
    sums = np.arange(len(law)) - len(law) // 2
    return float(min(1.0, law[np.abs(sums) >= abs(int(changes.sum()))].sum()))


def holm(p: np.ndarray) -> np.ndarray:
    """P-values (shape M) adjusted so that the chance of any false rejection is held (Holm 1979); NaN is no test."""
    order = np.argsort(p, kind="stable")
    tests = int((~np.isnan(p)).sum())
    steps = np.maximum.accumulate(p[order][:tests] * np.arange(tests, 0, -1))
    adjusted = np.full(len(p), np.nan)
    adjusted[order[:tests]] = np.minimum(steps, 1.0)
    return adjusted


def normal_p(difference: float, error: float) -> float:
    """Two-sided p-value of a difference with a standard error; 1 where both are 0 (runs that predict the same)."""
    if error == 0 and difference == 0:
        return 1.0
    return float(2 * stats.norm.sf(abs(difference) / error)) if error > 0 else float("nan")


def reading(low: float, high: float, margin: float) -> str:
    """What a 95 % interval of a difference says of equality within +- ``margin``.

    Two one-sided tests at 2.5 % (Schuirmann 1987): equal where the whole interval lies within the margin. A test that
    finds no difference would not say so.
    """
    within, apart = -margin < low and high < margin, low > 0 or high < 0
    if within:
        return APART_WITHIN if apart else SAME
    return APART if apart else OPEN


def _right(predicted: Predicted) -> np.ndarray:
    """Which images each replicate has right, bool, shape S,N."""
    return predicted.probabilities.argmax(axis=2) == predicted.labels


def _area(positive: np.ndarray, scores: np.ndarray, groups: np.ndarray, size: int) -> Areas:
    """One class against the rest."""
    counts = int(positive.sum()), int((~positive).sum())
    if not all(counts):
        return Areas(float("nan"), np.full(size, np.nan))
    both, order = stats.rankdata(scores), np.empty(len(scores))
    for part, others in ((positive, counts[1]), (~positive, counts[0])):
        order[part] = (
            both[part] - stats.rankdata(scores[part])
        ) / others  # share of the others with smaller scores
    order[~positive] = 1 - order[~positive]
    area = float(order[positive].mean())
    influence = np.zeros(size)
    for part, count in ((positive, counts[0]), (~positive, counts[1])):
        patients = len(np.unique(groups[part]))
        correction = np.sqrt(patients / (patients - 1)) if patients > 1 else 1.0
        influence += correction * np.bincount(groups[part], (order[part] - area) / count, size)
    return Areas(area, influence)
