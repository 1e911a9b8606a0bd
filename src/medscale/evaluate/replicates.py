"""Run folders of one run, read and checked against the index: the only input of the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, read_table, sha256
from medscale.base.paths import TIMING
from medscale.data.folds import check, count, of_fold
from medscale.data.index_file import index_digest
from medscale.engine.epochs import timed_epochs
from medscale.engine.plan import RunPlan
from medscale.engine.resolve import recorded
from medscale.engine.unused import keeping
from medscale.evaluate import bootstrap

PREDICTED_SPLITS = ("val", "test")


@dataclass(frozen=True)
class Replicate:
    """The files that the training of one seed (and, with folds, one fold) of a run wrote."""

    folder: Path
    plan: RunPlan
    timing: dict[str, Any]
    environment: dict[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame

    def timed_epochs(self) -> pd.DataFrame:
        """Return the rows of the history that count for times.

        They are those of ``epochs.timed_epochs`` without the first, in which the device warms up.
        If there is one such epoch, it is this one.
        """
        rows = timed_epochs(self.history, self.plan.run.devices)
        return rows.iloc[1:] if len(rows) > 1 else rows

    @property
    def batch_norm(self) -> bool:
        """Whether the network has batch normalization: its weights hold running statistics.

        Raises:
            MedscaleError: when the weights are missing or damaged.
        """
        path = self.folder / "model.safetensors"
        try:
            with safe_open(path, "np") as weights:
                names = list(weights.keys())
        except (OSError, SafetensorError) as error:
            raise MedscaleError(
                f"{path} cannot be read ({error}); delete {self.folder} and train again"
            ) from None
        return any(name.endswith("running_mean") for name in names)


@dataclass(frozen=True)
class Predictions:
    """The predictions of all seeds for a split, ordered by id.

    With folds, these are out-of-fold predictions: for each seed, a test image has the prediction of
    the one network whose training excluded the image's fold. An image that validates several folds
    has one row for each of them.
    """

    ids: np.ndarray  # row ids of the index, int64, shape N
    labels: np.ndarray  # true class codes, int64, shape N
    groups: np.ndarray  # patient (or near-duplicate cluster) codes 0..G-1, int64, shape N
    probabilities: np.ndarray  # float64, shape S,N,K for S seeds and K classes
    # fold whose network predicts each row, 0..F-1, int64, shape N; None without folds
    folds: np.ndarray | None = None

    @classmethod
    def of(
        cls, rows: pd.DataFrame, probabilities: np.ndarray, folds: np.ndarray | None = None
    ) -> Self:
        """Return predictions (S,N,K) of the images in ``rows`` of the index, in their order."""
        ids, labels = rows["id"].to_numpy(np.int64), rows["label"].cat.codes.to_numpy(np.int64)
        return cls(ids, labels, group_codes(rows), probabilities, folds)

    def part(self, mask: np.ndarray) -> Predictions:
        """Return the predictions of some images (bool, N), without their folds."""
        ids, labels, groups = self.ids[mask], self.labels[mask], self.groups[mask]
        return Predictions(ids, labels, groups, self.probabilities[:, mask])

    @cached_property
    def class_mask(self) -> np.ndarray:
        """Classes that take part in averages over classes, bool, shape K.

        The result of ``bootstrap.averaged_classes``, the same for all predictions of these images.
        """
        classes = self.probabilities.shape[2]
        return bootstrap.averaged_classes(self.labels, self.groups, classes)

    def networks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the labels (n) and probabilities (n,K) of each network's rows, seed by seed."""
        for probabilities in self.probabilities:
            if self.folds is None:
                yield self.labels, probabilities
            else:
                for fold in range(int(self.folds.max(initial=-1)) + 1):
                    yield self.labels[self.folds == fold], probabilities[self.folds == fold]

    def by_row(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the value of the network that predicts each row, float64, shape S,N or S,1.

        Args:
            values: one value for each network, in the order of ``networks``.
        """
        by_seed = np.array(values, dtype=np.float64).reshape(len(self.probabilities), -1)
        return by_seed if self.folds is None else by_seed[:, self.folds]


@dataclass(frozen=True)
class Gallery:
    """Grad-CAM heat maps of n test images of a replicate; the result of ``gallery.gallery``."""

    # ``id, true, predicted`` (class names), ``probability`` (of the predicted class), ``right``;
    # correctly classified images come first
    cases: pd.DataFrame
    # heat maps of the predicted class, float32 in [0, 1], shape n,h,w; h,w is the resolution of
    # the network's last feature maps
    heat: np.ndarray
    images: np.ndarray  # inputs of the network as images, uint8, shape n,H,W,3
    reason: str = ""  # why heat maps are missing; empty if none is missing


def read(folder: str | Path) -> Replicate:
    """Read a finished run folder.

    Raises:
        MedscaleError: when a file is missing or damaged; the message names it.
    """
    folder = Path(folder)
    environment = read_json(folder / "environment.json")
    try:
        plan = recorded(RunPlan.model_validate(read_json(folder / "spec.json")), environment)
    except ValidationError as error:
        raise MedscaleError(
            f"{folder}: spec.json and environment.json are not the plan of a run "
            f"({error.errors()[0]['msg']}); delete the folder and train again"
        ) from None
    return Replicate(
        folder=folder,
        plan=plan,
        timing=read_json(folder / TIMING),
        environment=environment,
        history=read_table(folder / "history.csv"),
        predictions=read_table(folder / "predictions.parquet"),
    )


def join_predictions(
    replicates: Sequence[Replicate], index: pd.DataFrame, split: str
) -> Predictions:
    """Join the replicates' predictions of a split with the index; those of folds are pooled.

    Args:
        replicates: all replicates of a run, in the order of the seeds.
        index: table from ``index_file.read_index``.
        split: ``val`` or ``test``.

    Raises:
        MedscaleError: when an image is missing, occurs twice, is unknown or has another label than
            in the index; when probabilities are not finite or do not sum to 1; or when the folds
            of the replicates are not those of the index.
    """
    folds = _folds(replicates, index)
    tables = {fold: of_fold(index, fold) for fold in folds}
    rows = {f: table[table["split"] == split].sort_values("id") for f, table in tables.items()}
    parts: dict[int, list[np.ndarray]] = {}
    for replicate in sorted(replicates, key=lambda r: r.plan.fold or 0):  # stable: seeds in order
        probabilities = _probabilities(replicate, split, rows[replicate.plan.fold])
        parts.setdefault(replicate.plan.seed, []).append(probabilities)
    pooled = pd.concat(rows.values())
    number = np.repeat(np.arange(len(folds)), [len(part) for part in rows.values()])
    order = np.lexsort((number, pooled["id"]))
    return Predictions.of(
        pooled.iloc[order],
        np.stack([np.concatenate(probabilities)[order] for probabilities in parts.values()]),
        None if folds == [None] else number[order],
    )


def group_codes(rows: pd.DataFrame) -> np.ndarray:
    """Return codes 0..G-1 of the groups of some rows of the index, int64, shape N."""
    return pd.factorize(rows["group"].astype(str), sort=True)[0].astype(np.int64)


def read_predictions(folders: Sequence[str | Path], index: pd.DataFrame) -> Predictions:
    """Read the predictions of all replicates of a run for the test images, and join them.

    Args:
        folders: run folders of all replicates of a run, in the order of the seeds.
        index: table from ``index_file.read_index``.

    Raises:
        MedscaleError: when a file is missing or damaged, the folders are not replicates of one run,
            or the predictions do not fit the index.
    """
    replicates = [read(folder) for folder in folders]
    same_run(replicates)
    return join_predictions(replicates, index, "test")


def test_rows(index: pd.DataFrame) -> pd.DataFrame:
    """Return the index's rows of the test images, sorted by id; with folds, all rows."""
    test_images = index if count(index) else index[index["split"] == "test"]
    return test_images.sort_values("id")


def _folds(replicates: Sequence[Replicate], index: pd.DataFrame) -> list[int | None]:
    """Check the folds of index and replicates; return those of the index, or [None] without folds.

    Raises:
        MedscaleError: when folds of the index share a group, or a seed lacks a fold.
    """
    folds: list[int | None] = [*range(1, count(index) + 1)] or [None]
    check(index)
    folds_by_seed: dict[int, list[int | None]] = {}
    for replicate in replicates:
        folds_by_seed.setdefault(replicate.plan.seed, []).append(replicate.plan.fold)
    for seed, present in folds_by_seed.items():
        if sorted(present, key=lambda fold: fold or 0) != folds:
            name = replicates[0].plan.run.name
            raise MedscaleError(
                f"{name}: seed {seed} has the folds {_fold_list(present)}, the index has "
                f"{_fold_list(folds)}; train this run again"
            )
    return folds


def _fold_list(folds: Sequence[int | None]) -> str:
    return ", ".join("none" if fold is None else str(fold) for fold in folds)


def same_run(replicates: Sequence[Replicate]) -> None:
    """Check that folders are replicates of one run, each with another seed or fold.

    Settings without effect on a complete replicate may differ (``engine.unused.keeping``).

    Raises:
        MedscaleError: otherwise; the message names the folder that differs.
    """
    if not replicates:
        raise MedscaleError("no run folder was given; name at least one to evaluate")
    first = replicates[0]
    for other in replicates[1:]:
        identity = {"seed": first.plan.seed, "fold": first.plan.fold}
        if keeping(other.plan, first.plan).model_copy(update=identity) != first.plan:
            raise MedscaleError(
                f"{other.folder} is not a replicate of {first.folder}: their plans differ in more "
                "than seed and fold; evaluate the folders of one run"
            )
    folders = [replicate.plan.replicate for replicate in replicates]
    if len(set(folders)) != len(folders):
        raise MedscaleError(
            f"the run folders of {first.plan.run.name} have the same seed twice: {folders}"
        )


def digests(replicates: Sequence[Replicate], index: str | Path) -> dict[str, Any]:
    """Return the SHA-256 of the index, and of the predictions by name of the replicate."""
    predictions = {
        replicate.plan.replicate: sha256(replicate.folder / "predictions.parquet")
        for replicate in replicates
    }
    return {"index": index_digest(index), "predictions": predictions}


def _probabilities(replicate: Replicate, split: str, rows: pd.DataFrame) -> np.ndarray:
    """Return the probabilities (N,K) of the images in ``rows`` of the index, after checks."""
    path, ids = replicate.folder / "predictions.parquet", rows["id"].to_numpy(np.int64)
    columns = [f"p_{code}" for code in range(len(rows["label"].cat.categories))]
    present = [name for name in replicate.predictions.columns if str(name).startswith("p_")]
    if sorted(present) != sorted(columns):
        raise MedscaleError(
            f"{path} has probabilities of {len(present)} classes, but the index has "
            f"{len(columns)}; train this run again"
        )
    table = replicate.predictions
    table = table[table["split"] == split].sort_values("id")
    _same_images(path, split, table["id"].to_numpy(np.int64), ids)
    mismatches = np.flatnonzero(table["label"].to_numpy(np.int64) != rows["label"].cat.codes)
    if len(mismatches):
        raise MedscaleError(
            f"{path}: {len(mismatches)} labels of {split} differ from the index (first: id "
            f"{ids[mismatches[0]]}); it was made from another index: train this run again"
        )
    values = table[columns].to_numpy(np.float64)
    sums_to_one = np.abs(values.sum(axis=1) - 1) <= 1e-2  # half precision rounds probabilities
    is_invalid = ~np.isfinite(values).all(axis=1) | ~sums_to_one | (values < 0).any(axis=1)
    if is_invalid.any():
        raise MedscaleError(
            f"{path}: {int(is_invalid.sum())} rows of {split} are not probabilities (first: id "
            f"{ids[is_invalid][0]}): values must be finite, at least 0, and sum to 1; train this "
            "run again"
        )
    return values


def _same_images(path: Path, split: str, ids: np.ndarray, expected: np.ndarray) -> None:
    unique, counts = np.unique(ids, return_counts=True)
    for problem_ids, problem in (
        (unique[counts > 1], "occur twice"),
        (np.setdiff1d(expected, unique), "are missing"),
        (np.setdiff1d(unique, expected), f"are not in the index as {split}"),
    ):
        if len(problem_ids):
            raise MedscaleError(
                f"{path}: {len(problem_ids)} images of {split} {problem} "
                f"(first: id {problem_ids[0]}); train this run again"
            )
