"""Run folders of one run, read and checked against the index: the only input of the metrics."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, read_table, sha256
from medscale.data.folds import check, count, of_fold
from medscale.engine.plan import RunPlan
from medscale.engine.resolve import recorded

SPLITS = ("val", "test")
ORIGINAL = b"medscale.original"  # key of a Parquet file's metadata: SHA-256 of what it is a copy of


@dataclass(frozen=True)
class Replicate:
    """The files of one seed of a run, and with folds of one fold, as training wrote them."""

    folder: Path
    plan: RunPlan
    timing: dict[str, Any]
    environment: dict[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame

    @property
    def batch_norm(self) -> bool:
        """Whether the network has batch normalization: its weights have running statistics.

        Raises MedscaleError when the weights are missing or damaged.
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
class Predicted:
    """The predictions of all seeds for a split, ordered by id.

    With folds they are out-of-fold predictions: each test image has those of the one network of
    each seed that was not trained on the image's fold. An image that validates several folds has a
    row for each.
    """

    ids: np.ndarray  # row ids of the index, int64, shape N
    labels: np.ndarray  # true class codes, int64, shape N
    groups: np.ndarray  # patient (or near-duplicate cluster) codes 0..G-1, int64, shape N
    probabilities: np.ndarray  # float64, shape S,N,K for S seeds and K classes
    # fold that each row is predicted in, 0..F-1, int64, shape N; None without folds
    folds: np.ndarray | None = None

    def networks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the labels (n) and probabilities (n,K) of each network's rows, seed by seed."""
        for odds in self.probabilities:
            if self.folds is None:
                yield self.labels, odds
            else:
                for fold in range(int(self.folds.max(initial=-1)) + 1):
                    yield self.labels[self.folds == fold], odds[self.folds == fold]

    def by_row(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the value of the network that predicts each row, float64, shape S,N or S,1.

        ``values``: of the networks, in the order of ``networks``.
        """
        by_seed = np.array(values, dtype=np.float64).reshape(len(self.probabilities), -1)
        return by_seed if self.folds is None else by_seed[:, self.folds]


@dataclass(frozen=True)
class Gallery:
    """Grad-CAM heat maps of some test images of a replicate, see ``gallery.gallery``."""

    # ``id, true, predicted`` (class names), ``probability`` (of the predicted class), ``right``;
    # rightly classified images first
    cases: pd.DataFrame
    # Grad-CAM of the predicted class, float32 in [0, 1], shape n,h,w: the resolution of the
    # network's last feature maps
    heat: np.ndarray
    images: np.ndarray  # the network's inputs as images, uint8, shape n,H,W,3
    why: str = ""  # the reason for missing heat maps; empty if none is missing


def read(folder: str | Path) -> Replicate:
    """Read a finished run folder.

    Raises MedscaleError when a file is missing or damaged; the message names it.
    """
    folder = Path(folder)
    try:
        plan = RunPlan.model_validate(read_json(folder / "spec.json"))
    except ValidationError as error:
        raise MedscaleError(
            f"{folder / 'spec.json'} is no plan of a run: {error.errors()[0]['msg']}"
        ) from None
    environment = read_json(folder / "environment.json")
    return Replicate(
        folder=folder,
        plan=recorded(plan, environment),
        timing=read_json(folder / "timing.json"),
        environment=environment,
        history=read_table(folder / "history.csv"),
        predictions=read_table(folder / "predictions.parquet"),
    )


def read_index(path: str | Path) -> pd.DataFrame:
    """Read index.parquet: ``id, label, split, group`` and the metadata of each image.

    The order of the categories of ``label`` is the order of the classes. Raises MedscaleError when
    it is missing or damaged, or its labels are not categorical.
    """
    index = read_table(path)
    if not isinstance(index["label"].dtype, pd.CategoricalDtype):
        raise MedscaleError(
            f"{path}: `label` has no categories, so the order of the classes is unknown; "
            "index again"
        )
    return index


def index_digest(path: str | Path) -> str:
    """Return the SHA-256 of index.parquet; a copy without names has that of its original.

    Raises MedscaleError when a copy has something else in its place.
    """
    original = (pq.read_schema(path).metadata or {}).get(ORIGINAL)
    if original is None:
        return sha256(path)
    if re.fullmatch(rb"[0-9a-f]{64}", original) is None:
        raise MedscaleError(f"{path}: the digest of its original is no SHA-256; restore it again")
    return original.decode()


def together(replicates: Sequence[Replicate], index: pd.DataFrame, split: str) -> Predicted:
    """Join the replicates' predictions of a split with the index; those of folds are pooled.

    Raises MedscaleError when an image is missing, occurs twice, is unknown or has another label
    than in the index, when probabilities are not finite or do not sum to 1, or when the replicates
    are not those of the index's folds.
    """
    folds = _folds(replicates, index)
    tables = [of_fold(index, fold) for fold in folds]
    rows = [table[table["split"] == split].sort_values("id") for table in tables]
    ids = [part["id"].to_numpy(np.int64) for part in rows]
    labels = [part["label"].cat.codes.to_numpy(np.int64) for part in rows]
    classes = len(index["label"].cat.categories)
    place = {fold: number for number, fold in enumerate(folds)}
    parts: dict[int, list[np.ndarray]] = {}
    for replicate in sorted(replicates, key=lambda r: r.plan.fold or 0):  # stable: seeds in order
        at = place[replicate.plan.fold]
        odds = _probabilities(replicate, split, ids[at], labels[at], classes)
        parts.setdefault(replicate.plan.seed, []).append(odds)
    pooled_ids = np.concatenate(ids)
    number = np.repeat(np.arange(len(folds)), [len(part) for part in ids])
    order = np.lexsort((number, pooled_ids))
    group = pd.concat([part["group"].astype(str) for part in rows])
    return Predicted(
        pooled_ids[order],
        np.concatenate(labels)[order],
        pd.factorize(group, sort=True)[0].astype(np.int64)[order],
        np.stack([np.concatenate(odds)[order] for odds in parts.values()]),
        None if folds == [None] else number[order],
    )


def test_rows(index: pd.DataFrame) -> pd.DataFrame:
    """Return the index's rows of the test images by id: with folds, all of its images."""
    tested = index if count(index) else index[index["split"] == "test"]
    return tested.sort_values("id")


def _folds(replicates: Sequence[Replicate], index: pd.DataFrame) -> list[int | None]:
    """Return the folds of the index, [None] without folds, after a check of the replicates.

    Raises MedscaleError where the folds of the index leak, or a seed has not each of them once.
    """
    folds: list[int | None] = [*range(1, count(index) + 1)] or [None]
    check(index)
    trained: dict[int, list[int | None]] = {}
    for replicate in replicates:
        trained.setdefault(replicate.plan.seed, []).append(replicate.plan.fold)
    for seed, present in trained.items():
        if sorted(present, key=lambda fold: fold or 0) != folds:
            name = replicates[0].plan.run.name
            raise MedscaleError(
                f"{name}: seed {seed} has the folds {_listed(present)}, the index has "
                f"{_listed(folds)}; train this run again"
            )
    return folds


def _listed(folds: Sequence[int | None]) -> str:
    return ", ".join("none" if fold is None else str(fold) for fold in folds)


def same_run(replicates: Sequence[Replicate]) -> None:
    """Refuse folders that are not replicates of one run, or that have the same seed and fold.

    Raises MedscaleError, naming the folder that differs.
    """
    if not replicates:
        raise MedscaleError("there is no run folder to evaluate")
    first = replicates[0]
    for other in replicates[1:]:
        identity = {"seed": first.plan.seed, "fold": first.plan.fold}
        if other.plan.model_copy(update=identity) != first.plan:
            raise MedscaleError(
                f"{other.folder} is not a replicate of {first.folder}: their plans differ by more "
                "than seed and fold"
            )
    names = [replicate.plan.replicate for replicate in replicates]
    if len(set(names)) != len(names):
        raise MedscaleError(
            f"the run folders of {first.plan.run.name} have the same seed twice: {names}"
        )


def digests(replicates: Sequence[Replicate], index: str | Path) -> dict[str, Any]:
    """Return the SHA-256 of the index, and of the predictions by name of the replicate."""
    predicted = {
        replicate.plan.replicate: sha256(replicate.folder / "predictions.parquet")
        for replicate in replicates
    }
    return {"index": index_digest(index), "predictions": predicted}


def _probabilities(
    replicate: Replicate, split: str, ids: np.ndarray, labels: np.ndarray, classes: int
) -> np.ndarray:
    path = replicate.folder / "predictions.parquet"
    columns = [f"p_{code}" for code in range(classes)]
    present = [name for name in replicate.predictions.columns if str(name).startswith("p_")]
    if sorted(present) != sorted(columns):
        raise MedscaleError(
            f"{path}: probabilities of {len(present)} classes, but the index has {classes}"
        )
    table = replicate.predictions
    table = table[table["split"] == split].sort_values("id")
    _same_images(path, split, table["id"].to_numpy(np.int64), ids)
    wrong = np.flatnonzero(table["label"].to_numpy(np.int64) != labels)
    if len(wrong):
        raise MedscaleError(
            f"{path}: {len(wrong)} labels of {split} differ from the index (first: id "
            f"{ids[wrong[0]]}); it was made from another index: train this run again"
        )
    values = table[columns].to_numpy(np.float64)
    sums_to_one = np.abs(values.sum(axis=1) - 1) <= 1e-2  # half precision rounds probabilities
    bad = ~np.isfinite(values).all(axis=1) | ~sums_to_one | (values < 0).any(axis=1)
    if bad.any():
        raise MedscaleError(
            f"{path}: {int(bad.sum())} rows of {split} are no probabilities (first: id "
            f"{ids[bad][0]}); each must be finite, 0 or more, and sum to 1"
        )
    return values


def _same_images(path: Path, split: str, ids: np.ndarray, expected: np.ndarray) -> None:
    unique, counts = np.unique(ids, return_counts=True)
    for wrong, problem in (
        (unique[counts > 1], "stand twice"),
        (np.setdiff1d(expected, unique), "are missing"),
        (np.setdiff1d(unique, expected), f"are not in the index as {split}"),
    ):
        if len(wrong):
            raise MedscaleError(
                f"{path}: {len(wrong)} images of {split} {problem} (first: id {wrong[0]}); "
                "train this run again"
            )
