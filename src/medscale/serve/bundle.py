"""Reading and writing inference.json: everything besides the weights that a prediction needs.

Both formats, JSON and safetensors, hold data only: loading a result folder runs no code from it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator
from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from medscale.base.errors import MedscaleError
from medscale.base.files import read_foreign_json, sha256, write_json
from medscale.base.paths import INFERENCE, usable_result
from medscale.base.section import LARGEST_SEED, Seed, Strict, Unique
from medscale.data import metadata
from medscale.data.metadata import Encoding
from medscale.data.settings import Preprocess
from medscale.data.shards import Shards
from medscale.engine.formats import Half
from medscale.engine.plan import Crop, Model
from medscale.engine.run import is_detector
from medscale.evaluate.replicates import Replicate

# Limits for folders of strangers, far beyond what this package writes.
LONGEST_NAME = 1000  # characters
MOST_CLASSES, MOST_COLUMNS, MOST_REPLICATES, MOST_VERSIONS = 10_000, 100, 1000, 1000

Name = Annotated[str, Field(max_length=LONGEST_NAME)]


class Marks(TypedDict):
    """Restrictions of a result: synthetic images, CPUs in place of GPUs, a reduced scale."""

    synthetic: bool
    stand_in: bool
    scale: Literal["full", "demo"]


class Weights(Strict):
    """One replicate's network."""

    seed: Seed  # of the replicate
    # fold whose images the network was not trained on; None without folds
    fold: int | None = Field(None, ge=1, le=1000, exclude_if=lambda fold: fold is None)
    # name of the file of weights, below the result folder
    file: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,200}\.safetensors$", description="below the result folder"
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the file")
    # value of the metric ``Inference.judged_by`` on the validation split
    validation: float | None
    # of a detector, the confidence from which a box counts, chosen on the validation split
    threshold: float | None = None
    # divides logits for calibrated probabilities (Guo et al., ICML 2017); None where none was
    # fitted
    temperature: float | None = Field(None, ge=0.001, le=1000)


class Inference(Strict):
    """The content of inference.json."""

    format: Literal[1] = 1
    study: Name
    run: Name
    # of results by earlier versions, title and kind are not known
    title: Name = Field("", description="name of the study, in words")
    kind: Name = Field("", description="kind of its dataset (``data/kinds``)")
    task: Literal["classification", "detection"]
    classes: Unique[Name] = Field(min_length=1, max_length=MOST_CLASSES)
    class_titles: dict[Name, Name] = Field(
        {}, max_length=MOST_CLASSES, description="titles of the classes for readers, by name"
    )
    marks: Marks
    preprocess: Preprocess
    crop: Crop | None
    model: Model
    amp: bool
    tf32: bool = False  # of results by earlier versions it is not known
    half: Half = "auto"
    channels_last: bool
    metadata: list[Encoding] = Field(max_length=MOST_COLUMNS)
    replicates: list[Weights] = Field(min_length=1, max_length=MOST_REPLICATES)
    judged_by: Name
    chosen: int = Field(
        ge=0,
        le=LARGEST_SEED,
        description="seed of the replicate that did best on the validation split",
    )
    versions: dict[Name, Name] = Field(max_length=MOST_VERSIONS)

    @model_validator(mode="after")
    def _fits_together(self) -> Inference:
        if (self.task == "detection") != is_detector(self.model.name):
            raise ValueError(f"{self.model.name} is no network for {self.task}")
        if self.crop is not None and self.crop.size > self.preprocess.size:
            raise ValueError(f"a crop of {self.crop.size} pixels of {self.preprocess.size}")
        return self

    @property
    def folds(self) -> int:
        """Number of folds of the study that the networks are of; 0 without folds."""
        return len({replicate.fold for replicate in self.replicates} - {None})

    def weights(self, seed: int | Literal["all"] | None, fold: int | None = None) -> list[Weights]:
        """Return the replicates to use.

        Raises MedscaleError when no replicate has the seed, or the fold.

        Args:
            seed: None for the chosen one, 'all' for all. With folds a seed has a network for each.
            fold: None for all folds.
        """
        of_folds = [r for r in self.replicates if fold is None or r.fold == fold]
        if seed == "all" and of_folds:
            return of_folds
        replicate_seed = self.chosen if seed is None else seed
        weights = [replicate for replicate in of_folds if replicate.seed == replicate_seed]
        if not of_folds:
            raise MedscaleError(
                f"{self.study}/{self.run} has no fold {fold}: it has {self.folds or 'no'} folds"
            )
        if not weights:
            raise MedscaleError(
                f"{self.study}/{self.run} has no replicate of seed {replicate_seed}; "
                f"there are {', '.join(_seeds(self.replicates))}"
            )
        return weights

    def seeds_in_words(self, weights: Sequence[Weights]) -> str:
        """Return which of the run's seeds predict; empty for a run of one seed."""
        if len(_seeds(self.replicates)) == 1:
            return ""
        seeds = _seeds(weights)
        return f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of seeds {', '.join(seeds)}"


def _seeds(weights: Sequence[Weights]) -> list[str]:
    """Return each seed once; with folds several networks have one."""
    return [str(seed) for seed in dict.fromkeys(replicate.seed for replicate in weights)]


def put(
    replicates: Sequence[Replicate],
    shards: Shards,
    folder: Path,
    summary: dict[str, Any],
    *,
    title: str = "",
    kind: str = "",
    class_titles: Mapping[str, str] | None = None,
) -> None:
    """Write inference.json and each replicate's weights into a new result folder.

    Weights are hard links to those of the run folders where the file system allows it. Raises
    MedscaleError when a replicate has no weights, or a title is that of no class.

    Args:
        replicates: the run folders, read.
        shards: the images that they were trained on.
        folder: the result folder that is being written.
        summary: the content of its summary.json.
        title: name of the study in words; empty if it is not known.
        kind: kind of its dataset; empty if it is not known.
        class_titles: titles of its classes by name (``studies.<name>.class_titles``).
    """
    plan, titles = replicates[0].plan, dict(class_titles or {})
    if unknown := [name for name in titles if name not in shards.classes]:
        raise MedscaleError(
            f"studies.{plan.study}.class_titles: {unknown[0]!r} is no class; the classes are "
            f"{', '.join(map(repr, shards.classes))}"
        )
    judged_by, values = _validation(replicates, summary)
    inference = Inference(
        study=plan.study,
        run=plan.run.name,
        title=title,
        kind=kind,
        task="classification" if plan.detect is None else "detection",
        classes=shards.classes,
        class_titles=titles,
        marks=summary["marks"],
        preprocess=Preprocess.model_validate(shards.meta["preprocess"]),
        crop=plan.augment.crop,
        model=plan.model,
        amp=plan.run.amp,
        tf32=plan.recipe.tf32,
        half=plan.recipe.half,
        channels_last=plan.recipe.channels_last,
        metadata=metadata.fit(shards.rows, plan.model.metadata),
        replicates=_put_all_weights(replicates, folder, values, summary),
        judged_by=judged_by,
        chosen=_chosen(replicates, values, smallest=judged_by == "loss"),
        versions=shards.meta.get("versions", {}),
    )
    write_json(folder / INFERENCE, inference.model_dump(mode="json"))


def read(folder: str | Path) -> Inference:
    """Read a result folder's inference.json.

    Raises MedscaleError when the folder is no result folder, or another version wrote it.
    """
    folder = usable_result(folder)
    try:
        return Inference.model_validate(read_foreign_json(folder / INFERENCE))
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(map(str, first["loc"]))
        raise MedscaleError(
            f"{folder / INFERENCE} is not valid here: {setting}: {first['msg']}; if another version"
            " of medscale wrote it, evaluate the run again with this one"
        ) from None


def _validation(
    replicates: Sequence[Replicate], summary: dict[str, Any]
) -> tuple[str, list[float]]:
    """Return the metric that ranks replicates and its value of each, on the validation split.

    A detector's loss does not rank replicates (see ``yolo.BoxLoss``), so its mAP50 does.
    """
    if replicates[0].plan.detect is not None:
        return "map50", [float(value) for value in summary["metrics"]["val"]["map50"]["values"]]
    return "loss", [float(replicate.history["val_loss"].min()) for replicate in replicates]


def _chosen(replicates: Sequence[Replicate], values: Sequence[float], *, smallest: bool) -> int:
    """Return the seed of the best validation score, with folds of its mean over them."""
    by_seed: dict[int, list[float]] = {}
    for replicate, value in zip(replicates, values, strict=True):
        by_seed.setdefault(replicate.plan.seed, []).append(value)
    means = {seed: float(np.mean(scores)) for seed, scores in by_seed.items()}
    return (min if smallest else max)(means, key=means.__getitem__)


def _put_all_weights(
    replicates: Sequence[Replicate],
    folder: Path,
    values: Sequence[float],
    summary: dict[str, Any],
) -> list[Weights]:
    """Put the weights of all replicates into a folder, with what validation fitted to each."""
    absent = [None] * len(replicates)
    thresholds = summary.get("thresholds") or absent
    temperatures = (summary.get("calibration") or {}).get("temperatures") or absent
    return [
        _put_weights(replicate, folder, value, threshold, temperature)
        for replicate, value, threshold, temperature in zip(
            replicates, values, thresholds, temperatures, strict=True
        )
    ]


def _put_weights(
    replicate: Replicate,
    folder: Path,
    validation: float,
    threshold: float | None,
    temperature: float | None,
) -> Weights:
    source, name = replicate.folder / "model.safetensors", f"{replicate.plan.replicate}.safetensors"
    if not source.is_file():
        raise MedscaleError(f"{source} does not exist; train this run again")
    try:
        os.link(source, folder / name)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, folder / name)
    return Weights(
        seed=replicate.plan.seed,
        fold=replicate.plan.fold,
        file=name,
        sha256=sha256(folder / name),
        validation=validation,
        threshold=threshold,
        temperature=temperature,
    )
