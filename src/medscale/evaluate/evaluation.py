"""One run evaluated: metrics of its replicates with two intervals kept apart, and the data behind its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from medscale.base.errors import MedscaleError
from medscale.base.files import digest
from medscale.config.sections import Evaluate
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
    """What predictions and clocks of a run's replicates say.

    Attributes:
        replicates: the run folders that were read.
        classes: class names in the order of their codes.
        counts: by split, the numbers of images and groups.
        scores: a row a split and metric: ``mean`` over seeds with the bootstrap interval ``low, high`` of that mean
            (patients are drawn), and ``seed_sd, seed_low, seed_high`` over seeds (Student's t); then a column a seed.
        per_class: the same for the classes of the test split, with ``support``.
        confusion: counts of the test split summed over seeds, shape K,K, rows are the truth.
        roc: ``curve, seed, false_positive_rate, true_positive_rate`` of the test split; seed is empty for the mean.
        precision_recall: ``curve, seed, recall, precision`` likewise.
        temperatures: a seed, fitted on the validation split; NaN without one.
        reliability: ``calibration.reliability`` of the test split, ``calibrated`` no and yes.
        operating: ``operating_points`` of the test split.
        confusions: ``confusions``, the most frequent ones of the test split first.
        subgroups: ``subgroups`` of the test split.
        curves: a row an epoch and quantity: ``mean, low, high, replicates`` (low and high: range over seeds).
        resamples: the paired metrics of each bootstrap resample of the test split, mean over seeds.
        paired_with: digest of test images, groups and resampling: runs of equal digest can be compared in pairs.
        inputs: digests of what was read.
    """

    replicates: list[Replicate]
    classes: list[str]
    counts: dict[str, dict[str, int]]
    scores: pd.DataFrame
    per_class: pd.DataFrame
    confusion: np.ndarray
    roc: pd.DataFrame
    precision_recall: pd.DataFrame
    temperatures: list[float]
    reliability: pd.DataFrame
    operating: pd.DataFrame
    confusions: pd.DataFrame
    subgroups: pd.DataFrame
    curves: pd.DataFrame
    resamples: pd.DataFrame
    paired_with: str
    inputs: dict[str, Any]


def evaluate(
    folders: Sequence[str | Path],
    index: str | Path,
    settings: Evaluate | None = None,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Evaluate the replicates of a run.

    Args:
        folders: run folders, one a seed.
        index: the study's index.parquet.
        settings: operating points and subgroups that are asked for; None: those of the schema.
        resamples: bootstrap resamples.

    Raises:
        MedscaleError: when folders are not replicates of one run, or predictions do not fit the index.
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
    resampled = {split: _resample(predicted[split], of) for split, of in drawn.items()}
    temperatures = [calibration.temperature(val.labels, odds) for odds in val.probabilities]
    calibrated = replace(test, probabilities=tempered(test.probabilities, temperatures))
    scores = [_scores(predicted[s], r, seeds, s) for s, r in resampled.items()]
    if len(val.ids):
        scores.append(_calibrated(calibrated, drawn["test"], seeds))
    rows = table[table["split"] == "test"].sort_values("id")
    return Evaluation(
        replicates=replicates,
        classes=classes,
        counts={
            s: {"images": len(p.ids), "groups": len(np.unique(p.groups))}
            for s, p in predicted.items()
        },
        scores=pd.concat(scores, ignore_index=True),
        per_class=_per_class(test, resampled["test"], seeds, classes),
        confusion=_confusion(test),
        roc=_curves(
            test, seeds, classes, metrics.roc_points, ("false_positive_rate", "true_positive_rate")
        ),
        precision_recall=_curves(
            test, seeds, classes, metrics.precision_recall_points, ("recall", "precision")
        ),
        temperatures=temperatures,
        reliability=_reliability(test, calibrated if len(val.ids) else None),
        operating=operating_points(val, test, classes, settings.specificities, drawn["test"]),
        confusions=_confusions(_confusion(test), classes, len(seeds)),
        subgroups=subgroups(test, rows, settings, drawn["test"], resampled["test"]),
        curves=learning_curves(replicates),
        resamples=pd.DataFrame(
            {n: over_replicates([r.overall[n] for r in resampled["test"]]) for n in PAIRED}
        ),
        paired_with=_identity(test, resamples),
        inputs=digests(replicates, index),
    )


def draws(predicted: Predicted, resamples: int) -> np.ndarray:
    """The resamples of a split's patients: the same for every run of a study, so that runs can be compared in pairs."""
    return bootstrap.draw(int(predicted.groups.max()) + 1, resamples, SEED)


def tempered(probabilities: np.ndarray, temperatures: Sequence[float]) -> np.ndarray:
    """Probabilities (S,N,K), each replicate's by its own temperature."""
    return np.stack(
        [
            calibration.tempered(odds, by)
            for odds, by in zip(probabilities, temperatures, strict=True)
        ]
    )


def over_seeds(values: Sequence[float], level: float = bootstrap.LEVEL) -> dict[str, float]:
    """Mean, standard deviation and Student's t interval of the mean over replicates; NaN where one is not enough."""
    array = np.asarray(values, dtype=np.float64)
    count = len(array)
    if count < 2:
        return {"mean": float(array.mean()), "sd": math.nan, "low": math.nan, "high": math.nan}
    sd = float(array.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * sd / math.sqrt(count)
    mean = float(array.mean())
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def _resample(predicted: Predicted, drawn: np.ndarray) -> list[bootstrap.Resampled]:
    """The same resamples for every seed."""
    labels, groups = predicted.labels, predicted.groups
    return [
        bootstrap.resample(labels, probabilities, groups, drawn)
        for probabilities in predicted.probabilities
    ]


def _identity(predicted: Predicted, resamples: int) -> str:
    return digest(
        [
            predicted.ids.tolist(),
            predicted.groups.tolist(),
            predicted.labels.tolist(),
            resamples,
            SEED,
        ]
    )


def row(values: list[float], resampled: list[np.ndarray], seeds: list[int]) -> dict[str, float]:
    """One line of metrics.csv: ``values`` a seed, with the intervals over patients and over seeds."""
    spread = over_seeds(values)
    low, high = bootstrap.interval(over_replicates(resampled))
    line = {"mean": spread["mean"], "low": low, "high": high}
    line |= {f"seed_{name}": spread[name] for name in ("sd", "low", "high")}
    return line | {f"seed_{seed}_value": value for seed, value in zip(seeds, values, strict=True)}


def _scores(
    predicted: Predicted, resampled: list[bootstrap.Resampled], seeds: list[int], split: str
) -> pd.DataFrame:
    points = [
        metrics.point(predicted.labels, probabilities) for probabilities in predicted.probabilities
    ]
    rows = []
    for name in metrics.names(predicted.probabilities.shape[2]):
        values = row([p[name] for p in points], [r.overall[name] for r in resampled], seeds)
        rows.append({"split": split, "metric": name, **values})
    return pd.DataFrame(rows)


def _calibrated(calibrated: Predicted, drawn: np.ndarray, seeds: list[int]) -> pd.DataFrame:
    """Rows of the test split with the calibration metrics at the fitted temperatures, ``<metric>_calibrated``."""
    labels, groups = calibrated.labels, calibrated.groups
    points = [calibration.point(labels, odds) for odds in calibrated.probabilities]
    resampled = [
        calibration.resample(labels, odds, groups, drawn) for odds in calibrated.probabilities
    ]
    rows = [
        {"split": "test", "metric": f"{name}_calibrated"}
        | row([p[name] for p in points], [r[name] for r in resampled], seeds)
        for name in calibration.NAMES
    ]
    return pd.DataFrame(rows)


def _reliability(test: Predicted, calibrated: Predicted | None) -> pd.DataFrame:
    parts = [("no", test), *([("yes", calibrated)] if calibrated is not None else [])]
    return pd.concat(
        [
            calibration.reliability(p.labels, p.probabilities).assign(calibrated=name)
            for name, p in parts
        ],
        ignore_index=True,
    )


def _per_class(
    predicted: Predicted, resampled: list[bootstrap.Resampled], seeds: list[int], classes: list[str]
) -> pd.DataFrame:
    points = [
        metrics.per_class(predicted.labels, probabilities)
        for probabilities in predicted.probabilities
    ]
    support = np.bincount(predicted.labels, minlength=len(classes))
    rows = []
    for code, label in enumerate(classes):
        for name in metrics.PER_CLASS:
            values = [float(point[name][code]) for point in points]
            line = row(values, [r.by_class[name][:, code] for r in resampled], seeds)
            rows.append({"class": label, "support": int(support[code]), "metric": name, **line})
    return pd.DataFrame(rows)


def _confusion(predicted: Predicted) -> np.ndarray:
    _, _, classes = predicted.probabilities.shape
    cells = predicted.labels[None] * classes + predicted.probabilities.argmax(axis=2)
    return np.bincount(cells.ravel(), minlength=classes * classes).reshape(classes, classes)


def _confusions(counts: np.ndarray, classes: list[str], replicates: int) -> pd.DataFrame:
    """Pairs of classes that are confused, the most frequent first.

    ``true, predicted, images`` (mean over replicates), ``share`` (of the true class's images).
    """
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
    """Curves of each class (two classes: the last), and for more than two their micro and macro average."""
    truth = np.eye(len(classes), dtype=bool)[predicted.labels]
    codes = [1] if len(classes) == 2 else list(range(len(classes)))
    rows: dict[tuple[str, str], np.ndarray] = {}
    for seed, probabilities in zip(seeds, predicted.probabilities, strict=True):
        curves = {classes[c]: points(truth[:, c], probabilities[:, c]) for c in codes}
        if len(codes) > 1:
            there = [curve for curve in curves.values() if curve is not None]
            curves["macro average"] = np.mean(there, axis=0) if there else None
            curves["micro average"] = points(truth.ravel(), probabilities.ravel())
        rows |= {(name, str(seed)): curve for name, curve in curves.items() if curve is not None}
    for name in dict.fromkeys(name for name, _ in rows):
        rows[name, ""] = np.mean(
            [curve for (other, _), curve in rows.items() if other == name], axis=0
        )
    columns = ["curve", "seed", *axes]
    parts = [
        pd.DataFrame(dict(zip(columns, (name, seed, metrics.GRID, curve), strict=True)))
        for (name, seed), curve in rows.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def learning_curves(replicates: list[Replicate]) -> pd.DataFrame:
    """Range and mean over replicates by epoch: ``quantity, epoch, mean, low, high, replicates``."""
    columns = ["train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr", "seconds"]
    history = pd.concat([replicate.history for replicate in replicates], ignore_index=True)
    long = history.melt(id_vars="epoch", value_vars=columns, var_name="quantity")
    grouped = long.groupby(["quantity", "epoch"], sort=True)["value"]
    return grouped.agg(mean="mean", low="min", high="max", replicates="count").reset_index()


def over_replicates(parts: list[np.ndarray]) -> np.ndarray:
    """Mean of the replicates' values on each resample."""
    return np.mean(parts, axis=0)
