"""The predicting process: holds all models, and predicts batches of decoded images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from medscale import load
from medscale.base.errors import MedscaleError
from medscale.base.paths import usable_results
from medscale.data.settings import Preprocess
from medscale.engine.run import RunSpec
from medscale.report import names
from medscale.report.marks import mark
from medscale.serve import bundle
from medscale.serve.calibration import BOX_SENTENCE, SENTENCES, calibration_by
from medscale.serve.calibration import Calibration as Method
from medscale.serve.http import summary
from medscale.serve.http.answers import (
    Calibration,
    Column,
    Finding,
    Model,
    OperatingPoint,
    Score,
)
from medscale.serve.http.heatmap import heatmaps, region_of
from medscale.serve.http.messages import DecodedImage, ModelOutput, Offer, Task
from medscale.serve.predict import Predictor

ENSEMBLE = "ensemble"  # the run in the name of a model that averages a study's runs
EXAMPLES = Path(__file__).with_name("page") / "examples"  # <kind>-<number>.jpg

_models: dict[str, list[Predictor]] = {}  # the members of each model; set by ``start``


def start(number: int, paths: Sequence[Path], seed: str, device: str, threads: int) -> list[Offer]:
    """Load all models in this process, and predict a blank image with each.

    Raises MedscaleError when a model cannot be loaded, or two have the same name.

    Args:
        number: of this process; processes take turns on the GPUs.
        paths: result folders, or folders that contain some.
        seed: of the replicates that predict: best, all, or a number.
        device: auto, cpu or cuda.
        threads: of PyTorch.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    gpus = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if device == "cuda" and not gpus:
        raise MedscaleError(
            "there is no GPU here that PyTorch can use; leave --device out, or say cpu"
        )
    folders: dict[str, Path] = {}
    _models.clear()
    for folder in usable_results(paths):
        predictor = load(folder, _seed(seed, folder), f"cuda:{number % gpus}" if gpus else "cpu")
        name = predictor.name
        if name in folders:
            raise MedscaleError(f"{folder} and {folders[name]} are both {name}; name one of them")
        folders[name], _models[name] = folder, [predictor]
    _models.update(_ensembles([members[0] for members in _models.values()]))
    return [_offer(name, members, folders.get(name)) for name, members in _models.items()]


def predict(task: Task, images: list[DecodedImage]) -> list[ModelOutput]:
    """Predict a batch of images.

    Args:
        task: the model, whether with heat maps, and whether calibrated.
        images: with pixels for each preprocessing of the model's offer.
    """
    members = _models[task.model]
    first, preprocessings = members[0].inference, _preprocessings(members)
    regions = [region_of(image, first.preprocess, first.crop) for image in images]
    places = [preprocessings.index(member.inference.preprocess) for member in members]
    pixels = [np.stack([image.pixels[place] for image in images]) for place in places]
    if first.task == "detection":
        boxes = members[0].boxes(pixels[0], [(image.width, image.height) for image in images])
        return [
            ModelOutput(None, [Finding(**vars(box)) for box in image_boxes], region, None)
            for image_boxes, region in zip(boxes, regions, strict=True)
        ]
    features = [m.features([m.accepted(image.facts) for image in images]) for m in members]
    calibrated = task.calibrated and _method(members) != "none"
    probabilities = np.mean(
        [
            member.probabilities(batch, facts, calibrated)
            for member, batch, facts in zip(members, pixels, features, strict=True)
        ],
        axis=0,
    )
    maps: Sequence[bytes | None] = [None] * len(images)
    if task.explain:
        maps = heatmaps(members, pixels, features, probabilities.argmax(1), images)
    return [
        ModelOutput(dict(zip(first.classes, row, strict=True)), None, region, heatmap)
        for row, region, heatmap in zip(probabilities.tolist(), regions, maps, strict=True)
    ]


def _seed(seed: str, folder: Path) -> Any:
    """Return the argument ``seed`` of ``load``; detectors cannot be averaged."""
    if seed == "best" or (seed == "all" and bundle.read(folder).task == "detection"):
        return None
    if seed != "all" and not seed.isdecimal():
        raise MedscaleError(f"seed {seed!r}: say best, all, or the number of a replicate")
    return seed if seed == "all" else int(seed)


def _ensembles(predictors: Sequence[Predictor]) -> dict[str, list[Predictor]]:
    """Return an ensemble for each study with several classification runs of the same classes."""
    groups: dict[str, list[Predictor]] = {}
    for predictor in predictors:
        if predictor.inference.task == "classification":
            groups.setdefault(f"{predictor.inference.study}/{ENSEMBLE}", []).append(predictor)
    return {
        name: members
        for name, members in groups.items()
        if len(members) > 1 and len({tuple(member.classes) for member in members}) == 1
    }


def _offer(name: str, members: list[Predictor], folder: Path | None) -> Offer:
    """Describe a model; ``folder`` is the result folder, or None for an ensemble."""
    inference, preprocessings = members[0].inference, _preprocessings(members)
    columns = {
        encoding.column: encoding.words
        for member in members
        for encoding in member.inference.metadata
    }
    scores: list[Score] = []
    operating: list[OperatingPoint] = []
    if folder is not None:
        scores, operating = summary.read(folder, inference, members[0].weights)
    model = Model(
        id=name,
        name=_in_words(members, folder is None),
        study=inference.study,
        run=ENSEMBLE if folder is None else inference.run,
        task=inference.task,
        classes=inference.classes,
        class_titles=inference.class_titles,
        networks=sum(len(member.networks) for member in members),
        folds=inference.folds if folder is not None else 0,
        members=[member.name for member in members] if folder is None else [],
        metadata=[Column(name=column, words=words) for column, words in columns.items()],
        calibration=_calibration(members),
        explains=_explains(name, members),
        scores=scores,
        operating=operating,
        examples=_examples(inference.kind),
        mark=mark([member.inference.marks for member in members]),
    )
    return Offer(model, tuple(preprocessings))


def _in_words(members: Sequence[Predictor], ensemble: bool) -> str:
    """Return the name of a model for people: the study's title, and the run in words."""
    inference = members[0].inference
    study = inference.title or inference.study.replace("_", " ")
    if ensemble:
        return f"{study}: ensemble of {len(members)} runs"
    try:
        RunSpec.parse(inference.run)
    except MedscaleError:  # a stranger's name
        return f"{study}: {inference.run}"
    return f"{study}: {names.label(inference.run)}"


def _examples(kind: str) -> list[str]:
    """Return the addresses of the example images of a dataset kind, in order."""
    paths = sorted(EXAMPLES.glob("*.jpg"))
    return [f"/static/examples/{p.name}" for p in paths if p.stem.rpartition("-")[0] == kind]


def _explains(name: str, members: list[Predictor]) -> bool:
    """Return whether heat maps are available, after predicting a blank image to find out."""
    sizes = [settings.size for settings in _preprocessings(members)]
    blank = DecodedImage([np.zeros((size, size, 3), np.uint8) for size in sizes], 64, 64, {})
    if members[0].inference.task == "classification":
        try:
            predict(Task(name, explain=True, calibrated=True), [blank])
            return True
        except MedscaleError:  # a network without convolutional maps
            pass
    predict(Task(name, explain=False, calibrated=True), [blank])
    return False


def _preprocessings(members: Sequence[Predictor]) -> list[Preprocess]:
    """Return the different preprocessings of the members, in order."""
    return list(dict.fromkeys(member.inference.preprocess for member in members))


def _method(members: Sequence[Predictor]) -> Method:
    return calibration_by([w.temperature for member in members for w in member.weights])


def _calibration(members: Sequence[Predictor]) -> Calibration:
    if members[0].inference.task == "detection":
        return Calibration(method="none", meaning=BOX_SENTENCE)
    method = _method(members)
    temperature = members[0].weights[0].temperature if method == "temperature" else None
    return Calibration(method=method, meaning=SENTENCES[method], temperature=temperature)
