"""What the service answers, as its API page says; pixels and boxes are those of the image as it is shown."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

NOTICE = (
    "Research software, not a medical device: nothing here may be used to diagnose or treat anyone."
)


class Column(BaseModel):
    """Something that may be said of the patient beside the image; what is not said is unknown."""

    name: str
    words: list[str] | None = Field(description="the words that training knew; null: a number")


class Calibration(BaseModel):
    """Whether probabilities are calibrated, and how."""

    calibrated: bool
    says: str


class Score(BaseModel):
    """A metric of the run on its study's test images."""

    name: str
    mean: float
    low: float | None = Field(description="lower end of the 95 % interval")
    high: float | None


class Model(BaseModel):
    """A model that can be asked."""

    id: str
    study: str
    run: str
    task: Literal["classification", "detection"]
    classes: list[str]
    networks: int = Field(description="how many networks' probabilities are averaged")
    members: list[str] = Field(description="of an ensemble of runs: their models")
    metadata: list[Column]
    calibration: Calibration
    explains: bool = Field(description="whether it has heat maps (Grad-CAM)")
    scores: list[Score]
    mark: str = Field(
        description="what must be said beside its results, such as that it saw synthetic images alone"
    )


class Limits(BaseModel):
    """What a request may hold."""

    megabytes: float
    megapixels: float
    images: int
    kinds: list[str]


class Models(BaseModel):
    """All models, the first being what is asked where none is named."""

    notice: str = NOTICE
    models: list[Model]
    limits: Limits


class Region(BaseModel):
    """A rectangle in pixels of the image; x and y are its top left corner."""

    x: float
    y: float
    width: float
    height: float


class Finding(Region):
    """A box of a detector."""

    label: str
    confidence: float


class Refusal(BaseModel):
    """Why an image has no prediction."""

    status: int
    detail: str


class Result(BaseModel):
    """What is said of one image."""

    number: int = Field(description="its place in the request, from 1")
    error: Refusal | None = None
    width: int | None = None
    height: int | None = None
    label: str | None = Field(None, description="the most probable class")
    probabilities: dict[str, float] | None = Field(None, description="by class; null of a detector")
    boxes: list[Finding] | None = Field(None, description="of a detector, most confident first")
    seen: Region | None = Field(None, description="the part that the network saw")
    heatmap: str | None = Field(
        None,
        description="Grad-CAM for the most probable class: a PNG (data URL) to be laid over the whole image",
    )
    preview: str | None = Field(None, description="the image as it is shown: a JPEG as a data URL")


class Predictions(BaseModel):
    """The answer to a prediction."""

    notice: str = NOTICE
    model: str
    mark: str
    calibration: Calibration
    results: list[Result]


class Health(BaseModel):
    """Whether the service is there, or ready."""

    status: str
