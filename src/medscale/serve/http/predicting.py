"""What a predicting process does: holds all models, and sends batches of decoded images through one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from medscale import load
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.config.sections import Preprocess
from medscale.engine.models.gradcam import gradcam
from medscale.engine.plan import Crop
from medscale.report.marks import mark
from medscale.serve.bundle import INFERENCE, Inference
from medscale.serve.http.answers import Calibration, Column, Finding, Model, Region, Score
from medscale.serve.http.messages import Asked, Offer, Said
from medscale.serve.predict import Predictor

ENSEMBLE = "ensemble"
HEAT = 256  # pixels of a heat map's longer side
OPAQUE = 200  # of 255, where the heat is greatest
SCORES = {
    "classification": {"accuracy": "accuracy", "auroc": "AUROC"},
    "detection": {"map50": "mAP50"},
}

_models: dict[str, list[Predictor]] = {}  # in a predicting process: a model's members


def found(paths: Sequence[Path]) -> list[Path]:
    """Result folders among the paths and below them.

    Raises:
        MedscaleError: for a path that is none and holds none.
    """
    folders: list[Path] = []
    for path in paths:
        here = (
            [path]
            if (path / INFERENCE).is_file()
            else sorted(file.parent for file in path.rglob(INFERENCE))
        )
        if not here:
            raise MedscaleError(
                f"{path} holds no result that can be used (no {INFERENCE}); name a result folder, or one of such"
            )
        folders += here
    return folders


def start(number: int, paths: Sequence[Path], seed: str, device: str, threads: int) -> list[Offer]:
    """Load all models in this process, and predict once with each.

    Args:
        number: of this process; processes are spread over the GPUs.
        paths: result folders, or folders that hold some.
        seed: which replicates predict: best, all, or a number.
        device: auto, cpu or cuda.
        threads: of PyTorch.

    Raises:
        MedscaleError: when one cannot be loaded, or two are the same.
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
    for folder in found(paths):
        predictor = load(folder, _seed(seed, folder), f"cuda:{number % gpus}" if gpus else "cpu")
        name = f"{predictor.inference.study}/{predictor.inference.run}"
        if name in folders:
            raise MedscaleError(f"{folder} and {folders[name]} are both {name}; name one of them")
        folders[name], _models[name] = folder, [predictor]
    _models.update(_ensembles([members[0] for members in _models.values()]))
    return [_offer(name, members, folders.get(name)) for name, members in _models.items()]


def predict(key: tuple[str, bool], images: list[Asked]) -> list[Said]:
    """Send a batch through a model; ``key`` is its name, and whether heat maps are wanted.

    Args:
        key: see above.
        images: with as many pixels each as the model's offer wants.
    """
    name, explain = key
    members = _models[name]
    wanted = _wanted(members)
    first = members[0].inference
    batches = [
        np.stack([image.pixels[wanted.index(m.inference.preprocess)] for image in images])
        for m in members
    ]
    seen = [_seen(image.width, image.height, first.preprocess, first.crop) for image in images]
    if first.task == "detection":
        located = zip(members[0].boxes(batches[0]), images, seen, strict=True)
        return [
            Said(None, _boxes(boxes, one, first.classes[-1]), part, None)
            for boxes, one, part in located
        ]
    features = [
        member.features([_known(member, image.facts) for image in images]) for member in members
    ]
    probabilities = np.mean(
        [
            m.probabilities(b, f, _calibrated([m]))
            for m, b, f in zip(members, batches, features, strict=True)
        ],
        axis=0,
    )
    heat: Sequence[bytes | None] = [None] * len(images)
    if explain:
        heat = _heat(members, batches, features, probabilities.argmax(1), images)
    return [
        Said(dict(zip(first.classes, row.tolist(), strict=True)), None, part, picture)
        for row, part, picture in zip(probabilities, seen, heat, strict=True)
    ]


def _seed(seed: str, folder: Path) -> Any:
    if seed in ("best", "all"):
        detects = (folder / INFERENCE).is_file() and read_json(folder / INFERENCE).get(
            "task"
        ) == "detection"
        return "all" if seed == "all" and not detects else None
    if not seed.isdecimal():
        raise MedscaleError(f"seed {seed!r}: say best, all, or the number of a replicate")
    return int(seed)


def _ensembles(predictors: Sequence[Predictor]) -> dict[str, list[Predictor]]:
    """All classification runs of a study together, where there are several of the same classes."""
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
    """What is said of a model, and whether it has heat maps, which is tried."""
    inference = members[0].inference
    blank = Asked([np.zeros((w.size, w.size, 3), np.uint8) for w in _wanted(members)], 64, 64, {})
    explains = inference.task == "classification"
    try:
        predict((name, explains), [blank])
    except MedscaleError:  # a network without convolutional maps
        explains = False
        predict((name, explains), [blank])
    columns = {one.column: one.words for member in members for one in member.inference.metadata}
    model = Model(
        id=name,
        study=inference.study,
        run=ENSEMBLE if folder is None else inference.run,
        task=inference.task,
        classes=inference.classes,
        networks=sum(len(member.networks) for member in members),
        members=[]
        if folder is not None
        else [f"{m.inference.study}/{m.inference.run}" for m in members],
        metadata=[Column(name=column, words=words) for column, words in columns.items()],
        calibration=_calibration(members),
        explains=explains,
        scores=[] if folder is None else _scores(folder, inference),
        mark=mark([member.inference.marks for member in members]),
    )
    return Offer(model, tuple(_wanted(members)))


def _wanted(members: Sequence[Predictor]) -> list[Preprocess]:
    """The different preprocessings that the members want, in order."""
    return list(dict.fromkeys(member.inference.preprocess for member in members))


def _known(member: Predictor, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a member takes of what is known."""
    columns = {one.column for one in member.inference.metadata}
    return {name: value for name, value in facts.items() if name in columns}


def _calibrated(members: Sequence[Predictor]) -> bool:
    return all(weights.temperature is not None for member in members for weights in member.weights)


def _calibration(members: Sequence[Predictor]) -> Calibration:
    if members[0].inference.task == "detection":
        return Calibration(calibrated=False, says="Confidences of boxes are not calibrated.")
    if not _calibrated(members):
        return Calibration(
            calibrated=False, says="Probabilities are not calibrated: no temperature was fitted."
        )
    if sum(len(member.networks) for member in members) > 1:
        says = "The mean of probabilities that are each calibrated by a temperature; the mean itself was not."
        return Calibration(calibrated=False, says=says)
    temperature = members[0].weights[0].temperature
    says = f"Probabilities are calibrated by a temperature of {temperature:.3g}, fitted on validation images."
    return Calibration(calibrated=True, says=says)


def _scores(folder: Path, inference: Inference) -> list[Score]:
    """Metrics on the test images, where the result folder has them."""
    if not (folder / "summary.json").is_file():
        return []
    test = read_json(folder / "summary.json")["metrics"]["test"]
    return [
        Score(name=name, mean=test[key]["mean"], low=test[key]["low"], high=test[key]["high"])
        for key, name in SCORES[inference.task].items()
        if key in test and test[key]["mean"] is not None
    ]


def _seen(width: int, height: int, preprocess: Preprocess, crop: Crop | None) -> Region:
    """The part of an image that a network sees, in pixels."""
    x, y, w, h = 0.0, 0.0, float(width), float(height)
    if preprocess.fit == "cover":
        side = min(width, height)
        x, y, w, h = (width - side) // 2, (height - side) // 2, side, side
    if crop is not None:
        share = crop.size / preprocess.size
        x, y, w, h = x + w * (1 - share) / 2, y + h * (1 - share) / 2, w * share, h * share
    return Region(x=x, y=y, width=w, height=h)


def _boxes(found: np.ndarray, image: Asked, label: str) -> list[Finding]:
    scale = np.array([image.width, image.height, image.width, image.height, 1.0])
    names = ("x", "y", "width", "height", "confidence")
    return [
        Finding(label=label, **dict(zip(names, row, strict=True)))
        for row in (found * scale).tolist()
    ]


def _heat(
    members: Sequence[Predictor],
    batches: Sequence[np.ndarray],
    features: Sequence[np.ndarray | None],
    classes: np.ndarray,
    images: Sequence[Asked],
) -> list[bytes]:
    """The mean of all networks' Grad-CAM for the most probable class, over each whole image, as a PNG."""
    total = [np.zeros(_small(image), np.float32) for image in images]
    for member, pixels, given in zip(members, batches, features, strict=True):
        seen = member.seen(pixels)
        inputs = seen if given is None else (seen, torch.from_numpy(given).to(member.device))
        inference = member.inference
        for network in member.networks:
            heat, _ = gradcam(network, inputs, torch.from_numpy(classes).to(member.device))
            for canvas, one, image in zip(total, heat.float().cpu().numpy(), images, strict=True):
                _lay(
                    canvas,
                    one,
                    _seen(image.width, image.height, inference.preprocess, inference.crop),
                    image,
                )
    networks = sum(len(member.networks) for member in members)
    return [_picture(canvas / networks) for canvas in total]


def _small(image: Asked) -> tuple[int, int]:
    """Height and width of an image's heat map."""
    scale = HEAT / max(image.width, image.height)
    return max(1, round(image.height * scale)), max(1, round(image.width * scale))


def _lay(canvas: np.ndarray, heat: np.ndarray, seen: Region, image: Asked) -> None:
    """Add heat (h,w) where on the canvas of the whole image the network saw it."""
    down, across = canvas.shape[0] / image.height, canvas.shape[1] / image.width
    top, left = round(seen.y * down), round(seen.x * across)
    height = min(max(1, round(seen.height * down)), canvas.shape[0] - top)
    width = min(max(1, round(seen.width * across)), canvas.shape[1] - left)
    canvas[top : top + height, left : left + width] += cv2.resize(
        heat, (width, height), interpolation=cv2.INTER_CUBIC
    )


def _picture(heat: np.ndarray) -> bytes:
    """Heat in [0, 1] as a PNG: its colour and, more or less opaque, its alpha tell how much."""
    grey = np.clip(np.rint(heat * 255), 0, 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2BGRA)
    colours[..., 3] = np.rint(grey * (OPAQUE / 255))
    return bytes(cv2.imencode(".png", colours)[1])
