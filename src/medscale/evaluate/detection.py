"""One detection run evaluated: its boxes against the index's, with bootstrap intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import digest
from medscale.data.boxes import SIDES, relative
from medscale.evaluate import bootstrap, boxes
from medscale.evaluate.boxes import Matched
from medscale.evaluate.evaluation import RESAMPLES, SEED, learning_curves, over_replicates, row
from medscale.evaluate.replicates import SPLITS, Replicate, digests, read, read_index, same_run


@dataclass(frozen=True)
class Localization:
    """What the predicted boxes and the clocks of a run's replicates say.

    Attributes:
        replicates: the run folders that were read.
        counts: by split, the numbers of images, groups, true boxes, and images with one.
        thresholds: confidence a seed from which a box counts, chosen by the challenge's score on the validation split.
        scores: metrics as ``Evaluation.scores``, for ``boxes.NAMES``.
        curves: as ``Evaluation.curves``; without accuracies.
        precision_recall: ``seed, recall, precision`` of the test split at IoU 0.5; seed is empty for the mean.
        resamples: the metrics of each bootstrap resample of the test split, mean over seeds.
        paired_with: digest of test images, true boxes, groups and resampling.
        true: boxes of the test split, ``id, x, y, width, height``.
        predicted: the first seed's boxes of the test split that count, with ``confidence``.
        inputs: digests of what was read.
    """

    replicates: list[Replicate]
    counts: dict[str, dict[str, int]]
    thresholds: list[float]
    scores: pd.DataFrame
    curves: pd.DataFrame
    precision_recall: pd.DataFrame
    resamples: pd.DataFrame
    paired_with: str
    true: pd.DataFrame
    predicted: pd.DataFrame
    inputs: dict[str, Any]


@dataclass(frozen=True)
class _Split:
    """A split's images by id: their ids (N), group codes (N) and true boxes, and each replicate's boxes, matched."""

    ids: np.ndarray
    groups: np.ndarray
    true: pd.DataFrame
    matched: list[Matched]


def localize(
    folders: Sequence[str | Path], index: str | Path, resamples: int = RESAMPLES
) -> Localization:
    """Evaluate the replicates of a detection run on all images of each split, those without boxes too.

    Args:
        folders: run folders, one a seed.
        index: the study's index.parquet, with the column ``boxes``.
        resamples: bootstrap resamples.

    Raises:
        MedscaleError: when folders are not replicates of one run, predictions do not fit the index, or a split has
            no boxes to compare with.
    """
    replicates = [read(folder) for folder in folders]
    same_run(replicates)
    table = read_index(index)
    true = relative(table, index)
    parts = {split: _split(replicates, table, true, split, index) for split in SPLITS}
    seeds = [replicate.plan.seed for replicate in replicates]
    thresholds = [boxes.best_threshold(matched) for matched in parts["val"].matched]
    weights = {split: _weights(part, resamples) for split, part in parts.items()}
    scores = {split: _evaluated(part, thresholds, weights[split]) for split, part in parts.items()}
    test, first = parts["test"], replicates[0].predictions
    shown = first[(first["split"] == "test") & (first["confidence"] >= thresholds[0])]
    return Localization(
        replicates=replicates,
        counts={split: _counts(part) for split, part in parts.items()},
        thresholds=thresholds,
        scores=pd.concat(
            [_scores(scores[split], seeds, split) for split in SPLITS], ignore_index=True
        ),
        curves=learning_curves(replicates),
        precision_recall=_precision_recall(test, seeds),
        resamples=pd.DataFrame(
            {name: over_replicates([s[name][1:] for s in scores["test"]]) for name in boxes.NAMES}
        ),
        paired_with=digest(
            [
                test.ids.tolist(),
                test.groups.tolist(),
                test.true.to_numpy().tolist(),
                resamples,
                SEED,
            ]
        ),
        true=test.true.reset_index(drop=True),
        predicted=shown.drop(columns="split").reset_index(drop=True),
        inputs=digests(replicates, index),
    )


def _split(
    replicates: Sequence[Replicate],
    index: pd.DataFrame,
    true: pd.DataFrame,
    split: str,
    where: str | Path,
) -> _Split:
    rows = index[index["split"] == split].sort_values("id")
    ids = rows["id"].to_numpy(np.int64)
    ours = true[true["id"].isin(ids)]
    if ours.empty:
        raise MedscaleError(
            f"{where}: no image of the split {split} has a box, so detection cannot be evaluated on it"
        )
    groups = pd.factorize(rows["group"].astype(str), sort=True)[0].astype(np.int64)
    return _Split(
        ids, groups, ours, [_matched(replicate, ids, ours, split) for replicate in replicates]
    )


def _matched(replicate: Replicate, ids: np.ndarray, true: pd.DataFrame, split: str) -> Matched:
    found = _predictions(replicate, ids, split)
    places = pd.Index(ids)
    of_image = {number: part[SIDES].to_numpy() for number, part in true.groupby("id")}
    hits = np.zeros((len(found), len(boxes.LIMITS)), bool)
    image, sides = found["id"].to_numpy(np.int64), found[SIDES].to_numpy()
    for number, ours in of_image.items():
        at = np.flatnonzero(image == number)  # rows keep their order: most confident first
        hits[at] = boxes.hits(sides[at], ours)
    return Matched(
        truth=np.bincount(places.get_indexer(true["id"]), minlength=len(ids)),
        image=places.get_indexer(found["id"]),
        confidence=found["confidence"].to_numpy(np.float64),
        hits=hits,
    )


def _predictions(replicate: Replicate, ids: np.ndarray, split: str) -> pd.DataFrame:
    """A split's predicted boxes, most confident first, checked."""
    where, table = replicate.folder / "predictions.parquet", replicate.predictions
    if missing := sorted({"id", "split", "confidence", *SIDES} - set(table.columns)):
        raise MedscaleError(
            f"{where} has no column {', '.join(missing)}; it is of no detection run: train it again"
        )
    found = table[table["split"] == split].sort_values(
        "confidence", ascending=False, kind="stable", ignore_index=True
    )
    values = found[[*SIDES, "confidence"]].to_numpy(np.float64)
    bad = ~np.isfinite(values).all(axis=1) | (values < 0).any(axis=1) | (values > 1).any(axis=1)
    bad |= (values[:, 2:4] <= 0).any(axis=1) | ~found["id"].isin(ids).to_numpy()
    if bad.any():
        raise MedscaleError(
            f"{where}: {int(bad.sum())} boxes of {split} are of no image of that split, have no area or lie outside "
            f"[0, 1] (first: id {found['id'][int(bad.argmax())]}); train this run again"
        )
    return found


def _weights(part: _Split, resamples: int) -> np.ndarray:
    """How often each image counts: first each once, then as the groups are drawn; int64, shape 1+R,N."""
    drawn = bootstrap.draw(int(part.groups.max()) + 1, resamples, SEED)[:, part.groups]
    return np.vstack([np.ones((1, len(part.ids)), np.int64), drawn])


def _evaluated(
    part: _Split, thresholds: list[float], weights: np.ndarray
) -> list[dict[str, np.ndarray]]:
    return [
        boxes.evaluate(matched, c, weights)
        for matched, c in zip(part.matched, thresholds, strict=True)
    ]


def _scores(scores: list[dict[str, np.ndarray]], seeds: list[int], split: str) -> pd.DataFrame:
    rows = []
    for name in boxes.NAMES:
        values = row([float(s[name][0]) for s in scores], [s[name][1:] for s in scores], seeds)
        rows.append({"split": split, "metric": name, **values})
    return pd.DataFrame(rows)


def _counts(part: _Split) -> dict[str, int]:
    return {
        "images": len(part.ids),
        "groups": len(np.unique(part.groups)),
        "boxes": len(part.true),
        "with_boxes": int(part.true["id"].nunique()),
    }


def _precision_recall(part: _Split, seeds: list[int]) -> pd.DataFrame:
    once = np.ones((1, len(part.ids)), np.int64)
    lines = [boxes.precisions(matched, once)[0] for matched in part.matched]
    named = [*zip(map(str, seeds), lines, strict=True), ("", np.mean(lines, axis=0))]
    parts = [
        pd.DataFrame({"seed": seed, "recall": boxes.RECALLS, "precision": line})
        for seed, line in named
    ]
    return pd.concat(parts, ignore_index=True)
