"""The service's answers; coordinates are pixels of the displayed image.

The page /docs shows these classes, their docstrings and the descriptions of their fields.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from medscale.serve.calibration import Calibration as Method

NOTICE = (
    "Research software, not a medical device: nothing here may be used to diagnose or treat anyone."
)


class Column(BaseModel):
    """A fact on the patient that a model takes with the image; a missing one is unknown."""

    name: str
    words: list[str] | None = Field(description="the values of the training data; null: a number")


class Calibration(BaseModel):
    """Whether and how probabilities are calibrated."""

    method: Method = Field(description="none without temperature, or with `calibrated=false`")
    meaning: str = Field(description="for a reader of the probabilities, in words")
    temperature: float | None = Field(
        None, description="divides the outputs of a single network before the softmax; null: none"
    )


class Score(BaseModel):
    """A metric of the run on its study's test images."""

    name: str
    mean: float
    low: float | None = Field(description="lower end of the 95 % interval")
    high: float | None


class Rate(BaseModel):
    """A share of test images, 0 to 1."""

    value: float = Field(ge=0, le=1)
    low: float | None = Field(ge=0, le=1, description="lower end of the 95 % interval")
    high: float | None = Field(ge=0, le=1)
    images: int = Field(ge=0, description="number of test images that it is a share of")


class OperatingPoint(BaseModel):
    """A threshold from which an image is called positive, and its rates on the test images."""

    label: str = Field(description="the class to detect, against all other classes")
    validation_specificity: float = Field(
        ge=0, le=1, description="share of other validation images at or below the threshold"
    )
    threshold: float = Field(
        ge=0, le=1, description="for the class's probability before calibration"
    )
    sensitivity: Rate
    specificity: Rate
    replicates: int = Field(
        ge=1, description="of the run; rates are means over them, each with its own threshold"
    )


class Model(BaseModel):
    """A model that the service offers."""

    id: str
    name: str = Field(description="study and run in words")
    study: str
    run: str
    task: Literal["classification", "detection"]
    classes: list[str]
    class_titles: dict[str, str] = Field(
        description="titles of classes for readers, by name; a class may have none"
    )
    networks: int = Field(description="number of networks whose probabilities are averaged")
    folds: int = Field(description="folds that the networks are of; 0 without cross-validation")
    members: list[str] = Field(description="of an ensemble of runs: the ids of their models")
    metadata: list[Column]
    calibration: Calibration
    explains: bool = Field(description="whether heat maps (Grad-CAM) are available")
    scores: list[Score]
    operating: list[OperatingPoint] = Field(description="empty where none is known")
    examples: list[str] = Field(
        description="addresses of synthetic example images; empty unless the kind of dataset is"
        " known and has some"
    )
    mark: str = Field(
        description="a limit to state with every result, such as training on synthetic images"
    )


class Limits(BaseModel):
    """Limits of a request."""

    megabytes: float
    megapixels: float
    images: int
    kinds: list[str]


class Models(BaseModel):
    """All models; a request that names no model uses the first."""

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


class Decision(BaseModel):
    """What an operating point of the model decides for an image."""

    label: str
    validation_specificity: float
    positive: bool = Field(description="whether the threshold is exceeded")


class Refusal(BaseModel):
    """Why an image has no prediction."""

    status: int
    detail: str


class Result(BaseModel):
    """The prediction for one image."""

    number: int = Field(description="position in the request, from 1")
    error: Refusal | None = None
    width: int | None = None
    height: int | None = None
    label: str | None = Field(None, description="the most probable class")
    probabilities: dict[str, float] | None = Field(
        None, description="by class; null for a detector"
    )
    decisions: list[Decision] | None = Field(
        None, description="at the model's operating points, in their order"
    )
    boxes: list[Finding] | None = Field(None, description="of a detector, most confident first")
    region: Region | None = Field(None, description="the part that the network received")
    heatmap: str | None = Field(
        None,
        description="Grad-CAM for the most probable class, a PNG (data URL) that covers the whole"
        " image",
    )
    note: str | None = Field(
        None, description="which frame of several was used; whether there is hardly any contrast"
    )
    preview: str | None = Field(None, description="the displayed image, a JPEG (data URL)")


class Predictions(BaseModel):
    """The answer to a prediction."""

    notice: str = NOTICE
    model: str
    mark: str
    calibration: Calibration
    results: list[Result]


class Health(BaseModel):
    """Whether the service runs, or is ready."""

    status: str
