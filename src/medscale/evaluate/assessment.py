"""Assessment of the predictions for one set of labelled images: all its scores and tables."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from medscale.base.files import digest
from medscale.config.sections import Evaluate, positive_classes
from medscale.data import patients
from medscale.evaluate import bootstrap, calibration, metrics
from medscale.evaluate.decision_curve import decision_curve
from medscale.evaluate.distribution import score_distribution
from medscale.evaluate.gaps import gaps
from medscale.evaluate.operating import operating_points
from medscale.evaluate.replicates import Predictions
from medscale.evaluate.subgroups import subgroups

Names = Sequence[int | str]  # seeds of replicates, or their names
RESAMPLES = 1000
SEED = 20170  # of the bootstrap; all runs of all studies share it, so that they can be paired
ROC_AXES = ("false_positive_rate", "true_positive_rate")
PR_AXES = ("recall", "precision")
PAIRED_METRICS = ("accuracy", "balanced_accuracy", "auroc", "nll", "ece")


@dataclass(frozen=True)
class ValidationFit:
    """Temperatures and thresholds of the validation split, applied unchanged to other images."""

    # divisor of each network's logits; NaN without validation images
    temperatures: list[float]
    thresholds: pd.DataFrame  # result of ``operating.thresholds``


@dataclass(frozen=True)
class Assessment:
    """The evaluation of all replicates of a run on one set of images: metrics, curves, tables.

    It keeps two intervals apart: the bootstrap interval over patients, and the interval over seeds.
    """

    settings: Evaluate  # prevalences, costs and subgroups
    classes: list[str]  # class names in the order of their codes
    # numbers of images and groups by split; external images have the split ``test`` alone
    counts: dict[str, dict[str, int]]
    patients: patients.State  # whether the patients of the images are known
    # classes that averages over classes leave out: fewer than ``bootstrap.FEWEST_GROUPS`` groups
    # have an image of them
    not_averaged: list[str]
    # one row for each split and metric: ``mean`` over seeds; ``low, high``, the bootstrap interval
    # of that mean over patients; ``seed_sd, seed_low, seed_high`` over seeds (Student's t); and a
    # column for each seed
    scores: pd.DataFrame
    per_class: pd.DataFrame  # the same columns by class, with ``support``, the number of images
    # images by true class (rows) and predicted class, summed over seeds, int64, shape K,K
    confusion: np.ndarray
    # ``curve, seed, false_positive_rate, true_positive_rate``; the seed is empty for the mean
    roc: pd.DataFrame
    precision_recall: pd.DataFrame  # ``curve, seed, recall, precision``; the seed as in ``roc``
    temperatures: list[float]  # ``ValidationFit.temperatures``
    # result of ``calibration.reliability``; ``calibrated`` is "no" or "yes"
    reliability: pd.DataFrame
    distribution: pd.DataFrame  # result of ``score_distribution``
    operating: pd.DataFrame  # result of ``operating_points``
    decision: pd.DataFrame  # result of ``decision_curve`` for the calibrated probabilities
    # one row for each pair of confused classes, the most frequent first: ``true, predicted,
    # images`` (mean over replicates), ``share`` (of the images of the true class)
    confusions: pd.DataFrame
    subgroups: pd.DataFrame  # result of ``subgroups.subgroups``
    gaps: pd.DataFrame  # result of ``gaps.gaps``: the subgroups at the operating points
    resamples: pd.DataFrame  # ``PAIRED_METRICS`` of each resample, means over seeds
    paired_with: str  # result of ``pairing``


def assess(
    test: Predictions,
    rows: pd.DataFrame,
    classes: list[str],
    seeds: Names,
    validation_fit: ValidationFit,
    settings: Evaluate,
    resamples: int = RESAMPLES,
) -> Assessment:
    """Assess the predictions of a run's replicates for a set of labelled images.

    Args:
        test: predictions of at least one image.
        rows: rows of the index, of the same images in the same order.
        classes: class names in the order of their codes.
        seeds: seeds of the replicates, or their names.
        validation_fit: temperatures and thresholds from the validation split.
        settings: prevalences, costs and subgroups.
        resamples: number of bootstrap resamples.

    Raises:
        MedscaleError: when ``settings.prevalence`` does not fit the classes.
    """
    draw_counts = draws(test, resamples)
    # A class with very few groups has no useful estimate, so averages leave it out.
    class_mask = test.class_mask
    resample_values = metrics.resamples(test, draw_counts, class_mask)
    scores = [split_scores(test, resample_values, seeds, "test", class_mask)]
    calibrated = _at_temperatures(test, validation_fit.temperatures)
    if has_validation := bool(np.isfinite(validation_fit.temperatures).all()):
        scores.append(_calibrated_scores(calibrated, draw_counts, seeds))
    limits, confusion = validation_fit.thresholds, _confusion(test)
    return Assessment(
        settings=settings,
        classes=classes,
        counts={"test": count(test)},
        patients=patients.state(rows.get(patients.PATIENT)),
        not_averaged=[classes[code] for code in np.flatnonzero(~class_mask)],
        scores=pd.concat(scores, ignore_index=True),
        per_class=_per_class(test, resample_values, seeds, classes),
        confusion=confusion,
        roc=_curves(test, seeds, classes, metrics.roc_points, ROC_AXES),
        precision_recall=_curves(test, seeds, classes, metrics.precision_recall_points, PR_AXES),
        temperatures=validation_fit.temperatures,
        reliability=_reliability(test, calibrated if has_validation else None),
        distribution=score_distribution(test, classes),
        operating=operating_points(test, limits, classes, settings, draw_counts),
        decision=decision_curve(calibrated, classes, settings, draw_counts),
        confusions=_confusions(confusion, classes, len(seeds)),
        subgroups=subgroups(test, rows, settings, draw_counts, resample_values),
        gaps=gaps(test, rows, limits, classes, settings, draw_counts),
        resamples=_paired_metrics(resample_values),
        paired_with=pairing(test, resamples),
    )


def _paired_metrics(resample_values: list[bootstrap.ResampleMetrics]) -> pd.DataFrame:
    """Return ``PAIRED_METRICS`` of each resample, means over replicates: R rows."""
    return pd.DataFrame(
        {
            name: np.mean([values.overall[name] for values in resample_values], axis=0)
            for name in PAIRED_METRICS
        }
    )


def count(predictions: Predictions) -> dict[str, int]:
    """Return the numbers of images and groups of a set of images."""
    return {"images": len(np.unique(predictions.ids)), "groups": len(np.unique(predictions.groups))}


def draws(predictions: Predictions, resamples: int) -> np.ndarray:
    """Return how often each of G groups is drawn in each of R bootstrap resamples.

    The result is int64, shape R,G. A group is a patient or a cluster of near-duplicates. The draws
    are the same for every run of a study, so that runs can be compared in pairs.
    """
    return bootstrap.draw(int(predictions.groups.max()) + 1, resamples, SEED)


def pairing(test: Predictions, resamples: int) -> str:
    """Return a digest of test images, groups and resampling.

    Runs with equal digests can be compared in pairs. With folds, the digest covers the fold that
    tests each image.
    """
    columns = [test.ids.tolist(), test.groups.tolist(), test.labels.tolist()]
    folds = [] if test.folds is None else [test.folds.tolist()]
    return digest([*columns, resamples, SEED, *folds])


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Return ``mean, sd`` and Student's t interval ``low, high`` of the mean over replicates.

    With a single replicate, all values but the mean are NaN.
    """
    array = np.asarray(values, dtype=np.float64)
    count = len(array)
    mean = float(array.mean())
    if count < 2:
        return {"mean": mean, "sd": math.nan, "low": math.nan, "high": math.nan}
    sd = float(array.std(ddof=1))
    half = float(stats.t.ppf((1 + bootstrap.LEVEL) / 2, count - 1)) * sd / math.sqrt(count)
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def row(values: list[float], ends: tuple[float, float], seeds: Names) -> dict[str, float]:
    """Return the values of one row of metrics.csv.

    Args:
        values: the metric of each seed.
        ends: interval of their mean over patients.
        seeds: seeds of the replicates, or their names.
    """
    spread = over_seeds(values)
    line = {"mean": spread["mean"], "low": ends[0], "high": ends[1]}
    line |= {f"seed_{name}": spread[name] for name in ("sd", "low", "high")}
    return line | {f"seed_{seed}_value": value for seed, value in zip(seeds, values, strict=True)}


def score_rows(
    points: Sequence[Mapping[str, float]],
    seeds: Names,
    split: str,
    names: Mapping[str, str],
    interval: Callable[[str], tuple[float, float]],
) -> pd.DataFrame:
    """Return the rows of metrics.csv of a split.

    Args:
        points: metrics of each seed.
        seeds: seeds of the replicates, or their names.
        split: name of the split.
        names: name in metrics.csv, by metric.
        interval: function of a metric that returns the interval of its mean over seeds.
    """
    rows = []
    for name, printed_name in names.items():
        line = row([point[name] for point in points], interval(name), seeds)
        rows.append({"split": split, "metric": printed_name} | line)
    return pd.DataFrame(rows)


def _at_temperatures(predictions: Predictions, temperatures: Sequence[float]) -> Predictions:
    """Return the predictions with each network's probabilities at its own temperature."""
    by_row = predictions.by_row(temperatures)
    calibrated = [
        calibration.apply_temperature(probabilities, temperature)
        for probabilities, temperature in zip(predictions.probabilities, by_row, strict=True)
    ]
    return replace(predictions, probabilities=np.stack(calibrated))


def split_scores(
    predictions: Predictions,
    resample_values: list[bootstrap.ResampleMetrics],
    seeds: Names,
    split: str,
    class_mask: np.ndarray | None,
) -> pd.DataFrame:
    """Return the rows of metrics.csv of a split, from results of ``metrics.resamples``."""
    points = metrics.points(predictions, class_mask)
    names = {name: name for name in metrics.names(predictions.probabilities.shape[2])}
    overall = [values.overall for values in resample_values]
    return score_rows(
        points,
        seeds,
        split,
        names,
        lambda name: metrics.interval(name, predictions, points, overall, class_mask),
    )


def _calibrated_scores(
    calibrated: Predictions, draw_counts: np.ndarray, seeds: Names
) -> pd.DataFrame:
    """Return rows ``<metric>_calibrated`` of the test split at the fitted temperatures."""
    labels, groups = calibrated.labels, calibrated.groups
    points = [
        calibration.point(labels, probabilities) for probabilities in calibrated.probabilities
    ]
    resample_values = [
        calibration.resample(labels, probabilities, groups, draw_counts)
        for probabilities in calibrated.probabilities
    ]
    names = {name: f"{name}_calibrated" for name in calibration.NAMES}
    return score_rows(
        points,
        seeds,
        "test",
        names,
        lambda name: metrics.interval(name, calibrated, points, resample_values, None),
    )


def _reliability(test: Predictions, calibrated: Predictions | None) -> pd.DataFrame:
    parts = [("no", test), *([("yes", calibrated)] if calibrated is not None else [])]
    tables = [
        calibration.reliability(part.labels, part.probabilities).assign(calibrated=name)
        for name, part in parts
    ]
    return pd.concat(tables, ignore_index=True)


def _per_class(
    predictions: Predictions,
    resample_values: list[bootstrap.ResampleMetrics],
    seeds: Names,
    classes: list[str],
) -> pd.DataFrame:
    points = [
        metrics.per_class(predictions.labels, probabilities)
        for probabilities in predictions.probabilities
    ]
    support = np.bincount(predictions.labels, minlength=len(classes))
    rows = []
    for code, label in enumerate(classes):
        is_class = predictions.labels == code
        sides = [len(np.unique(predictions.groups[side])) for side in (is_class, ~is_class)]
        patients = min(sides)
        for name in metrics.PER_CLASS:
            values = [float(point[name][code]) for point in points]
            mean = np.mean([r.by_class[name][:, code] for r in resample_values], axis=0)
            line = row(values, bootstrap.score_interval(mean, patients), seeds)
            rows.append({"class": label, "support": int(support[code]), "metric": name, **line})
    return pd.DataFrame(rows)


def _confusion(predictions: Predictions) -> np.ndarray:
    classes = predictions.probabilities.shape[2]
    cells = predictions.labels[None] * classes + predictions.probabilities.argmax(axis=2)
    return np.bincount(cells.ravel(), minlength=classes * classes).reshape(classes, classes)


def _confusions(counts: np.ndarray, classes: list[str], replicates: int) -> pd.DataFrame:
    """Return ``Assessment.confusions`` from the confusion matrix (K,K) of all replicates."""
    errors = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-errors.ravel(), kind="stable")[: np.count_nonzero(errors)]
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
    predictions: Predictions,
    seeds: Names,
    classes: list[str],
    points: Callable[[np.ndarray, np.ndarray], np.ndarray | None],
    axes: tuple[str, str],
) -> pd.DataFrame:
    """Return the curves of each class (of two classes: of the last) by seed, and their means.

    With more than two classes, a micro and a macro average follow.

    Args:
        predictions: predictions of N images.
        seeds: seeds of the replicates, or their names.
        classes: class names in the order of their codes.
        points: function of truth and scores that returns the curve at ``metrics.GRID``, or None.
        axes: names of the columns for ``metrics.GRID`` and for the curve.
    """
    truth = np.eye(len(classes), dtype=bool)[predictions.labels]
    codes = positive_classes(classes)
    rows: dict[tuple[str, str], np.ndarray] = {}
    for seed, probabilities in zip(seeds, predictions.probabilities, strict=True):
        curves = {classes[c]: points(truth[:, c], probabilities[:, c]) for c in codes}
        if len(codes) > 1:
            defined = [curve for curve in curves.values() if curve is not None]
            curves["macro average"] = np.mean(defined, axis=0) if defined else None
            curves["micro average"] = points(truth.ravel(), probabilities.ravel())
        rows |= {(name, str(seed)): curve for name, curve in curves.items() if curve is not None}
    for name in dict.fromkeys(name for name, _ in rows):
        curves_of_seeds = [curve for (curve_name, _), curve in rows.items() if curve_name == name]
        rows[name, ""] = np.mean(curves_of_seeds, axis=0)
    columns = ["curve", "seed", *axes]
    parts = [
        pd.DataFrame(dict(zip(columns, (name, seed, metrics.GRID, curve), strict=True)))
        for (name, seed), curve in rows.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
