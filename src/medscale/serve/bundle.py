"""What makes a result folder usable elsewhere: inference.json and weights; JSON and safetensors only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, sha256, write_json
from medscale.base.section import Strict
from medscale.config.sections import Preprocess
from medscale.data import metadata
from medscale.data.metadata import Encoding
from medscale.data.shards import Shards
from medscale.engine.plan import Crop, Model
from medscale.evaluate.replicates import Replicate

INFERENCE = "inference.json"


class Weights(Strict):
    """One replicate's network.

    Attributes:
        validation: how well it did on the validation split, in the terms of ``Inference.judged_by``.
        threshold: of a detector, the confidence from which a box counts, chosen on the validation split.
        temperature: by which logits are divided for calibrated probabilities (Guo et al., ICML 2017), if it was fitted.
    """

    seed: int
    file: str = Field(
        pattern=r"^[A-Za-z0-9_-]+\.safetensors$", description="below the result folder"
    )
    sha256: str
    validation: float | None
    threshold: float | None = None
    temperature: float | None = Field(None, gt=0)


class Inference(Strict):
    """All that a prediction needs beside the weights: the content of inference.json."""

    format: Literal[1] = 1
    study: str
    run: str
    task: Literal["classification", "detection"]
    classes: list[str] = Field(min_length=1)
    marks: dict[str, Any]
    preprocess: Preprocess
    crop: Crop | None
    model: Model
    amp: bool
    channels_last: bool
    metadata: list[Encoding]
    replicates: list[Weights] = Field(min_length=1)
    judged_by: str
    chosen: int = Field(description="seed of the replicate that did best on the validation split")
    versions: dict[str, str]

    def weights(self, seed: int | Literal["all"] | None) -> list[Weights]:
        """The replicates to use: the chosen one, that of a seed, or all.

        Raises:
            MedscaleError: for a seed that there is none of.
        """
        if seed == "all":
            return self.replicates
        wanted = self.chosen if seed is None else seed
        found = [one for one in self.replicates if one.seed == wanted]
        if not found:
            there = ", ".join(str(one.seed) for one in self.replicates)
            raise MedscaleError(
                f"{self.study}/{self.run} has no replicate of seed {wanted}; there are {there}, or 'all'"
            )
        return found


def put(
    replicates: Sequence[Replicate], shards: Shards, folder: Path, summary: dict[str, Any]
) -> None:
    """Put inference.json and each replicate's weights (linked where that is possible) into a new result folder.

    Args:
        replicates: the run folders, read.
        shards: the images that they were trained on.
        folder: the result folder that is being written.
        summary: the content of summary.json.

    Raises:
        MedscaleError: when a replicate has no weights.
    """
    plan = replicates[0].plan
    judged_by, values = _judged(replicates, summary)
    thresholds = summary.get("thresholds") or [None] * len(replicates)
    temperatures = _temperatures(summary, len(replicates))
    parts = []
    for replicate, value, threshold, temperature in zip(
        replicates, values, thresholds, temperatures, strict=True
    ):
        name = f"seed{replicate.plan.seed}.safetensors"
        _link(replicate.folder / "model.safetensors", folder / name)
        parts.append(
            Weights(
                seed=replicate.plan.seed,
                file=name,
                sha256=sha256(folder / name),
                validation=value,
                threshold=threshold,
                temperature=temperature,
            )
        )
    made = Inference(
        study=plan.study,
        run=plan.run.name,
        task="classification" if plan.detect is None else "detection",
        classes=shards.classes,
        marks=summary["marks"],
        preprocess=Preprocess.model_validate(shards.meta["preprocess"]),
        crop=plan.augment.crop,
        model=plan.model,
        amp=plan.run.amp,
        channels_last=plan.recipe.channels_last,
        metadata=metadata.fit(shards.rows, plan.model.metadata),
        replicates=parts,
        judged_by=judged_by,
        chosen=replicates[
            int(np.argmin(values) if judged_by == "loss" else np.argmax(values))
        ].plan.seed,
        versions=shards.meta.get("versions", {}),
    )
    write_json(folder / INFERENCE, made.model_dump(mode="json"))


def read(folder: str | Path) -> Inference:
    """Read a result folder's inference.json.

    Raises:
        MedscaleError: when the folder is no result folder, or was written by another version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MedscaleError(
            f"{folder} does not exist; name a result folder, such as results/<study>/<run>"
        )
    if not (folder / INFERENCE).is_file():
        older = (
            "; it was made by an earlier version: evaluate it again"
            if (folder / "summary.json").is_file()
            else ""
        )
        raise MedscaleError(
            f"{folder} has no {INFERENCE}, so it is no result folder as results/<study>/<run> is{older}"
        )
    try:
        return Inference.model_validate(read_json(folder / INFERENCE))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise MedscaleError(
            f"{folder / INFERENCE} is not valid here: {where}: {first['msg']}"
        ) from None


def _judged(replicates: Sequence[Replicate], summary: dict[str, Any]) -> tuple[str, list[float]]:
    """By what the replicates are ranked, and each one's value; a detector's loss does not rank (see yolo.BoxLoss)."""
    if replicates[0].plan.detect is not None:
        return "map50", [float(value) for value in summary["metrics"]["val"]["map50"]["values"]]
    return "loss", [float(replicate.history["val_loss"].min()) for replicate in replicates]


def _temperatures(summary: dict[str, Any], count: int) -> list[float | None]:
    """Each replicate's temperature, where the evaluation fitted one."""
    return list((summary.get("calibration") or {}).get("temperatures") or [None] * count)


def _link(source: Path, target: Path) -> None:
    if not source.is_file():
        raise MedscaleError(f"{source} does not exist; train this run again")
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
