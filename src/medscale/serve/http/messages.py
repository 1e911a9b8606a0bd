"""Messages between the service and its processes; without imports of PyTorch and OpenCV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medscale.data.settings import Preprocess
from medscale.serve.http.answers import Finding, Model, Region

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class EncodedImage:
    """An uploaded image for a decoding process.

    Attributes:
        data: its bytes, as sent.
        preprocessings: settings to preprocess it with; the result has pixels for each.
        preview: whether the result has a preview.
    """

    data: bytes = field(repr=False)
    preprocessings: tuple[Preprocess, ...]
    preview: bool


@dataclass(frozen=True)
class DecodedImage:
    """A decoded and preprocessed image.

    Attributes:
        pixels: uint8 RGB, shape size,size,3, for each preprocessing.
        width: of the displayed image in pixels.
        height: of the displayed image in pixels.
        facts: on the patient, from the headers (DICOM: age, sex, view).
        preview: a JPEG of the whole image, or None.
    """

    pixels: list[np.ndarray] = field(repr=False)
    width: int
    height: int
    facts: Mapping[str, Any] = field(repr=False)
    preview: bytes | None = field(repr=False)


@dataclass(frozen=True)
class RefusedImage:
    """An upload that cannot be decoded: the HTTP status, the audit's reason and a detail."""

    status: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Offer:
    """A model in the predicting processes, and the preprocessings that its networks need."""

    model: Model
    preprocessings: tuple[Preprocess, ...]


@dataclass(frozen=True)
class ModelInput:
    """An image for a model.

    Attributes:
        pixels: as ``DecodedImage.pixels``, for the preprocessings of the model's offer.
        width: of the displayed image in pixels.
        height: of the displayed image in pixels.
        facts: on the patient.
    """

    pixels: list[np.ndarray] = field(repr=False)
    width: int
    height: int
    facts: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class ModelOutput:
    """A model's prediction for an image.

    Attributes:
        probabilities: by class; None for a detector.
        boxes: of a detector; otherwise None.
        region: the part of the image that the network received.
        heatmap: a PNG, or None.
    """

    probabilities: dict[str, float] | None
    boxes: list[Finding] | None
    region: Region
    heatmap: bytes | None = field(repr=False)

    @property
    def label(self) -> str | None:
        """The most probable class; None for a detector."""
        values = self.probabilities
        return max(values, key=values.__getitem__) if values else None
