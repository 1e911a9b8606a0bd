"""Evaluation of one classification run: metrics over its replicates, and its figures' data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.config.sections import Evaluate
from medscale.data import patients
from medscale.data.folds import test_to_train
from medscale.data.index_file import read_index
from medscale.evaluate import calibration, metrics
from medscale.evaluate.assessment import (
    RESAMPLES,
    Assessment,
    ValidationFit,
    assess,
    count,
    draws,
    split_scores,
)
from medscale.evaluate.by_fold import Folds, by_fold
from medscale.evaluate.operating import thresholds
from medscale.evaluate.replicates import (
    Predictions,
    Replicate,
    digests,
    join_predictions,
    read,
    same_run,
    test_rows,
)


@dataclass(frozen=True)
class Evaluation(Assessment):
    """The assessment of a run's test split, with validation scores and learning curves."""

    replicates: list[Replicate]  # the run folders
    curves: pd.DataFrame  # result of ``learning_curves``
    folds: Folds | None  # scores of each fold; None without folds
    inputs: dict[str, Any]  # digests of the evaluated files


def evaluate(
    folders: Sequence[str | Path],
    index: str | Path,
    settings: Evaluate | None = None,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Evaluate the replicates of a run.

    With folds, all images of the study are test images, each with its out-of-fold prediction (see
    ``Predictions``). Each network has its own temperature and thresholds, from the validation
    images of its fold. The intervals of the pooled scores are over patients; ``by_fold`` explains
    their limits.

    Args:
        folders: run folders of the replicates.
        index: path of the study's index.parquet.
        settings: operating points and subgroups; None: the defaults of the section.
        resamples: number of bootstrap resamples.

    Raises:
        MedscaleError: when the folders are not replicates of one run, the predictions do not fit
            the index, or the test split is empty.
    """
    settings = settings or Evaluate()
    replicates = [read(folder) for folder in folders]
    same_run(replicates)
    table = read_index(index)
    classes = [str(name) for name in table["label"].cat.categories]
    seeds = list(dict.fromkeys(replicate.plan.seed for replicate in replicates))
    val, test = (join_predictions(replicates, table, split) for split in ("val", "test"))
    if not len(test.ids):
        raise MedscaleError(f"{index}: no image is in the test split, so nothing can be evaluated")
    validation_fit = _fit(val, classes, settings)
    assessment = assess(test, test_rows(table), classes, seeds, validation_fit, settings, resamples)
    content = vars(assessment) | {
        "patients": patients.state(table.get(patients.PATIENT)),
        "counts": {"val": count(val)} | assessment.counts,
    }
    if len(val.ids):
        resample_values = metrics.resamples(val, draws(val, resamples))
        scores = [split_scores(val, resample_values, seeds, "val", None), assessment.scores]
        content["scores"] = pd.concat(scores, ignore_index=True)
    folds = None
    if test.folds is not None:
        folds = by_fold(test, seeds, resamples, test_to_train(table))
    return Evaluation(
        **content,
        replicates=replicates,
        curves=learning_curves(replicates),
        folds=folds,
        inputs=digests(replicates, index),
    )


def _fit(val: Predictions, classes: list[str], settings: Evaluate) -> ValidationFit:
    """Fit the temperature of each network and the thresholds to the validation split."""
    temperatures = [
        calibration.temperature(labels, probabilities) for labels, probabilities in val.networks()
    ]
    return ValidationFit(temperatures, thresholds(val, classes, settings.specificities))


def learning_curves(replicates: list[Replicate]) -> pd.DataFrame:
    """Return the learning curves: ``quantity, epoch, mean, low, high, replicates``.

    ``low`` and ``high`` are the smallest and largest value over replicates, and ``replicates`` is
    their number.
    """
    columns = ["train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr", "seconds"]
    history = pd.concat([replicate.history for replicate in replicates], ignore_index=True)
    long = history.melt(id_vars="epoch", value_vars=columns, var_name="quantity")
    groups = long.groupby(["quantity", "epoch"], sort=True)["value"]
    return groups.agg(mean="mean", low="min", high="max", replicates="count").reset_index()
