"""Predictions on new images from a result folder, with the preprocessing of the training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medscale.base.errors import MedscaleError
from medscale.base.limits import usable_cores
from medscale.base.paths import usable_result
from medscale.data import metadata as encodings
from medscale.data.augment import Augmenter
from medscale.data.images import Unreadable
from medscale.data.prepare import PreparedImage
from medscale.engine.formats import NumberFormat, number_format, using
from medscale.engine.parallel.precision import Precision
from medscale.engine.plan import Augment
from medscale.serve import bundle, inputs
from medscale.serve.batches import FixedBatches
from medscale.serve.bundle import Inference, Weights
from medscale.serve.calibration import Calibration, calibration_by
from medscale.serve.devices import usable_device
from medscale.serve.inputs import Facts, Images, Metadata, NamedImage
from medscale.serve.networks import network


@dataclass(frozen=True)
class Box:
    """A detected finding: top left corner, width and height in pixels of the displayed image."""

    label: str
    x: float
    y: float
    width: float
    height: float
    confidence: float


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image."""

    source: str  # the image's path or number
    # by class, in the order of the classes; empty for a detector or an unreadable image
    probabilities: dict[str, float] = field(default_factory=dict)
    calibration: Calibration = "none"  # of the probabilities
    boxes: list[Box] | None = None  # of a detector, most confident first; otherwise None
    error: str | None = None  # why there is no prediction, or None
    # metadata that the network takes and that are unknown of the image
    unknown: list[str] = field(default_factory=list)
    note: str | None = None  # which frame of several was used; hardly any contrast

    @property
    def label(self) -> str | None:
        """The most probable class; None for a detector or an unreadable image."""
        values = self.probabilities
        return max(values, key=values.__getitem__) if values else None

    @property
    def probability(self) -> float | None:
        """The probability of the most probable class."""
        return self.probabilities[self.label] if self.label is not None else None


class Predictor:
    """A trained run that predicts new images; made by ``load``.

    With several replicates, probabilities are the mean over them (a deep ensemble,
    Lakshminarayanan et al., NeurIPS 2017).

    Attributes:
        inference: the content of inference.json.
        weights: the replicates in use.
        networks: their networks in evaluation mode, in that order.
        device: of the networks.
    """

    def __init__(
        self,
        inference: Inference,
        weights: list[Weights],
        networks: list[nn.Module],
        device: torch.device,
    ):
        layout = torch.channels_last if inference.channels_last else torch.contiguous_format
        self.inference, self.weights, self.device = inference, weights, device
        self.networks = [net.to(device).to(memory_format=layout) for net in networks]
        self._layout = layout
        name = number_format(inference.amp, inference.tf32, inference.half, device)
        self._precision = Precision(name, device)
        # Captured on GPUs alone: a CPU starts no kernels.
        self._forward = FixedBatches(self._networks, 1) if device.type == "cuda" else self._networks
        self._augmenter = Augmenter(Augment(crop=inference.crop), np.zeros(0), 0)

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.inference.classes

    @property
    def format(self) -> NumberFormat:
        """The number format of the networks on this device: fp32, tf32, bf16 or fp16."""
        return self._precision.format

    @property
    def name(self) -> str:
        """The run's name in messages and requests: ``<study>/<run>``."""
        return f"{self.inference.study}/{self.inference.run}"

    def predict(
        self,
        images: Images,
        metadata: Metadata = None,
        *,
        batch_size: int = 32,
        calibrated: bool = True,
    ) -> Prediction | list[Prediction]:
        """Predict one image, a list of them, or all in a folder.

        Args:
            images: a path, a file's bytes, a PIL image, a uint8 array (H,W,3 RGB or H,W grey), or
                a folder or list.
            metadata: facts on the patients, for networks that take them
                (``{"age": 61, "sex": "female"}``): one mapping for all images, a list with a
                mapping for each, or a table with a column ``path``. A column that is left out is
                taken from DICOM headers, and is otherwise unknown.
            batch_size: images in a batch.
            calibrated: divide logits by the temperatures fitted on the validation split, if there
                are any. Without them, and with False, probabilities equal those of
                predictions.parquet, to which the thresholds of a result belong.

        Returns:
            A prediction for one image; otherwise a list in order, in which an unreadable image has
            an ``error``.

        Raises:
            Unreadable: when the one image cannot be read.
            MedscaleError: for an object that is no image, or metadata that the network does not
                take, or a ``batch_size`` below 1.
        """
        items, is_single = inputs.name_images(images), inputs.is_single(images)
        predictions = list(
            self.stream(items, metadata, batch_size, calibrated, skip_unreadable=not is_single)
        )
        return predictions[0] if is_single else predictions

    def stream(
        self,
        items: Sequence[NamedImage],
        metadata: Metadata = None,
        batch_size: int = 32,
        calibrated: bool = True,
        *,
        skip_unreadable: bool = True,
    ) -> Iterator[Prediction]:
        """Yield the predictions of named images in order, decoding the next batch meanwhile.

        Arguments as of ``predict``. An image that cannot be read gives a prediction with an
        ``error``; without ``skip_unreadable`` it raises Unreadable.
        """
        facts = inputs.metadata_by_image([name for name, _ in items], metadata)
        inputs.check_words(facts, self.inference.metadata)
        start = 0
        for batch in self.read_batches([image for _, image in items], batch_size):
            errors = [image for image in batch if isinstance(image, Unreadable)]
            if errors and not skip_unreadable:
                raise errors[0]
            end = start + len(batch)
            names = [name for name, _ in items[start:end]]
            yield from self._predict_batch(names, batch, facts[start:end], calibrated)
            start = end

    def read_batches(
        self, images: Sequence[inputs.ImageInput], batch_size: int
    ) -> Iterator[list[tuple[PreparedImage, Facts] | Unreadable]]:
        """Yield batches of prepared images, with the facts in their headers, in order.

        The next batch is decoded meanwhile. An image that cannot be read is its error. Raises
        MedscaleError for a ``batch_size`` below 1.
        """
        if batch_size < 1:
            raise MedscaleError(f"batch_size is {batch_size}: a batch has at least one image")
        with ThreadPoolExecutor(usable_cores(), "decode") as threads:
            following = threads.map(self._read, images[:batch_size])
            for end in range(batch_size, len(images) + batch_size, batch_size):
                reading = following
                following = threads.map(self._read, images[end : end + batch_size])
                yield list(reading)

    def prepare(self, image: inputs.ImageInput) -> tuple[PreparedImage, Facts]:
        """Read one image: pixels preprocessed as for training, and the facts in its headers.

        Raises:
            Unreadable: with the audit's reason.
        """
        return inputs.read(image, self.inference.preprocess)

    def calibration(self, calibrated: bool = True) -> Calibration:
        """Return how probabilities are calibrated; ``calibrated`` as of ``predict``."""
        temperatures = [weights.temperature for weights in self.weights]
        return calibration_by(temperatures) if calibrated else "none"

    def temperatures(self, calibrated: bool = True) -> Tensor:
        """Return the divisor of each network's logits, float32, shape S; 1 if none is used."""
        is_used = self.calibration(calibrated) != "none"
        divisors = [(weights.temperature if is_used else None) or 1.0 for weights in self.weights]
        return torch.tensor(divisors, device=self.device)

    def accepted(self, header: Facts, facts: Facts | None = None) -> dict[str, Any]:
        """Return the facts in a header that the network takes, and the caller's, which win."""
        columns = {encoding.column for encoding in self.inference.metadata}
        return {name: header[name] for name in header if name in columns} | dict(facts or {})

    def features(self, facts: Sequence[Facts]) -> np.ndarray | None:
        """Encode the facts on each image: float32, shape n,F; None if the network takes none.

        Raises MedscaleError for a column that the network does not take, or text for a number.
        """
        columns = self.inference.metadata
        return encodings.apply(columns, inputs.metadata_rows(facts, columns))

    def network_inputs(
        self, pixels: np.ndarray, features: np.ndarray | None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Crop and normalize preprocessed images, and put the inputs on the device.

        Args:
            pixels: uint8, n,size,size,3.
            features: float32, n,F, or None.

        Returns:
            Images, float32, n,3,h,w; with features, both.
        """
        images = torch.from_numpy(pixels).to(self.device)
        size = (pixels.shape[1], pixels.shape[2])
        changes = self._augmenter.neutral(len(pixels), size).to(self.device)
        images = self._augmenter.apply(images, changes, training=False)
        images = images.contiguous(memory_format=self._layout)
        return images if features is None else (images, torch.from_numpy(features).to(self.device))

    @torch.inference_mode()
    def logits(self, pixels: np.ndarray, features: np.ndarray | None = None) -> Tensor:
        """Return the raw outputs of each network, float32, shape S,n,…; see ``network_inputs``."""
        inputs = self.network_inputs(pixels, features)
        outputs = self._forward(*([inputs] if isinstance(inputs, Tensor) else inputs))
        if not torch.isfinite(outputs).all():
            raise MedscaleError(f"{self.name}: the network's outputs are not finite")
        return outputs

    def _networks(self, *inputs: Tensor) -> Tensor:
        """Return the raw outputs of each network; inputs as those of ``network_inputs``."""
        with using(self._precision.format), self._precision.autocast():
            together = inputs[0] if len(inputs) == 1 else inputs
            return torch.stack([net(together).float() for net in self.networks])

    def probabilities(
        self, pixels: np.ndarray, features: np.ndarray | None = None, calibrated: bool = True
    ) -> np.ndarray:
        """Return the mean probabilities over the networks, float32, n,K.

        Arguments as of ``network_inputs`` and ``predict``.
        """
        logits = self.logits(pixels, features) / self.temperatures(calibrated).view(-1, 1, 1)
        return torch.softmax(logits, 2).mean(0).cpu().numpy()

    def boxes(self, pixels: np.ndarray, sizes: Sequence[tuple[int, int]]) -> list[list[Box]]:
        """Return each image's boxes in pixels, most confident first.

        Args:
            pixels: preprocessed images, uint8, n,size,size,3.
            sizes: width and height of each displayed image in pixels.
        """
        from medscale.engine.detect.task import suppress

        corners, confidences = self.head.decode(self.logits(pixels)[0])
        threshold, label = self.weights[0].threshold or 0.0, self.classes[-1]
        boxes = []
        for corner, confidence, size in zip(corners, confidences, sizes, strict=True):
            # Rows of x, y, width, height as shares of the image's sides, and confidence.
            rows = suppress(corner, confidence).cpu().numpy()
            rows = rows[rows[:, 4] >= threshold] * np.array([*size, *size, 1.0])
            boxes.append([Box(label, *row) for row in rows.tolist()])
        return boxes

    def table(self, predictions: Sequence[Prediction]) -> pd.DataFrame:
        """Return predictions as a table.

        Returns:
            A row an image, ``path, label, probability, p_<class> …, calibration, error, note``; of
            a detector a row a box, ``path, label, x, y, width, height, confidence, error, note``,
            and one row for an image without boxes.
        """
        if self.inference.task == "detection":
            columns = ["path", *Box.__annotations__, "error", "note"]
            rows = [
                {"path": image.source, "error": image.error, "note": image.note}
                | (vars(box) if box else {})
                for image in predictions
                for box in image.boxes or (None,)
            ]
        else:
            names = [f"p_{name}" for name in self.classes]
            columns = ["path", "label", "probability", *names, "calibration", "error", "note"]
            rows = [
                {"path": image.source, "error": image.error, "note": image.note}
                | {"label": image.label, "probability": image.probability}
                | {"calibration": image.calibration if image.probabilities else None}
                | {f"p_{name}": value for name, value in image.probabilities.items()}
                for image in predictions
            ]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def head(self) -> Any:
        """The part of a detector that turns its outputs into boxes."""
        from medscale.engine.detect import yolo

        return yolo.BoxLoss(self.networks[0], self.inference.preprocess.size)

    def _read(self, image: inputs.ImageInput) -> tuple[PreparedImage, Facts] | Unreadable:
        try:
            return self.prepare(image)
        except Unreadable as error:
            return error

    def _predict_batch(
        self,
        names: list[str],
        images: Sequence[tuple[PreparedImage, Facts] | Unreadable],
        facts: Sequence[Facts],
        calibrated: bool,
    ) -> list[Prediction]:
        """Return a batch's predictions; an unreadable image's has its error.

        Args:
            names: of the images.
            images: what reading each image gave.
            facts: from the caller, on each image; they win over those in headers.
            calibrated: as ``predict``.
        """
        predictions, readable = {}, {}
        for number, image in enumerate(images):
            if isinstance(image, Unreadable):
                predictions[number] = Prediction(names[number], error=str(image))
            else:
                readable[number] = image
        if readable:
            metadata = [self.accepted(header, facts[n]) for n, (_, header) in readable.items()]
            prepared = [item for item, _ in readable.values()]
            results = self._results(prepared, metadata, calibrated)
            for n, item, image_facts, result in zip(
                readable, prepared, metadata, results, strict=True
            ):
                unknown = inputs.unknown(image_facts, self.inference.metadata)
                predictions[n] = Prediction(names[n], unknown=unknown, note=item.note, **result)
        return [predictions[number] for number in range(len(names))]

    def _results(
        self, images: Sequence[PreparedImage], facts: Sequence[Facts], calibrated: bool
    ) -> list[dict[str, Any]]:
        """Return the fields of each image's prediction: its boxes, or its probabilities."""
        pixels = np.stack([image.pixels for image in images])
        features = self.features(facts)
        if self.inference.task == "detection":
            sizes = [(image.width, image.height) for image in images]
            return [{"boxes": boxes} for boxes in self.boxes(pixels, sizes)]
        rows = self.probabilities(pixels, features, calibrated).tolist()
        calibration = self.calibration(calibrated)
        return [
            {"probabilities": dict(zip(self.classes, row, strict=True)), "calibration": calibration}
            for row in rows
        ]


def load(
    folder: str | Path,
    seed: int | Literal["all"] | None = None,
    device: str | None = None,
    fold: int | None = None,
) -> Predictor:
    """Load a trained run; see ``medscale.load``.

    ``fold``: the network of one fold alone, which was not trained on the fold's images.
    """
    folder = usable_result(folder)
    inference = bundle.read(folder)
    weights = inference.weights(seed, fold)
    if inference.task == "detection" and len(weights) > 1:
        raise MedscaleError("boxes of several detectors cannot be combined; load one seed")
    networks = [network(inference, folder, replicate) for replicate in weights]
    return Predictor(inference, weights, networks, usable_device(device))
