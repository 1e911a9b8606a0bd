"""The predicting process: holds all models, and predicts batches of decoded images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pydantic import ValidationError

from medscale import load
from medscale.base.errors import MedscaleError
from medscale.base.files import read_foreign_json
from medscale.base.paths import usable_below
from medscale.data.settings import Preprocess
from medscale.report.marks import mark
from medscale.serve import bundle
from medscale.serve.bundle import Inference
from medscale.serve.http.answers import Calibration, Column, Finding, Model, Score
from medscale.serve.http.heatmap import heatmaps, region_of
from medscale.serve.http.messages import ModelInput, ModelOutput, Offer
from medscale.serve.predict import Predictor

ENSEMBLE = "ensemble"  # the run in the name of a model that averages a study's runs
SCORES = {
    "classification": {"accuracy": "accuracy", "auroc": "AUROC"},
    "detection": {"map50": "mAP50"},
}

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
    for folder in usable_below(paths):
        predictor = load(folder, _seed(seed, folder), f"cuda:{number % gpus}" if gpus else "cpu")
        name = predictor.name
        if name in folders:
            raise MedscaleError(f"{folder} and {folders[name]} are both {name}; name one of them")
        folders[name], _models[name] = folder, [predictor]
    _models.update(_ensembles([members[0] for members in _models.values()]))
    return [_offer(name, members, folders.get(name)) for name, members in _models.items()]


def predict(key: tuple[str, bool], images: list[ModelInput]) -> list[ModelOutput]:
    """Predict a batch of images.

    Args:
        key: name of the model, and whether heat maps are wanted.
        images: with pixels for each preprocessing of the model's offer.
    """
    name, explain = key
    members = _models[name]
    first, preprocessings = members[0].inference, _preprocessings(members)
    regions = [region_of(image, first.preprocess, first.crop) for image in images]
    places = [preprocessings.index(member.inference.preprocess) for member in members]
    pixels = [np.stack([image.pixels[place] for image in images]) for place in places]
    if first.task == "detection":
        boxes = members[0].boxes(pixels[0], [(image.width, image.height) for image in images])
        return [
            ModelOutput(None, [Finding(**vars(box)) for box in of_image], region, None)
            for of_image, region in zip(boxes, regions, strict=True)
        ]
    features = [m.features([m.accepted(image.facts) for image in images]) for m in members]
    probabilities = np.mean(
        [
            member.probabilities(batch, facts, _calibrated([member]))
            for member, batch, facts in zip(members, pixels, features, strict=True)
        ],
        axis=0,
    )
    maps: Sequence[bytes | None] = [None] * len(images)
    if explain:
        maps = heatmaps(members, pixels, features, probabilities.argmax(1), images)
    return [
        ModelOutput(dict(zip(first.classes, row, strict=True)), None, region, heatmap)
        for row, region, heatmap in zip(probabilities.tolist(), regions, maps, strict=True)
    ]


def _seed(seed: str, folder: Path) -> Any:
    """Return the argument ``seed`` of ``load``; detectors cannot be averaged."""
    if seed == "best" or (seed == "all" and _detects(folder)):
        return None
    if seed != "all" and not seed.isdecimal():
        raise MedscaleError(f"seed {seed!r}: say best, all, or the number of a replicate")
    return seed if seed == "all" else int(seed)


def _detects(folder: Path) -> bool:
    return bundle.read(folder).task == "detection"


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
    model = Model(
        id=name,
        study=inference.study,
        run=ENSEMBLE if folder is None else inference.run,
        task=inference.task,
        classes=inference.classes,
        networks=sum(len(member.networks) for member in members),
        folds=inference.folds if folder is not None else 0,
        members=[member.name for member in members] if folder is None else [],
        metadata=[Column(name=column, words=words) for column, words in columns.items()],
        calibration=_calibration(members),
        explains=_explains(name, members),
        scores=[] if folder is None else _scores(folder, inference),
        mark=mark([member.inference.marks for member in members]),
    )
    return Offer(model, tuple(preprocessings))


def _explains(name: str, members: list[Predictor]) -> bool:
    """Return whether heat maps are available, after predicting a blank image to find out."""
    sizes = [settings.size for settings in _preprocessings(members)]
    blank = ModelInput([np.zeros((size, size, 3), np.uint8) for size in sizes], 64, 64, {})
    if members[0].inference.task == "classification":
        try:
            predict((name, True), [blank])
            return True
        except MedscaleError:  # a network without convolutional maps
            pass
    predict((name, False), [blank])
    return False


def _preprocessings(members: Sequence[Predictor]) -> list[Preprocess]:
    """Return the different preprocessings of the members, in order."""
    return list(dict.fromkeys(member.inference.preprocess for member in members))


def _calibrated(members: Sequence[Predictor]) -> bool:
    return all(weights.temperature is not None for member in members for weights in member.weights)


def _calibration(members: Sequence[Predictor]) -> Calibration:
    if members[0].inference.task == "detection":
        return Calibration(calibrated=False, says="Confidences of boxes are not calibrated.")
    if not _calibrated(members):
        says = "Probabilities are not calibrated: no temperature was fitted."
        return Calibration(calibrated=False, says=says)
    if sum(len(member.networks) for member in members) > 1:
        says = (
            "Each network's probabilities are calibrated by a temperature; their mean, which is"
            " shown, is not."
        )
        return Calibration(calibrated=False, says=says)
    temperature = members[0].weights[0].temperature
    says = (
        f"Probabilities are calibrated by a temperature of {temperature:.3g}, fitted on"
        " validation images."
    )
    return Calibration(calibrated=True, says=says)


def _scores(folder: Path, inference: Inference) -> list[Score]:
    """Return metrics on the test images, if the result folder has a summary.

    Raises MedscaleError when the summary is not as ``evaluate`` writes it.
    """
    path = folder / "summary.json"
    if not path.is_file():
        return []
    try:
        test = read_foreign_json(path)["metrics"]["test"]
        return [
            Score(name=name, mean=test[key]["mean"], low=test[key]["low"], high=test[key]["high"])
            for key, name in SCORES[inference.task].items()
            if key in test and test[key]["mean"] is not None
        ]
    except (LookupError, TypeError, ValidationError) as error:
        reason = type(error).__name__
        raise MedscaleError(f"{path} does not have the metrics of a result ({reason})") from None
