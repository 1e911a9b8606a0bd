"""Evaluation of one detection run: its boxes against those of the index, by patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import digest
from medscale.data import patients
from medscale.data.boxes import SIDES, relative
from medscale.data.index_file import read_index
from medscale.evaluate import bootstrap, boxes
from medscale.evaluate.assessment import RESAMPLES, SEED, score_rows
from medscale.evaluate.boxes import BoxMatches
from medscale.evaluate.evaluation import learning_curves
from medscale.evaluate.replicates import (
    PREDICTED_SPLITS,
    Replicate,
    digests,
    group_codes,
    read,
    same_run,
)


@dataclass(frozen=True)
class Localization:
    """Metrics, curves and times of a detection run's replicates."""

    replicates: list[Replicate]  # the run folders
    # by split, the numbers of images, groups, true boxes, and images with a box
    counts: dict[str, dict[str, int]]
    patients: patients.State  # whether the patients of the images are known
    # smallest confidence of a box that counts, for each seed: the one with the best score of the
    # challenge on the validation split
    thresholds: list[float]
    scores: pd.DataFrame  # ``boxes.NAMES``, in the form of ``Evaluation.scores``
    curves: pd.DataFrame  # in the form of ``Evaluation.curves``, without accuracies
    # ``seed, recall, precision`` of the test split at IoU 0.5; the seed is empty for the mean
    precision_recall: pd.DataFrame
    resamples: pd.DataFrame  # metrics of each resample of the test split, means over seeds
    paired_with: str  # digest of test images, true boxes, groups and resampling
    # true boxes of the test split: ``id, x, y, width, height``, as shares of the image
    true: pd.DataFrame
    # boxes of the first seed in the test split that count, with ``confidence``
    predicted: pd.DataFrame
    inputs: dict[str, Any]  # digests of the evaluated files


@dataclass(frozen=True)
class _Split:
    """The images of a split in the order of their ids."""

    ids: np.ndarray  # row ids of the index, int64, shape N
    groups: np.ndarray  # group codes, int64, shape N
    true: pd.DataFrame  # true boxes
    matches: list[BoxMatches]  # matched boxes of each replicate


def localize(
    folders: Sequence[str | Path], index: str | Path, resamples: int = RESAMPLES
) -> Localization:
    """Evaluate the replicates of a detection run on all images of each split, with boxes or not.

    Args:
        folders: run folders of the replicates.
        index: path of the study's index.parquet, with the column ``boxes``.
        resamples: number of bootstrap resamples.

    Raises:
        MedscaleError: when the folders are not replicates of one run, the predictions do not fit
            the index, or a split has no true boxes.
    """
    replicates = [read(folder) for folder in folders]
    same_run(replicates)
    table = read_index(index)
    true = relative(table, index)
    parts = {split: _split(replicates, table, true, split, index) for split in PREDICTED_SPLITS}
    seeds = [replicate.plan.seed for replicate in replicates]
    thresholds = [boxes.best_threshold(matches) for matches in parts["val"].matches]
    values = {split: _metric_values(part, thresholds, resamples) for split, part in parts.items()}
    test, first = parts["test"], replicates[0].predictions
    counted_boxes = first[(first["split"] == "test") & (first["confidence"] >= thresholds[0])]
    true_boxes = test.true.to_numpy().tolist()
    return Localization(
        replicates=replicates,
        counts={split: _counts(part) for split, part in parts.items()},
        patients=patients.state(table.get(patients.PATIENT)),
        thresholds=thresholds,
        scores=pd.concat(
            [_scores(values[split], seeds, split, part) for split, part in parts.items()],
            ignore_index=True,
        ),
        curves=learning_curves(replicates),
        precision_recall=_precision_recall(test, seeds),
        resamples=pd.DataFrame(
            {name: np.mean([v[name][1:] for v in values["test"]], axis=0) for name in boxes.NAMES}
        ),
        paired_with=digest([test.ids.tolist(), test.groups.tolist(), true_boxes, resamples, SEED]),
        true=test.true.reset_index(drop=True),
        predicted=counted_boxes.drop(columns="split").reset_index(drop=True),
        inputs=digests(replicates, index),
    )


def _split(
    replicates: Sequence[Replicate],
    index: pd.DataFrame,
    true: pd.DataFrame,
    split: str,
    index_path: str | Path,
) -> _Split:
    rows = index[index["split"] == split].sort_values("id")
    ids = rows["id"].to_numpy(np.int64)
    true_boxes = true[true["id"].isin(ids)]
    if true_boxes.empty:
        raise MedscaleError(
            f"{index_path}: no image of the split {split} has a box, so detection cannot be "
            "evaluated on it"
        )
    return _Split(
        ids,
        group_codes(rows),
        true_boxes,
        [_match_boxes(replicate, ids, true_boxes, split) for replicate in replicates],
    )


def _match_boxes(
    replicate: Replicate, ids: np.ndarray, true: pd.DataFrame, split: str
) -> BoxMatches:
    predicted = _predictions(replicate, ids, split)
    positions = pd.Index(ids)
    hits = np.zeros((len(predicted), len(boxes.LIMITS)), bool)
    image, sides = predicted["id"].to_numpy(np.int64), predicted[SIDES].to_numpy()
    for number, part in true.groupby("id"):
        rows = np.flatnonzero(image == number)  # keeps the order: most confident first
        hits[rows] = boxes.hits(sides[rows], part[SIDES].to_numpy())
    return BoxMatches(
        truth=np.bincount(positions.get_indexer(true["id"]), minlength=len(ids)),
        image=positions.get_indexer(predicted["id"]),
        confidence=predicted["confidence"].to_numpy(np.float64),
        hits=hits,
    )


def _predictions(replicate: Replicate, ids: np.ndarray, split: str) -> pd.DataFrame:
    """Return the predicted boxes of a split, most confident first, after checks."""
    path, table = replicate.folder / "predictions.parquet", replicate.predictions
    if missing := sorted({"id", "split", "confidence", *SIDES} - set(table.columns)):
        raise MedscaleError(
            f"{path} has no column {', '.join(missing)}, so it is not from a detection run; train "
            "it again"
        )
    rows = table[table["split"] == split].sort_values(
        "confidence", ascending=False, kind="stable", ignore_index=True
    )
    values = rows[[*SIDES, "confidence"]].to_numpy(np.float64)
    is_invalid = (
        ~np.isfinite(values).all(axis=1) | (values < 0).any(axis=1) | (values > 1).any(axis=1)
    )
    is_invalid |= (values[:, 2:4] <= 0).any(axis=1) | ~rows["id"].isin(ids).to_numpy()
    if is_invalid.any():
        raise MedscaleError(
            f"{path}: {int(is_invalid.sum())} boxes of {split} belong to no image of that split, "
            "have no area or lie outside [0, 1] (first: id "
            f"{rows['id'][int(is_invalid.argmax())]}); train this run again"
        )
    return rows


def _metric_values(
    part: _Split, thresholds: list[float], resamples: int
) -> list[dict[str, np.ndarray]]:
    """Return each replicate's metrics, shape 1+R: of the original images, then of R resamples."""
    draw_counts = bootstrap.draw(int(part.groups.max()) + 1, resamples, SEED)[:, part.groups]
    weights = np.vstack([np.ones((1, len(part.ids)), np.int64), draw_counts])
    return [
        boxes.evaluate(matches, threshold, weights)
        for matches, threshold in zip(part.matches, thresholds, strict=True)
    ]


def _scores(
    values: list[dict[str, np.ndarray]], seeds: list[int], split: str, part: _Split
) -> pd.DataFrame:
    points = [{name: float(v[0]) for name, v in seed_values.items()} for seed_values in values]
    resample_values = [{name: v[1:] for name, v in seed_values.items()} for seed_values in values]
    names = {name: name for name in boxes.NAMES}
    patients = len(np.unique(part.groups[part.matches[0].truth > 0]))
    return score_rows(
        points,
        seeds,
        split,
        names,
        lambda name: bootstrap.score_interval(
            np.mean([seed_values[name] for seed_values in resample_values], axis=0), patients
        ),
    )


def _counts(part: _Split) -> dict[str, int]:
    return {
        "images": len(part.ids),
        "groups": len(np.unique(part.groups)),
        "boxes": len(part.true),
        "with_boxes": int(part.true["id"].nunique()),
    }


def _precision_recall(part: _Split, seeds: list[int]) -> pd.DataFrame:
    once = np.ones((1, len(part.ids)), np.int64)
    curves = [boxes.precisions(matches, once)[0] for matches in part.matches]
    labelled_curves = [*zip(map(str, seeds), curves, strict=True), ("", np.mean(curves, axis=0))]
    parts = [
        pd.DataFrame({"seed": seed, "recall": boxes.RECALLS, "precision": curve})
        for seed, curve in labelled_curves
    ]
    return pd.concat(parts, ignore_index=True)
