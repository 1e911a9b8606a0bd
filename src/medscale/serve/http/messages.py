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
    """An uploaded image for a decoding process."""

    data: bytes = field(repr=False)  # its bytes, as sent
    # settings to preprocess it with; the result has pixels for each
    preprocessings: tuple[Preprocess, ...]
    preview: bool  # whether the result has a preview


@dataclass(frozen=True)
class DecodedImage:
    """A decoded and preprocessed image; a predicting process receives it without preview."""

    # uint8 RGB, shape size,size,3, for each preprocessing
    pixels: list[np.ndarray] = field(repr=False)
    width: int  # of the displayed image in pixels
    height: int  # of the displayed image in pixels
    # on the patient: from the headers (DICOM: age, sex, view), later also from the caller
    facts: Mapping[str, Any] = field(repr=False)
    preview: bytes | None = field(default=None, repr=False)  # a JPEG of the whole image, or None
    note: str | None = None  # which frame of several was used; hardly any contrast


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
class Task:
    """A model and its options for an image; images with equal tasks may share a batch."""

    model: str  # its name
    explain: bool  # with heat maps
    calibrated: bool  # with the model's temperatures, if it has any


@dataclass(frozen=True)
class ModelOutput:
    """A model's prediction for an image."""

    probabilities: dict[str, float] | None  # by class; None for a detector
    boxes: list[Finding] | None  # of a detector; otherwise None
    region: Region  # the part of the image that the network received
    heatmap: bytes | None = field(repr=False)  # a PNG, or None

    @property
    def label(self) -> str | None:
        """The most probable class; None for a detector."""
        values = self.probabilities
        return max(values, key=values.__getitem__) if values else None
