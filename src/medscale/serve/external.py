"""Predictions of a result's replicates for external images, assessed without a new fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medscale.base.errors import MedscaleError
from medscale.base.files import sha256
from medscale.base.log import track
from medscale.config.sections import Evaluate
from medscale.data.images import Unreadable
from medscale.data.index_file import read_index
from medscale.data.prepare import PreparedImage
from medscale.engine.plan import replicate_name
from medscale.evaluate.assessment import RESAMPLES, Assessment, assess
from medscale.evaluate.external import copies, same_patients, shift, validation_fit
from medscale.evaluate.replicates import Predictions
from medscale.report.names import class_titles
from medscale.report.result.external import External, write_external
from medscale.report.result.reading import Result, read_result
from medscale.serve import bundle, inputs
from medscale.serve.bundle import Inference, Weights
from medscale.serve.inputs import Facts
from medscale.serve.predict import Predictor, load

BATCH = 32  # images


@dataclass(frozen=True)
class ExternalSet:
    """Labelled images of another origin than a run's study."""

    title: str
    index: Path  # index.parquet of the images
    raw: Path  # folder that the index's paths are relative to
    notes: Sequence[str] = ()  # sentences on the images, from their audit
    synthetic: bool = False  # whether the images are generated
    # further files of the result, such as the audit of the images: content by file name
    further: Mapping[str, bytes] = field(default_factory=dict)


def evaluate_external(
    result: Path,
    images: ExternalSet,
    out: Path,
    settings: Evaluate,
    training_index: Path | None,
    device: str | None = None,
) -> dict[str, Any]:
    """Evaluate a trained classification on external images; return the content of summary.json.

    Thresholds and temperatures are those of the result, from its validation split. Raises
    MedscaleError for a result of detection, an index of other classes, or an unreadable image.

    Args:
        result: a result folder.
        images: the external images.
        out: the new folder of the outcome.
        settings: prevalences, costs and subgroups.
        training_index: index.parquet of the study that the run was trained on; None if it is not
            available, and then copies of training images are not searched.
        device: of the networks.
    """
    classification(result)
    predictor, inside = load(result, "all", device), read_result(result)
    rows = _rows(images.index, predictor)
    facts = _facts(predictor.inference, rows)
    class_probabilities = _probabilities(predictor, images.raw, rows, facts)
    assessment = _assess(predictor, inside, rows, class_probabilities, settings)
    training = _training_images(training_index, predictor)
    external = External(
        **_names(images, predictor, inside.summary),
        notes=[*images.notes, *_unknown(predictor.inference, facts)],
        missing=[name for name in predictor.classes if not (rows["label"] == name).any()],
        copies=copies(rows["sha256"], training),
        same_patients=same_patients(rows["patient"], training),
        inputs={"index": sha256(images.index), "result": sha256(result / bundle.INFERENCE)},
        assessment=assessment,
        inside=inside,
        shift=shift(inside.summary, assessment),
        predictions=_predictions(rows, class_probabilities, predictor.weights, training),
    )
    with class_titles(predictor.inference.class_titles):
        return write_external(external, out, images.further)


def _names(images: ExternalSet, predictor: Predictor, summary: dict[str, Any]) -> dict[str, Any]:
    """Return the titles, run, seeds and marks of an evaluation on external images."""
    marks = dict(summary["marks"])
    return {
        "title": images.title,
        "study": predictor.inference.study,
        "run": summary["run"],
        "seeds": list(dict.fromkeys(w.seed for w in predictor.weights)),
        "marks": marks | {"synthetic": marks["synthetic"] or images.synthetic},
    }


def classification(result: Path) -> Inference:
    """Return the settings of a result folder; MedscaleError if it is one of detection."""
    inference = bundle.read(result)
    if inference.task != "classification":
        raise MedscaleError(f"{result} is a detection; only classifications are evaluated outside")
    return inference


def _rows(index: Path, predictor: Predictor) -> pd.DataFrame:
    """Return the external images by id; MedscaleError if they have other classes."""
    table = read_index(index)
    classes = [str(name) for name in table["label"].cat.categories]
    if classes != predictor.classes:
        raise MedscaleError(
            f"{index} has the classes {', '.join(classes)}, {predictor.name} has "
            f"{', '.join(predictor.classes)}"
        )
    return table


def _assess(
    predictor: Predictor,
    inside: Result,
    rows: pd.DataFrame,
    class_probabilities: np.ndarray,
    settings: Evaluate,
) -> Assessment:
    """Assess the probabilities (S,N,K) of external images with the result's own thresholds."""
    predictions = Predictions.of(rows, class_probabilities)
    # Each network of a fold is a replicate, as inside, where one of a seed predicts an image.
    names = [replicate_name(w.seed, w.fold).removeprefix("seed") for w in predictor.weights]
    thresholds = validation_fit(inside.summary, inside.operating)
    return assess(predictions, rows, predictor.classes, names, thresholds, settings, RESAMPLES)


def _training_images(index: Path | None, predictor: Predictor) -> pd.DataFrame | None:
    """Return the index of the training images; None if it is not available."""
    if index is None:
        return None
    images = read_index(index)
    # Of cross-validation, each image trained the networks of other folds.
    return images.assign(split="train") if predictor.inference.folds else images


def _facts(inference: Inference, rows: pd.DataFrame) -> list[Facts]:
    """Return the metadata of each image of an index that the network takes.

    The index has the facts of tables and of headers; a fact that it lacks is unknown, as in
    training.
    """
    columns = [encoding.column for encoding in inference.metadata if encoding.column in rows]
    # Rows of all columns, since pandas before 3.1 returns no rows of an empty list of columns.
    records = rows.to_dict("records")
    return [inputs.present({column: row[column] for column in columns}) for row in records]


def _unknown(inference: Inference, facts: Sequence[Facts]) -> list[str]:
    """Return a sentence on the metadata that are unknown to the network, if there are any."""
    sentence = inputs.unknown_sentence(
        [inputs.unknown(image_facts, inference.metadata) for image_facts in facts]
    )
    return [f"{sentence}."] if sentence else []


def _probabilities(
    predictor: Predictor, raw: Path, rows: pd.DataFrame, facts: Sequence[Facts]
) -> np.ndarray:
    """Return each replicate's probabilities for the images of an index, shape S,N,K."""
    paths, parts, start = [str(raw / path) for path in rows["path"]], [], 0
    batches = predictor.read_batches(paths, BATCH)
    for batch in track(batches, "predicting", -(-len(paths) // BATCH)):
        pixels = np.stack([prepared.pixels for prepared in _readable(batch, raw)])
        features = predictor.features(facts[start : start + len(batch)])
        logits = predictor.logits(pixels, features)
        parts.append(torch.softmax(logits.double(), 2).cpu().numpy())
        start += len(batch)
    return np.concatenate(parts, axis=1)


def _readable(
    batch: Sequence[tuple[PreparedImage, Facts] | Unreadable], raw: Path
) -> Iterator[PreparedImage]:
    for image in batch:
        if isinstance(image, Unreadable):
            raise MedscaleError(f"an image of {raw} cannot be read any more: {image}")
        yield image[0]


def _predictions(
    rows: pd.DataFrame,
    class_probabilities: np.ndarray,
    weights: list[Weights],
    training: pd.DataFrame | None,
) -> pd.DataFrame:
    """Return the table predictions.csv: a row for each image and replicate."""
    training_digests = (
        set() if training is None else set(training.loc[training["split"] == "train", "sha256"])
    )
    head = pd.DataFrame(
        {
            "path": rows["path"],
            "label": rows["label"].astype(str),
            "group": rows["group"],
            "copy": rows["sha256"].isin(training_digests) if training is not None else None,
        }
    )
    tables = []
    for network, values in zip(weights, class_probabilities, strict=True):
        fold = {} if network.fold is None else {"fold": network.fold}
        columns = {f"p_{code}": values[:, code] for code in range(values.shape[1])}
        tables.append(head.assign(seed=network.seed, **fold, **columns))
    return pd.concat(tables, ignore_index=True)
