"""Evaluation of one classification run: metrics over its replicates, and its figures' data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from medscale.base.errors import MedscaleError
from medscale.base.files import digest
from medscale.config.sections import Evaluate
from medscale.data import patients
from medscale.evaluate import bootstrap, calibration, metrics
from medscale.evaluate.operating import operating_points
from medscale.evaluate.replicates import (
    SPLITS,
    Predicted,
    Replicate,
    digests,
    read,
    read_index,
    same_run,
    together,
)
from medscale.evaluate.subgroups import subgroups

RESAMPLES = 1000
SEED = 20170
PAIRED = ("accuracy", "balanced_accuracy", "auroc", "nll", "ece")


@dataclass(frozen=True)
class Evaluation:
    """Metrics, curves and clocks of a run's replicates.

    Two intervals are kept apart: that of the bootstrap over patients, and that over seeds.
    """

    replicates: list[Replicate]  # the run folders
    classes: list[str]  # class names in the order of their codes
    counts: dict[str, dict[str, int]]  # by split, the numbers of images and groups
    patients: patients.State  # whether the patients of the images are known
    # classes that the test split's averages over classes leave out, since it has fewer than
    # ``bootstrap.FEWEST_GROUPS`` groups of them
    not_averaged: list[str]
    # a row for each split and metric: ``mean`` over seeds with the bootstrap interval ``low, high``
    # of that mean (patients are drawn), and ``seed_sd, seed_low, seed_high`` over seeds (Student's
    # t); then a column for each seed
    scores: pd.DataFrame
    per_class: pd.DataFrame  # the same for the classes of the test split, with ``support`` (images)
    # counts of the test split summed over seeds, int64, shape K,K; rows are the truth
    confusion: np.ndarray
    # ``curve, seed, false_positive_rate, true_positive_rate`` of the test split; the seed is empty
    # for the mean
    roc: pd.DataFrame
    precision_recall: pd.DataFrame  # ``curve, seed, recall, precision`` of the test split, likewise
    # by seed, fitted on the validation split; NaN without validation images
    temperatures: list[float]
    # ``calibration.reliability`` of the test split, with ``calibrated`` no and yes
    reliability: pd.DataFrame
    operating: pd.DataFrame  # ``operating_points`` of the test split
    # a row for each confused pair of classes of the test split, most frequent first: ``true,
    # predicted, images`` (mean over replicates), ``share`` (of the true class)
    confusions: pd.DataFrame
    subgroups: pd.DataFrame  # ``subgroups`` of the test split
    curves: pd.DataFrame  # ``learning_curves`` of the replicates
    # the metrics ``PAIRED`` of each resample of the test split, mean over seeds
    resamples: pd.DataFrame
    # digest of test images, groups and resampling; runs with equal digests can be compared in pairs
    paired_with: str
    inputs: dict[str, Any]  # digests of the files that were read


def evaluate(
    folders: Sequence[str | Path],
    index: str | Path,
    settings: Evaluate | None = None,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Evaluate the replicates of a run.

    ``settings``: operating points and subgroups; None takes the defaults of the section. Raises
    MedscaleError when the folders are not replicates of one run, the predictions do not fit the
    index, or the test split is empty.
    """
    settings = settings or Evaluate()
    replicates = [read(folder) for folder in folders]
    same_run(replicates)
    table = read_index(index)
    classes = [str(name) for name in table["label"].cat.categories]
    seeds = [replicate.plan.seed for replicate in replicates]
    predicted = {split: together(replicates, table, split) for split in SPLITS}
    val, test = predicted["val"], predicted["test"]
    if not len(test.ids):
        raise MedscaleError(f"{index}: no image is in the test split, so nothing can be evaluated")
    drawn = {split: draws(part, resamples) for split, part in predicted.items() if len(part.ids)}
    # Averages of the test split leave out classes for which nothing can be estimated.
    averaged = bootstrap.averaged_classes(test.labels, test.groups, len(classes))
    takes_part = {"test": averaged}
    resampled = {
        split: _resample(predicted[split], counts, takes_part.get(split))
        for split, counts in drawn.items()
    }
    temperatures = [calibration.temperature(val.labels, odds) for odds in val.probabilities]
    calibrated = _tempered(test, temperatures)
    scores = [_scores(predicted[s], r, seeds, s, takes_part.get(s)) for s, r in resampled.items()]
    if len(val.ids):
        scores.append(_calibrated(calibrated, drawn["test"], seeds))
    rows = table[table["split"] == "test"].sort_values("id")
    confusion = _confusion(test)
    roc_axes = ("false_positive_rate", "true_positive_rate")
    pr_axes = ("recall", "precision")
    return Evaluation(
        replicates=replicates,
        classes=classes,
        counts={
            s: {"images": len(p.ids), "groups": len(np.unique(p.groups))}
            for s, p in predicted.items()
        },
        patients=patients.state(table.get(patients.PATIENT)),
        not_averaged=[name for name, kept in zip(classes, averaged, strict=True) if not kept],
        scores=pd.concat(scores, ignore_index=True),
        per_class=_per_class(test, resampled["test"], seeds, classes),
        confusion=confusion,
        roc=_curves(test, seeds, classes, metrics.roc_points, roc_axes),
        precision_recall=_curves(test, seeds, classes, metrics.precision_recall_points, pr_axes),
        temperatures=temperatures,
        reliability=_reliability(test, calibrated if len(val.ids) else None),
        operating=operating_points(val, test, classes, settings.specificities, drawn["test"]),
        confusions=_confusions(confusion, classes, len(seeds)),
        subgroups=subgroups(test, rows, settings, drawn["test"], resampled["test"]),
        curves=learning_curves(replicates),
        resamples=pd.DataFrame(
            {name: np.mean([r.overall[name] for r in resampled["test"]], axis=0) for name in PAIRED}
        ),
        paired_with=pairing(test, resamples),
        inputs=digests(replicates, index),
    )


def draws(predicted: Predicted, resamples: int) -> np.ndarray:
    """Draw the resamples of a split's patients, int64, shape R,G.

    They are the same for every run of a study, so that runs can be compared in pairs.
    """
    return bootstrap.draw(int(predicted.groups.max()) + 1, resamples, SEED)


def pairing(test: Predicted, resamples: int) -> str:
    """Return the digest of test images, groups and resampling: equal ones can be paired."""
    return digest([test.ids.tolist(), test.groups.tolist(), test.labels.tolist(), resamples, SEED])


def over_seeds(values: Sequence[float], level: float = bootstrap.LEVEL) -> dict[str, float]:
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


def row(values: list[float], resampled: list[np.ndarray], seeds: list[int]) -> dict[str, float]:
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
    seeds: list[int],
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


def learning_curves(replicates: list[Replicate]) -> pd.DataFrame:
    """Return the course of training: ``quantity, epoch, mean, low, high, replicates``.

    ``low`` and ``high`` are the range over replicates.
    """
    columns = ["train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr", "seconds"]
    history = pd.concat([replicate.history for replicate in replicates], ignore_index=True)
    long = history.melt(id_vars="epoch", value_vars=columns, var_name="quantity")
    grouped = long.groupby(["quantity", "epoch"], sort=True)["value"]
    return grouped.agg(mean="mean", low="min", high="max", replicates="count").reset_index()


def _tempered(predicted: Predicted, temperatures: Sequence[float]) -> Predicted:
    """Return the predictions with each replicate's probabilities at its own temperature."""
    pairs = zip(predicted.probabilities, temperatures, strict=True)
    tempered = np.stack([calibration.tempered(odds, by) for odds, by in pairs])
    return replace(predicted, probabilities=tempered)


def _resample(
    predicted: Predicted, drawn: np.ndarray, averaged: np.ndarray | None
) -> list[bootstrap.Resampled]:
    """Return the metrics on every resample, by replicate; the resamples are equal for all."""
    return [
        bootstrap.resample(predicted.labels, odds, predicted.groups, drawn, averaged=averaged)
        for odds in predicted.probabilities
    ]


def _scores(
    predicted: Predicted,
    resampled: list[bootstrap.Resampled],
    seeds: list[int],
    split: str,
    averaged: np.ndarray | None,
) -> pd.DataFrame:
    points = [metrics.point(predicted.labels, odds, averaged) for odds in predicted.probabilities]
    names = {name: name for name in metrics.names(predicted.probabilities.shape[2])}
    return score_rows(points, [r.overall for r in resampled], seeds, split, names)


def _calibrated(calibrated: Predicted, drawn: np.ndarray, seeds: list[int]) -> pd.DataFrame:
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
    predicted: Predicted, resampled: list[bootstrap.Resampled], seeds: list[int], classes: list[str]
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
    """Return ``Evaluation.confusions`` from the confusion matrix (K,K) of all replicates."""
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
    seeds: list[int],
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
