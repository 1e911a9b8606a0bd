"""One run evaluated: metrics of its replicates with two intervals kept apart, and the data behind its figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from medscale.errors import MedscaleError
from medscale.evaluate import bootstrap, metrics
from medscale.evaluate.replicates import SPLITS, Predicted, Replicate, digests, read, read_index, same_run, together
from medscale.files import digest

RESAMPLES = 1000
SEED = 20170
PAIRED = ("accuracy", "balanced_accuracy", "auroc")


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
    curves: pd.DataFrame
    resamples: pd.DataFrame
    paired_with: str
    inputs: dict[str, Any]


def evaluate(folders: Sequence[str | Path], index: str | Path, resamples: int = RESAMPLES) -> Evaluation:
    """Evaluate the replicates of a run.

    Args:
        folders: run folders, one a seed.
        index: the study's index.parquet.
        resamples: bootstrap resamples.

    Raises:
        MedscaleError: when folders are not replicates of one run, or predictions do not fit the index.
    """
    replicates = [read(folder) for folder in folders]
    same_run(replicates)
    table = read_index(index)
    classes = [str(name) for name in table["label"].cat.categories]
    seeds = [replicate.plan.seed for replicate in replicates]
    predicted = {split: together(replicates, table, split) for split in SPLITS}
    if not len(predicted["test"].ids):
        raise MedscaleError(f"{index}: no image is in the test split, so nothing can be evaluated")
    resampled = {split: _resample(part, resamples) for split, part in predicted.items() if len(part.ids)}
    of_test = resampled["test"]
    return Evaluation(
        replicates=replicates,
        classes=classes,
        counts={s: {"images": len(p.ids), "groups": len(np.unique(p.groups))} for s, p in predicted.items()},
        scores=pd.concat([_scores(predicted[s], r, seeds, s) for s, r in resampled.items()], ignore_index=True),
        per_class=_per_class(predicted["test"], of_test, seeds, classes),
        confusion=_confusion(predicted["test"]),
        roc=_roc(predicted["test"], seeds, classes),
        curves=learning_curves(replicates),
        resamples=pd.DataFrame({name: over_replicates([r.overall[name] for r in of_test]) for name in PAIRED}),
        paired_with=_identity(predicted["test"], resamples),
        inputs=digests(replicates, index),
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


def _resample(predicted: Predicted, resamples: int) -> list[bootstrap.Resampled]:
    """The same resamples for every seed."""
    drawn = bootstrap.draw(int(predicted.groups.max()) + 1, resamples, SEED)
    labels, groups = predicted.labels, predicted.groups
    return [bootstrap.resample(labels, probabilities, groups, drawn) for probabilities in predicted.probabilities]


def _identity(predicted: Predicted, resamples: int) -> str:
    return digest([predicted.ids.tolist(), predicted.groups.tolist(), predicted.labels.tolist(), resamples, SEED])


def row(values: list[float], resampled: list[np.ndarray], seeds: list[int]) -> dict[str, float]:
    """One line of metrics.csv: ``values`` a seed, with the intervals over patients and over seeds."""
    spread = over_seeds(values)
    low, high = bootstrap.interval(over_replicates(resampled))
    line = {"mean": spread["mean"], "low": low, "high": high}
    line |= {f"seed_{name}": spread[name] for name in ("sd", "low", "high")}
    return line | {f"seed_{seed}_value": value for seed, value in zip(seeds, values, strict=True)}


def _scores(predicted: Predicted, resampled: list[bootstrap.Resampled], seeds: list[int], split: str) -> pd.DataFrame:
    points = [metrics.point(predicted.labels, probabilities) for probabilities in predicted.probabilities]
    rows = []
    for name in metrics.names(predicted.probabilities.shape[2]):
        values = row([p[name] for p in points], [r.overall[name] for r in resampled], seeds)
        rows.append({"split": split, "metric": name, **values})
    return pd.DataFrame(rows)


def _per_class(
    predicted: Predicted, resampled: list[bootstrap.Resampled], seeds: list[int], classes: list[str]
) -> pd.DataFrame:
    points = [metrics.per_class(predicted.labels, probabilities) for probabilities in predicted.probabilities]
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


def _roc(predicted: Predicted, seeds: list[int], classes: list[str]) -> pd.DataFrame:
    """Curves of each class (two classes: the last), and for more than two their micro and macro average."""
    truth = np.eye(len(classes), dtype=bool)[predicted.labels]
    codes = [1] if len(classes) == 2 else list(range(len(classes)))
    rows: dict[tuple[str, str], np.ndarray] = {}
    for seed, probabilities in zip(seeds, predicted.probabilities, strict=True):
        curves = {classes[c]: metrics.roc_points(truth[:, c], probabilities[:, c]) for c in codes}
        if len(codes) > 1:
            there = [curve for curve in curves.values() if curve is not None]
            curves["macro average"] = np.mean(there, axis=0) if there else None
            curves["micro average"] = metrics.roc_points(truth.ravel(), probabilities.ravel())
        rows |= {(name, str(seed)): curve for name, curve in curves.items() if curve is not None}
    for name in dict.fromkeys(name for name, _ in rows):
        rows[name, ""] = np.mean([curve for (other, _), curve in rows.items() if other == name], axis=0)
    columns = ["curve", "seed", "false_positive_rate", "true_positive_rate"]
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
