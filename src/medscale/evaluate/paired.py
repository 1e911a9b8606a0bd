"""Paired tests of accuracy and AUROC between runs on the same images, by patient."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from medscale.evaluate import bootstrap
from medscale.evaluate.replicates import Predictions

SAME, OPEN = "equal within the margin", "undecided"
APART_WITHIN, APART = "interval leaves out 0, within the margin", "interval leaves out 0"
COLUMNS = [
    *("run", "only_run", "only_baseline", "accuracy", "accuracy_low", "accuracy_high"),
    *("accuracy_p", "auroc", "auroc_low", "auroc_high", "auroc_p", "reading"),
]


class Areas(NamedTuple):
    """An AUROC and the contribution of each patient to its variance."""

    auroc: float  # the area, 0 to 1
    influence: np.ndarray  # of each patient, shape G; the variance is the sum of its squares


def compare(
    names: Sequence[str],
    predictions: Sequence[Predictions],
    baseline: int,
    margin: float,
    draw_counts: np.ndarray,
) -> pd.DataFrame:
    """Compare each run with the baseline on the same test images.

    Args:
        names: names of the runs.
        predictions: predictions of the test split by each run.
        baseline: position of the baseline among the runs.
        margin: percentage points of accuracy within which runs count as equal.
        draw_counts: resamples of the groups, from ``bootstrap.draw``, shape R,G.

    Returns:
        One row for each run but the baseline, with the columns

        - ``run``;
        - ``only_run, only_baseline``: images that only one of the two classifies correctly, summed
          over pairs of replicates;
        - ``accuracy, accuracy_low, accuracy_high``: difference in percentage points with its 95 %
          bootstrap interval, and ``accuracy_p`` from ``sign_flips``;
        - ``auroc, auroc_low, auroc_high, auroc_p``: difference, interval (NaN without any variance,
          as of two perfect runs) and test from ``auroc``, both NaN with one patient of a class;
        - ``accuracy_p_holm, auroc_p_holm``: p-values adjusted for the number of runs;
        - ``reading``: the interval of the accuracy against the margin, from ``reading``.
    """
    base = predictions[baseline]
    base_areas, base_correct = auroc(base), _correct(base)
    rows = [
        {"run": name}
        | _accuracy(_correct(run), base_correct, base.groups, margin, draw_counts)
        | _area_difference(auroc(run), base_areas)
        for number, (name, run) in enumerate(zip(names, predictions, strict=True))
        if number != baseline
    ]
    table = pd.DataFrame(rows, columns=COLUMNS if rows else None)
    for metric in ("accuracy", "auroc"):
        if len(table):
            table[f"{metric}_p_holm"] = holm(table[f"{metric}_p"].to_numpy(dtype=float))
    return table


def auroc(predictions: Predictions) -> Areas:
    """Compute the AUROC, mean over replicates, and its variance by patient.

    With two classes it is the area of the last class; with more it is the mean over the classes of
    ``bootstrap.averaged_classes``. The variance is that of DeLong et al. (Biometrics 1988),
    computed from ranks (Sun & Xu, IEEE Signal Processing Letters 2014). The components of a
    patient's images are added before they are squared (Obuchowski, Biometrics 1997), since these
    images are not independent. With one image per patient, two classes and one replicate, the
    variance equals DeLong's. It is NaN if a class has one patient, or all patients but one.
    """
    classes = predictions.probabilities.shape[2]
    occurs = np.bincount(predictions.labels, minlength=classes) > 0
    codes = [1] if classes == 2 else np.flatnonzero(occurs & predictions.class_mask).tolist()
    size = int(predictions.groups.max()) + 1
    parts = [
        _area(predictions.labels == code, probabilities[:, code], predictions.groups, size)
        for probabilities in predictions.probabilities
        for code in codes
    ]
    areas = np.array([part.auroc for part in parts])
    return Areas(float(areas.mean()), np.mean([part.influence for part in parts], axis=0))


def sign_flips(changes: np.ndarray) -> float:
    """Return the exact two-sided p-value of a sum whose terms have random signs.

    With changes of +1 and -1 this is McNemar's exact test (Psychometrika 1947). All images and
    replicates of a patient form one term. The distribution of the sum is the convolution of
    binomial distributions, one for each absolute value of a change.

    Args:
        changes: for each patient, the correct answers of the run minus those of the baseline,
            int64, shape G.
    """
    sizes, counts = np.unique(np.abs(changes[changes != 0]), return_counts=True)
    law = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        binomial = np.zeros(2 * size * count + 1)
        binomial[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        law = np.convolve(law, binomial)
    sums = np.arange(len(law)) - len(law) // 2
    return float(min(1.0, law[np.abs(sums) >= abs(int(changes.sum()))].sum()))


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust p-values, shape M, for the number of tests (Holm 1979); NaN counts as no test."""
    order = np.argsort(p, kind="stable")
    tests = int((~np.isnan(p)).sum())
    steps = np.maximum.accumulate(p[order][:tests] * np.arange(tests, 0, -1))
    adjusted = np.full(len(p), np.nan)
    adjusted[order[:tests]] = np.minimum(steps, 1.0)
    return adjusted


def normal_p(difference: float, error: float) -> float:
    """Return the two-sided p-value of a difference; 1 where it and its standard error are 0."""
    if error == 0 and difference == 0:
        return 1.0
    return float(2 * stats.norm.sf(abs(difference) / error)) if error > 0 else float("nan")


def fewest_patients(margin: float) -> int:
    """Return the number of patients from which a test set can show equality within a margin.

    A difference of ``margin`` percentage points needs different answers for at least this share of
    the patients. In fewer patients than this number, the probability that none of them is drawn is
    above 2.5 %, so that even equal answers to all images do not exclude the difference.
    """
    return math.ceil(math.log((1 - bootstrap.LEVEL) / 2) / math.log1p(-min(margin / 100, 0.999)))


def smallest_difference(patients: int) -> float:
    """Return the percentage points that a test set of so many patients can exclude.

    It is ``fewest_patients`` solved for the margin.
    """
    return 100 * bootstrap.smallest_share(patients)


def reading(low: float, high: float, margin: float, patients: int) -> str:
    """Classify the 95 % interval ``low, high`` of a difference against a margin.

    This amounts to two one-sided tests at 2.5 % (Schuirmann 1987): two runs are equal if the whole
    interval lies between ``-margin`` and ``margin``. A test that finds no difference does not show
    equality. A bootstrap interval is too narrow where few answers differ, so that the test set
    needs ``fewest_patients``.

    Args:
        low, high, margin: percentage points.
        patients: number of patients or groups of the test set.

    Returns:
        ``SAME``, ``OPEN``, ``APART_WITHIN`` or ``APART``.
    """
    within, apart = -margin < low and high < margin, low > 0 or high < 0
    if within and patients >= fewest_patients(margin):
        return APART_WITHIN if apart else SAME
    return APART if apart else OPEN


def accuracy_change(
    change: np.ndarray, groups: np.ndarray, draw_counts: np.ndarray
) -> tuple[float, float, float]:
    """Return the mean change of accuracy with its 95 % interval, in percentage points.

    Args:
        change: difference in correctness of each image, in [-1, 1], shape N.
        groups: code of each image's patient, from 0, shape N.
        draw_counts: how often each resample draws each patient, shape R,P.
    """
    patients = draw_counts.shape[1]
    images = draw_counts @ np.bincount(groups, minlength=patients)
    changes = draw_counts @ np.bincount(groups, change, patients) / images
    low, high = bootstrap.score_interval(changes, patients, lowest=-1.0)
    return 100 * float(change.mean()), 100 * low, 100 * high


def _accuracy(
    is_correct: np.ndarray,
    base: np.ndarray,
    groups: np.ndarray,
    margin: float,
    draw_counts: np.ndarray,
) -> dict[str, object]:
    """Compare the correctly classified images (bool, S,N) of a run and of the baseline."""
    patients = draw_counts.shape[1]
    change = is_correct.astype(np.int64) - base  # replicates with equal seeds have equal positions
    by_patient = np.bincount(groups, change.sum(axis=0), patients).round().astype(np.int64)
    mean_change = is_correct.mean(axis=0) - base.mean(axis=0)
    difference, low, high = accuracy_change(mean_change, groups, draw_counts)
    return {
        "only_run": int((change > 0).sum()),
        "only_baseline": int((change < 0).sum()),
        "accuracy": difference,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_p": sign_flips(by_patient),
        "reading": reading(low, high, margin, patients),
    }


def _area_difference(areas: Areas, base: Areas) -> dict[str, float]:
    difference = areas.auroc - base.auroc
    error = float(np.sqrt(((areas.influence - base.influence) ** 2).sum()))
    half = float(stats.norm.ppf((1 + bootstrap.LEVEL) / 2)) * error if error > 0 else math.nan
    return {
        "auroc": difference,
        "auroc_low": difference - half,
        "auroc_high": difference + half,
        "auroc_p": normal_p(difference, error),
    }


def _correct(predictions: Predictions) -> np.ndarray:
    """Return which images each replicate classifies correctly, bool, shape S,N."""
    return predictions.probabilities.argmax(axis=2) == predictions.labels


def _area(positive: np.ndarray, scores: np.ndarray, groups: np.ndarray, size: int) -> Areas:
    """Compute the area of one class against the rest.

    Args:
        positive: whether each image is of the class, bool, shape N.
        scores: probability of the class, shape N.
        groups: patient of each image, 0..G-1, shape N.
        size: number of patients G.
    """
    counts = int(positive.sum()), int((~positive).sum())
    if not all(counts):
        return Areas(float("nan"), np.full(size, np.nan))
    ranks, below = stats.rankdata(scores), np.empty(len(scores))
    # ``below``: the share of the images of the other kind that score lower; ties count half.
    for part, count_other in ((positive, counts[1]), (~positive, counts[0])):
        below[part] = (ranks[part] - stats.rankdata(scores[part])) / count_other
    below[~positive] = 1 - below[~positive]
    area = float(below[positive].mean())
    influence = np.zeros(size)
    for part, count in ((positive, counts[0]), (~positive, counts[1])):
        patients = len(np.unique(groups[part]))
        correction = np.sqrt(patients / (patients - 1)) if patients > 1 else np.nan
        influence += correction * np.bincount(groups[part], (below[part] - area) / count, size)
    return Areas(area, influence)
