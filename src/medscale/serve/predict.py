"""Predictions on new images from a result folder, by the preprocessing and precision that it was trained with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from os import sched_getaffinity
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medscale.base.errors import MedscaleError
from medscale.base.log import track
from medscale.data import metadata as encodings
from medscale.data.augment import Augmenter
from medscale.data.images import Unreadable
from medscale.data.prepare import Prepared
from medscale.engine.parallel.precision import Precision
from medscale.engine.plan import Augment
from medscale.serve import bundle, inputs
from medscale.serve.bundle import Inference, Weights
from medscale.serve.inputs import Facts, Images, Named
from medscale.serve.networks import network


@dataclass(frozen=True)
class Box:
    """A finding: the top left corner, width and height in pixels of the image as it is shown."""

    label: str
    x: float
    y: float
    width: float
    height: float
    confidence: float


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Attributes:
        source: the image's path or number.
        probabilities: by class, in the order of the classes; empty for a detector or an unreadable image.
        boxes: of a detector, most confident first; else None.
        error: why there is no prediction, or None.
    """

    source: str
    probabilities: dict[str, float] = field(default_factory=dict)
    boxes: list[Box] | None = None
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The most probable class; None for a detector or an unreadable image."""
        return (
            max(self.probabilities, key=self.probabilities.__getitem__)
            if self.probabilities
            else None
        )

    @property
    def probability(self) -> float | None:
        """Its probability."""
        return self.probabilities[self.label] if self.label is not None else None


class Predictor:
    """A trained run, ready for new images; made by ``load``.

    With several replicates the probabilities are their mean (a deep ensemble, Lakshminarayanan et al. 2017).

    Attributes:
        inference: what the result folder records.
        weights: the replicates in use.
        networks: their networks in evaluation, in that order.
        device: where they are.
    """

    def __init__(
        self,
        inference: Inference,
        weights: list[Weights],
        networks: list[nn.Module],
        device: torch.device,
    ):
        form = torch.channels_last if inference.channels_last else torch.contiguous_format
        self.inference, self.weights, self.device = inference, weights, device
        self.networks = [one.to(device).to(memory_format=form) for one in networks]
        self._form, self._precision = form, Precision.of(inference.amp, device)
        self._eyes = Augmenter(Augment(crop=inference.crop), np.zeros(0), 0)

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.inference.classes

    def predict(
        self,
        images: Images,
        metadata: Facts | Sequence[Facts] | pd.DataFrame | None = None,
        *,
        batch_size: int = 32,
        calibrated: bool = False,
        progress: str = "",
    ) -> Prediction | list[Prediction]:
        """Predict one image, a list of them, or all in a folder.

        Args:
            images: a path, a file's bytes, a PIL image, a uint8 array (H,W,3 RGB or H,W grey), or a folder or list.
            metadata: what is known of the images, for networks that take it (``{"age": 61, "sex": "female"}``): of all
                alike, a list of each, or a table with a column ``path``. What is not said is taken from DICOM headers,
                and else is unknown.
            batch_size: images at a time.
            calibrated: divide logits by the temperature that was fitted on the validation split.
            progress: name of a progress bar; without one there is none.

        Returns:
            A prediction for one image, else a list in order, in which an unreadable image has an ``error``.

        Raises:
            Unreadable: when the one image cannot be read.
            MedscaleError: for what is no image, metadata that the network does not take, or no temperature.
        """
        items = inputs.named(images)
        if inputs.is_one(images):
            (name, image), told = items[0], inputs.metadata_of([items[0][0]], metadata)
            return self._batch([name], [self.prepare(image)], told, calibrated)[0]
        return list(
            track(self.stream(items, metadata, batch_size, calibrated), progress, len(items))
        )

    def stream(
        self,
        items: Sequence[Named],
        metadata: Facts | Sequence[Facts] | pd.DataFrame | None = None,
        batch_size: int = 32,
        calibrated: bool = False,
    ) -> Iterator[Prediction]:
        """Predictions of named images in order, batch by batch; the next batch is decoded meanwhile."""
        told = inputs.metadata_of([name for name, _ in items], metadata)
        with ThreadPoolExecutor(len(sched_getaffinity(0)), "decode") as threads:
            following = [threads.submit(self._read, item) for item in items[:batch_size]]
            for start in range(0, len(items), batch_size):
                reading, end = following, start + batch_size
                following = [
                    threads.submit(self._read, item) for item in items[end : end + batch_size]
                ]
                names = [name for name, _ in items[start:end]]
                yield from self._batch(
                    names, [one.result() for one in reading], told[start:end], calibrated
                )

    def prepare(self, image: inputs.One) -> tuple[Prepared, Facts]:
        """Read one image: pixels as the network was trained on them, and what its headers tell of the patient.

        Raises:
            Unreadable: with the audit's reason.
        """
        return inputs.read(image, self.inference.preprocess)

    def features(self, facts: Sequence[Facts]) -> np.ndarray | None:
        """Metadata of each image as features, float32, shape n,F; None where the network takes images alone.

        Raises:
            MedscaleError: for a fact that the network does not know, or that is no number where one is wanted.
        """
        return encodings.apply(self.inference.metadata, inputs.rows(facts, self.inference.metadata))

    def seen(self, pixels: np.ndarray) -> Tensor:
        """Preprocessed images (uint8, n,size,size,3) cropped and normalized: float32, n,3,h,w, on the device."""
        images = torch.from_numpy(pixels).to(self.device)
        changes = self._eyes.neutral(len(pixels), (pixels.shape[1], pixels.shape[2])).to(
            self.device
        )
        return self._eyes.apply(images, changes, training=False).contiguous(
            memory_format=self._form
        )

    @torch.inference_mode()
    def logits(self, pixels: np.ndarray, features: np.ndarray | None = None) -> Tensor:
        """Raw outputs of each network in use, float32, shape S,n,…, for preprocessed images (uint8, n,size,size,3)."""
        images = self.seen(pixels)
        given = images if features is None else (images, torch.from_numpy(features).to(self.device))
        with self._precision.autocast():
            return torch.stack([one(given).float() for one in self.networks])

    def probabilities(
        self, pixels: np.ndarray, features: np.ndarray | None = None, calibrated: bool = False
    ) -> np.ndarray:
        """Mean probabilities of the networks in use, float32, shape n,K; see ``logits``.

        Raises:
            MedscaleError: when calibrated ones are wanted and no temperature was fitted.
        """
        logits = self.logits(pixels, features)
        if calibrated:
            logits = logits / self._temperatures.view(-1, 1, 1)
        return torch.softmax(logits, 2).mean(0).cpu().numpy()

    def boxes(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Boxes of each image, float32, shape B,5: x, y, width, height as shares of its sides, and confidence."""
        from medscale.engine.detect.task import suppress

        corners, confidence = self.head.decode(self.logits(pixels)[0])
        least = self.weights[0].threshold or 0.0
        found = [suppress(c, s).cpu().numpy() for c, s in zip(corners, confidence, strict=True)]
        return [boxes[boxes[:, 4] >= least] for boxes in found]

    def table(self, predictions: Sequence[Prediction]) -> pd.DataFrame:
        """Predictions as a table: a row an image; of a detector a row a box, and one for an image without.

        Returns:
            ``path, label, probability, p_<class> …, error``, or of boxes ``path, label, x, y, width, height,
            confidence, error``.
        """
        if self.inference.task == "detection":
            columns = ["path", *Box.__annotations__, "error"]
            rows = [
                {"path": one.source, "error": one.error, **(vars(box) if box else {})}
                for one in predictions
                for box in one.boxes or (None,)
            ]
        else:
            columns = [
                "path",
                "label",
                "probability",
                *(f"p_{name}" for name in self.classes),
                "error",
            ]
            rows = [
                {
                    "path": one.source,
                    "label": one.label,
                    "probability": one.probability,
                    "error": one.error,
                }
                | {f"p_{name}": value for name, value in one.probabilities.items()}
                for one in predictions
            ]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def head(self) -> Any:
        """What turns a detector's outputs into boxes."""
        from medscale.engine.detect import yolo

        return yolo.BoxLoss(self.networks[0], self.inference.preprocess.size)

    @cached_property
    def _temperatures(self) -> Tensor:
        values = [one.temperature for one in self.weights]
        if None in values:
            raise MedscaleError(
                f"no temperature was fitted for {self.inference.study}/{self.inference.run}"
            )
        return torch.tensor(values, device=self.device)

    def _read(self, item: Named) -> tuple[Prepared, Facts] | Unreadable:
        try:
            return self.prepare(item[1])
        except Unreadable as error:
            return error

    def _batch(
        self,
        names: list[str],
        read: list[tuple[Prepared, Facts] | Unreadable],
        told: list[Facts],
        calibrated: bool,
    ) -> list[Prediction]:
        """One batch's predictions, with errors where they belong."""
        there = {n: one for n, one in enumerate(read) if not isinstance(one, Unreadable)}
        answers = {
            n: Prediction(names[n], error=str(one))
            for n, one in enumerate(read)
            if isinstance(one, Unreadable)
        }
        if there:
            pixels = np.stack([prepared.pixels for prepared, _ in there.values()])
            columns = {one.column for one in self.inference.metadata}
            own = [
                {k: v for k, v in headers.items() if k in columns} for _, headers in there.values()
            ]
            features = self.features(
                [{**known, **told[n]} for n, known in zip(there, own, strict=True)]
            )
            if self.inference.task == "detection":
                results = self._found(pixels, [prepared for prepared, _ in there.values()])
            else:
                found = self.probabilities(pixels, features, calibrated)
                results = [
                    {"probabilities": dict(zip(self.classes, row.tolist(), strict=True))}
                    for row in found
                ]
            answers |= {
                n: Prediction(names[n], **one) for n, one in zip(there, results, strict=True)
            }
        return [answers[n] for n in range(len(names))]

    def _found(self, pixels: np.ndarray, prepared: list[Prepared]) -> list[dict[str, Any]]:
        """Boxes in pixels of each image."""
        label, answers = self.classes[-1], []
        for one, boxes in zip(prepared, self.boxes(pixels), strict=True):
            scaled = boxes * np.array([one.width, one.height, one.width, one.height, 1.0])
            answers.append({"boxes": [Box(label, *row) for row in scaled.tolist()]})
        return answers


def load(
    folder: str | Path, seed: int | Literal["all"] | None = None, device: str | None = None
) -> Predictor:
    """Load what a run trained, from its result folder, wherever that was copied to.

    Nothing is unpickled: weights are safetensors, all else is JSON.

    Args:
        folder: ``results/<study>/<run>``.
        seed: which replicate; None for the one that did best on the validation split, 'all' for the mean of all.
        device: such as ``cpu`` or ``cuda:0``; None for a GPU where there is one.

    Raises:
        MedscaleError: when the folder is no result folder, is not whole, or has no such replicate.
    """
    folder = Path(folder)
    inference = bundle.read(folder)
    weights = inference.weights(seed)
    if inference.task == "detection" and len(weights) > 1:
        raise MedscaleError("boxes of several detectors are not put together; load one seed")
    networks = [network(inference, folder, one) for one in weights]
    return Predictor(inference, weights, networks, _device(device))


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise MedscaleError(f"device {name!r}: {str(error).splitlines()[0]}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MedscaleError(f"device {name!r}: there is no GPU here that PyTorch can use")
    return device
