"""Reading and writing inference.json: everything besides the weights that a prediction needs.

Both formats, JSON and safetensors, hold data only: loading a result folder runs no code from it.
"""

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
from medscale.base.paths import INFERENCE, usable
from medscale.base.section import Strict
from medscale.data import metadata
from medscale.data.metadata import Encoding
from medscale.data.settings import Preprocess
from medscale.data.shards import Shards
from medscale.engine.plan import Crop, Model
from medscale.evaluate.replicates import Replicate


class Weights(Strict):
    """One replicate's network."""

    seed: int  # of the replicate
    # its weights
    file: str = Field(
        pattern=r"^[A-Za-z0-9_-]+\.safetensors$", description="below the result folder"
    )
    sha256: str  # digest of the file
    # its value on the validation split of the metric ``Inference.judged_by``
    validation: float | None
    # of a detector, the confidence from which a box counts, chosen on the validation split
    threshold: float | None = None
    # divides logits for calibrated probabilities (Guo et al., ICML 2017); None where none was
    # fitted
    temperature: float | None = Field(None, gt=0)


class Inference(Strict):
    """The content of inference.json."""

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
        """Return the replicates to use.

        ``seed``: of one replicate; None for the chosen one, 'all' for all. Raises MedscaleError
        when no replicate has the seed.
        """
        if seed == "all":
            return self.replicates
        replicate_seed = self.chosen if seed is None else seed
        weights = [replicate for replicate in self.replicates if replicate.seed == replicate_seed]
        if not weights:
            seeds = ", ".join(str(replicate.seed) for replicate in self.replicates)
            raise MedscaleError(
                f"{self.study}/{self.run} has no replicate of seed {replicate_seed}; "
                f"there are {seeds}, or"
                " 'all'"
            )
        return weights


def put(
    replicates: Sequence[Replicate], shards: Shards, folder: Path, summary: dict[str, Any]
) -> None:
    """Write inference.json and each replicate's weights into a new result folder.

    Weights are hard links to those of the run folders where the file system allows it. Raises
    MedscaleError when a replicate has no weights.

    Args:
        replicates: the run folders, read.
        shards: the images that they were trained on.
        folder: the result folder that is being written.
    """
    plan = replicates[0].plan
    judged_by, values = _validation(replicates, summary)
    best = np.argmin(values) if judged_by == "loss" else np.argmax(values)
    absent = [None] * len(replicates)
    thresholds = summary.get("thresholds") or absent
    temperatures = (summary.get("calibration") or {}).get("temperatures") or absent
    inference = Inference(
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
        replicates=[
            _put_weights(replicate, folder, value, threshold, temperature)
            for replicate, value, threshold, temperature in zip(
                replicates, values, thresholds, temperatures, strict=True
            )
        ],
        judged_by=judged_by,
        chosen=replicates[int(best)].plan.seed,
        versions=shards.meta.get("versions", {}),
    )
    write_json(folder / INFERENCE, inference.model_dump(mode="json"))


def read(folder: str | Path) -> Inference:
    """Read a result folder's inference.json.

    Raises MedscaleError when the folder is no result folder, or another version wrote it.
    """
    folder = usable(folder)
    try:
        return Inference.model_validate(read_json(folder / INFERENCE))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise MedscaleError(
            f"{folder / INFERENCE} is not valid here: {where}: {first['msg']}"
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


def _put_weights(
    replicate: Replicate,
    folder: Path,
    validation: float,
    threshold: float | None,
    temperature: float | None,
) -> Weights:
    source, name = replicate.folder / "model.safetensors", f"seed{replicate.plan.seed}.safetensors"
    if not source.is_file():
        raise MedscaleError(f"{source} does not exist; train this run again")
    try:
        os.link(source, folder / name)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, folder / name)
    return Weights(
        seed=replicate.plan.seed,
        file=name,
        sha256=sha256(folder / name),
        validation=validation,
        threshold=threshold,
        temperature=temperature,
    )
