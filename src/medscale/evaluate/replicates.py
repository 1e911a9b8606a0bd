"""Run folders of one run, read and checked against the index: the only input of the metrics."""

import re
from collections.abc import Sequence
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
from medscale.engine.plan import RunPlan
from medscale.engine.resolve import recorded

SPLITS = ("val", "test")
ORIGINAL = b"medscale.original"  # key of a Parquet file's metadata: SHA-256 of what it is a copy of


@dataclass(frozen=True)
class Replicate:
    """The files of one seed of a run, as training wrote them."""

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
    """The predictions of all replicates for a split, ordered by id."""

    ids: np.ndarray  # row ids of the index, int64, shape N
    labels: np.ndarray  # true class codes, int64, shape N
    groups: np.ndarray  # patient (or near-duplicate cluster) codes 0..G-1, int64, shape N
    probabilities: np.ndarray  # float64, shape S,N,K for S seeds and K classes


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
    """Join the replicates' predictions of a split with the index.

    Raises MedscaleError when an image is missing, occurs twice, is unknown or has another label
    than in the index, or when probabilities are not finite or do not sum to 1.
    """
    rows = index[index["split"] == split].sort_values("id")
    ids = rows["id"].to_numpy(np.int64)
    labels = rows["label"].cat.codes.to_numpy(np.int64)
    classes = len(rows["label"].cat.categories)
    parts = [_probabilities(replicate, split, ids, labels, classes) for replicate in replicates]
    group = rows["group"].astype(str)
    return Predicted(
        ids, labels, pd.factorize(group, sort=True)[0].astype(np.int64), np.stack(parts)
    )


def same_run(replicates: Sequence[Replicate]) -> None:
    """Refuse folders that are not replicates of one run, or that have the same seed.

    Raises MedscaleError, naming the folder that differs.
    """
    if not replicates:
        raise MedscaleError("there is no run folder to evaluate")
    first = replicates[0]
    for other in replicates[1:]:
        if other.plan.model_copy(update={"seed": first.plan.seed}) != first.plan:
            raise MedscaleError(
                f"{other.folder} is not a replicate of {first.folder}: their plans differ by more "
                "than the seed"
            )
    seeds = [replicate.plan.seed for replicate in replicates]
    if len(set(seeds)) != len(seeds):
        raise MedscaleError(
            f"the run folders of {first.plan.run.name} have the same seed twice: {seeds}"
        )


def digests(replicates: Sequence[Replicate], index: str | Path) -> dict[str, Any]:
    """Return the SHA-256 of the index, and of the predictions by seed."""
    predicted = {
        str(replicate.plan.seed): sha256(replicate.folder / "predictions.parquet")
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
