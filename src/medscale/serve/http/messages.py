"""What the service and its processes hand each other; imports neither PyTorch nor OpenCV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medscale.config.sections import Preprocess
from medscale.serve.http.answers import Finding, Model, Region

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Encoded:
    """An upload, and what is wanted of it: preprocessed for each of ``wanted``, and a picture to show."""

    data: bytes = field(repr=False)
    wanted: tuple[Preprocess, ...]
    preview: bool


@dataclass(frozen=True)
class Decoded:
    """An image as networks take it.

    Attributes:
        pixels: uint8 RGB, shape size,size,3, one for each wanted preprocessing.
        width: pixels of the image as it is shown.
        height: the same.
        facts: what its headers tell of the patient (DICOM: age, sex, view).
        preview: a JPEG of the whole image, or None.
    """

    pixels: list[np.ndarray] = field(repr=False)
    width: int
    height: int
    facts: Mapping[str, Any] = field(repr=False)
    preview: bytes | None = field(repr=False)


@dataclass(frozen=True)
class Refused:
    """An upload that gives no pixels: the HTTP status to say so with, the audit's reason and what was seen."""

    status: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Offer:
    """A model that a predicting process has, and the preprocessings that it wants."""

    model: Model
    wanted: tuple[Preprocess, ...]


@dataclass(frozen=True)
class Asked:
    """An image for a model: its pixels in each wanted preprocessing, its size, and what is known of the patient."""

    pixels: list[np.ndarray] = field(repr=False)
    width: int
    height: int
    facts: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Said:
    """What a model says of an image; ``heatmap`` is a PNG."""

    probabilities: dict[str, float] | None
    boxes: list[Finding] | None
    seen: Region
    heatmap: bytes | None = field(repr=False)
