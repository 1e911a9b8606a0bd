"""Assessment of the predictions for one set of labelled images: all its scores and tables."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from medscale.base.files import digest
from medscale.config.sections import Evaluate
from medscale.data import patients
from medscale.evaluate import bootstrap, calibration, metrics
from medscale.evaluate.decision_curve import decision_curve
from medscale.evaluate.distribution import score_distribution
from medscale.evaluate.gaps import gaps
from medscale.evaluate.operating import operating_points
from medscale.evaluate.replicates import Predicted
from medscale.evaluate.subgroups import subgroups

Names = Sequence[int | str]  # seeds of replicates, or their names
RESAMPLES = 1000
SEED = 20170
PAIRED = ("accuracy", "balanced_accuracy", "auroc", "nll", "ece")


@dataclass(frozen=True)
class Fitted:
    """Temperatures and thresholds of the validation split, applied unchanged to other images."""

    # of each network, divides the logits; NaN without validation images
    temperatures: list[float]
    thresholds: pd.DataFrame  # ``operating.thresholds``


@dataclass(frozen=True)
class Assessment:
    """The evaluation of all replicates of a run on one set of images: metrics, curves, tables.

    Two intervals are kept apart: that of the bootstrap over patients, and that over seeds.
    """

    settings: Evaluate  # prevalences, costs and subgroups
    classes: list[str]  # class names in the order of their codes
    # by split (of external images ``test`` alone), the numbers of images and groups
    counts: dict[str, dict[str, int]]
    patients: patients.State  # whether the patients of the images are known
    # classes that averages over classes leave out, since the images have fewer than
    # ``bootstrap.FEWEST_GROUPS`` groups of them
    not_averaged: list[str]
    # a row for each split and metric: ``mean`` over seeds with the bootstrap interval ``low, high``
    # of that mean (patients are drawn), and ``seed_sd, seed_low, seed_high`` over seeds (Student's
    # t); then a column for each seed
    scores: pd.DataFrame
    per_class: pd.DataFrame  # the same for the classes, with ``support`` (images)
    # counts summed over seeds, int64, shape K,K; rows are the truth
    confusion: np.ndarray
    # ``curve, seed, false_positive_rate, true_positive_rate``; the seed is empty for the mean
    roc: pd.DataFrame
    precision_recall: pd.DataFrame  # ``curve, seed, recall, precision``, likewise
    temperatures: list[float]  # ``Fitted.temperatures``
    reliability: pd.DataFrame  # ``calibration.reliability`` with ``calibrated`` no and yes
    distribution: pd.DataFrame  # ``score_distribution``
    operating: pd.DataFrame  # ``operating_points``
    decision: pd.DataFrame  # ``decision_curve`` of the calibrated probabilities
    # a row for each confused pair of classes, most frequent first: ``true, predicted, images``
    # (mean over replicates), ``share`` (of the true class)
    confusions: pd.DataFrame
    subgroups: pd.DataFrame  # ``subgroups``
    gaps: pd.DataFrame  # ``gaps``: the subgroups at the operating points
    # the metrics ``PAIRED`` of each resample, mean over seeds
    resamples: pd.DataFrame
    # digest of images, groups and resampling; runs with equal digests can be compared in pairs
    paired_with: str


def assess(
    test: Predicted,
    rows: pd.DataFrame,
    classes: list[str],
    seeds: Names,
    fitted: Fitted,
    settings: Evaluate,
    resamples: int = RESAMPLES,
) -> Assessment:
    """Assess the predictions of a run's replicates for a set of labelled images.

    Raises MedscaleError where ``settings.prevalence`` names a class that does not exist.

    Args:
        test: the predictions; at least one image.
        rows: the index's rows of the same images in the same order.
        classes: class names in the order of their codes.
        seeds: of the replicates, or their names.
        fitted: temperatures and thresholds from the validation split.
        settings: prevalences, costs and subgroups.
        resamples: of the bootstrap.
    """
    drawn = draws(test, resamples)
    # Averages leave out classes for which nothing can be estimated.
    averaged = bootstrap.averaged_classes(test.labels, test.groups, len(classes))
    resampled = resample(test, drawn, averaged)
    calibrated = _tempered(test, fitted.temperatures)
    has_validation = bool(np.isfinite(fitted.temperatures).all())
    scores = [split_scores(test, resampled, seeds, "test", averaged)]
    if has_validation:
        scores.append(_calibrated(calibrated, drawn, seeds))
    confusion = _confusion(test)
    limits = fitted.thresholds
    roc_axes = ("false_positive_rate", "true_positive_rate")
    pr_axes = ("recall", "precision")
    return Assessment(
        settings=settings,
        classes=classes,
        counts={"test": count(test)},
        patients=patients.state(rows.get(patients.PATIENT)),
        not_averaged=[name for name, kept in zip(classes, averaged, strict=True) if not kept],
        scores=pd.concat(scores, ignore_index=True),
        per_class=_per_class(test, resampled, seeds, classes),
        confusion=confusion,
        roc=_curves(test, seeds, classes, metrics.roc_points, roc_axes),
        precision_recall=_curves(test, seeds, classes, metrics.precision_recall_points, pr_axes),
        temperatures=fitted.temperatures,
        reliability=_reliability(test, calibrated if has_validation else None),
        distribution=score_distribution(test, classes),
        operating=operating_points(test, limits, classes, settings, drawn),
        decision=decision_curve(calibrated, classes, settings, drawn),
        confusions=_confusions(confusion, classes, len(seeds)),
        subgroups=subgroups(test, rows, settings, drawn, resampled),
        gaps=gaps(test, rows, limits, classes, settings, drawn),
        resamples=pd.DataFrame(
            {name: np.mean([r.overall[name] for r in resampled], axis=0) for name in PAIRED}
        ),
        paired_with=pairing(test, resamples),
    )


def count(predicted: Predicted) -> dict[str, int]:
    """Return the numbers of images and groups of a set of images."""
    return {"images": len(np.unique(predicted.ids)), "groups": len(np.unique(predicted.groups))}


def draws(predicted: Predicted, resamples: int) -> np.ndarray:
    """Draw bootstrap resamples of the patients or groups of a split.

    Return how often each of G groups is drawn in each of R resamples, int64, shape R,G. The draws
    are the same for every run of a study, so that runs can be compared in pairs.
    """
    return bootstrap.draw(int(predicted.groups.max()) + 1, resamples, SEED)


def pairing(test: Predicted, resamples: int) -> str:
    """Return a digest of test images, groups and resampling; runs with equal ones can be paired.

    With folds it covers the fold that tests each image.
    """
    columns = [test.ids.tolist(), test.groups.tolist(), test.labels.tolist()]
    folds = [] if test.folds is None else [test.folds.tolist()]
    return digest([*columns, resamples, SEED, *folds])


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Return mean, standard deviation and Student's t interval of the mean over replicates.

    All but the mean are NaN for a single replicate.
    """
    array = np.asarray(values, dtype=np.float64)
    count = len(array)
    mean = float(array.mean())
    if count < 2:
        return {"mean": mean, "sd": math.nan, "low": math.nan, "high": math.nan}
    sd = float(array.std(ddof=1))
    half = float(stats.t.ppf((1 + bootstrap.LEVEL) / 2, count - 1)) * sd / math.sqrt(count)
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def row(values: list[float], resampled: list[np.ndarray], seeds: Names) -> dict[str, float]:
    """Return one line of metrics.csv.

    Args:
        values: of each seed.
        resampled: of each seed, the values of all resamples, shape R.
    """
    spread = over_seeds(values)
    low, high = bootstrap.interval(np.mean(resampled, axis=0))
    line = {"mean": spread["mean"], "low": low, "high": high}
    line |= {f"seed_{name}": spread[name] for name in ("sd", "low", "high")}
    return line | {f"seed_{seed}_value": value for seed, value in zip(seeds, values, strict=True)}


def score_rows(
    points: Sequence[Mapping[str, float]],
    resampled: Sequence[Mapping[str, np.ndarray]],
    seeds: Names,
    split: str,
    names: Mapping[str, str],
) -> pd.DataFrame:
    """Return the rows of metrics.csv of a split; ``names``: printed name by metric."""
    rows = [
        {"split": split, "metric": printed}
        | row([p[name] for p in points], [r[name] for r in resampled], seeds)
        for name, printed in names.items()
    ]
    return pd.DataFrame(rows)


def _tempered(predicted: Predicted, temperatures: Sequence[float]) -> Predicted:
    """Return the predictions with each network's probabilities at its own temperature."""
    pairs = zip(predicted.probabilities, predicted.by_row(temperatures), strict=True)
    tempered = np.stack([calibration.tempered(odds, by) for odds, by in pairs])
    return replace(predicted, probabilities=tempered)


def resample(
    predicted: Predicted, drawn: np.ndarray, averaged: np.ndarray | None
) -> list[bootstrap.Resampled]:
    """Return the metrics on every resample, by replicate; the resamples are equal for all."""
    return [
        bootstrap.resample(predicted.labels, odds, predicted.groups, drawn, averaged=averaged)
        for odds in predicted.probabilities
    ]


def split_scores(
    predicted: Predicted,
    resampled: list[bootstrap.Resampled],
    seeds: Names,
    split: str,
    averaged: np.ndarray | None,
) -> pd.DataFrame:
    """Return the rows of metrics.csv of a split, from its values on all resamples."""
    points = [metrics.point(predicted.labels, odds, averaged) for odds in predicted.probabilities]
    names = {name: name for name in metrics.names(predicted.probabilities.shape[2])}
    return score_rows(points, [r.overall for r in resampled], seeds, split, names)


def _calibrated(calibrated: Predicted, drawn: np.ndarray, seeds: Names) -> pd.DataFrame:
    """Return rows ``<metric>_calibrated`` of the test split at the fitted temperatures."""
    labels, groups = calibrated.labels, calibrated.groups
    points = [calibration.point(labels, odds) for odds in calibrated.probabilities]
    resampled = [
        calibration.resample(labels, odds, groups, drawn) for odds in calibrated.probabilities
    ]
    names = {name: f"{name}_calibrated" for name in calibration.NAMES}
    return score_rows(points, resampled, seeds, "test", names)


def _reliability(test: Predicted, calibrated: Predicted | None) -> pd.DataFrame:
    parts = [("no", test), *([("yes", calibrated)] if calibrated is not None else [])]
    tables = [
        calibration.reliability(p.labels, p.probabilities).assign(calibrated=name)
        for name, p in parts
    ]
    return pd.concat(tables, ignore_index=True)


def _per_class(
    predicted: Predicted, resampled: list[bootstrap.Resampled], seeds: Names, classes: list[str]
) -> pd.DataFrame:
    points = [metrics.per_class(predicted.labels, odds) for odds in predicted.probabilities]
    support = np.bincount(predicted.labels, minlength=len(classes))
    rows = []
    for code, label in enumerate(classes):
        for name in metrics.PER_CLASS:
            values = [float(point[name][code]) for point in points]
            line = row(values, [r.by_class[name][:, code] for r in resampled], seeds)
            rows.append({"class": label, "support": int(support[code]), "metric": name, **line})
    return pd.DataFrame(rows)


def _confusion(predicted: Predicted) -> np.ndarray:
    classes = predicted.probabilities.shape[2]
    cells = predicted.labels[None] * classes + predicted.probabilities.argmax(axis=2)
    return np.bincount(cells.ravel(), minlength=classes * classes).reshape(classes, classes)


def _confusions(counts: np.ndarray, classes: list[str], replicates: int) -> pd.DataFrame:
    """Return ``Assessment.confusions`` from the confusion matrix (K,K) of all replicates."""
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong.ravel(), kind="stable")[: np.count_nonzero(wrong)]
    true, predicted = np.unravel_index(order, counts.shape)
    images = counts[true, predicted]
    return pd.DataFrame(
        {
            "true": [classes[code] for code in true],
            "predicted": [classes[code] for code in predicted],
            "images": images / replicates,
            "share": images / counts.sum(axis=1)[true],
        }
    )


def _curves(
    predicted: Predicted,
    seeds: Names,
    classes: list[str],
    points: Callable[[np.ndarray, np.ndarray], np.ndarray | None],
    axes: tuple[str, str],
) -> pd.DataFrame:
    """Return the curves of each class (two classes: of the last) by seed, and their means.

    More than two classes have a micro and a macro average as well.
    """
    truth = np.eye(len(classes), dtype=bool)[predicted.labels]
    codes = [1] if len(classes) == 2 else list(range(len(classes)))
    rows: dict[tuple[str, str], np.ndarray] = {}
    for seed, probabilities in zip(seeds, predicted.probabilities, strict=True):
        curves = {classes[c]: points(truth[:, c], probabilities[:, c]) for c in codes}
        if len(codes) > 1:
            defined = [curve for curve in curves.values() if curve is not None]
            curves["macro average"] = np.mean(defined, axis=0) if defined else None
            curves["micro average"] = points(truth.ravel(), probabilities.ravel())
        rows |= {(name, str(seed)): curve for name, curve in curves.items() if curve is not None}
    for name in dict.fromkeys(name for name, _ in rows):
        same_name = [curve for (other, _), curve in rows.items() if other == name]
        rows[name, ""] = np.mean(same_name, axis=0)
    columns = ["curve", "seed", *axes]
    parts = [
        pd.DataFrame(dict(zip(columns, (name, seed, metrics.GRID, curve), strict=True)))
        for (name, seed), curve in rows.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
