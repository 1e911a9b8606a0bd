"""The file of claims (claims.yaml): its schema, and the published figures that it refers to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medscale.base.errors import MedscaleError
from medscale.base.section import Strict
from medscale.base.suggest import suggestion
from medscale.config.yaml_file import read_section
from medscale.report.claims.measures import MEASURES

PAPER, PUBLISHED = "paper", "published"
SEPARATOR = " / "  # between the keys that lead to a figure in reported.yaml
Comparison = Literal["equivalent", "near", "at_least", "at_most"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Published(Strict):
    """An expected value made from figures of reported.yaml, each named by its keys."""

    value: str | None = Field(None, description="one figure")
    ratio: list[str] | None = Field(
        None, min_length=2, max_length=2, description="the first figure divided by the second"
    )
    difference: list[str] | None = Field(
        None, min_length=2, max_length=2, description="the second figure minus the first"
    )

    @model_validator(mode="after")
    def _single_value(self) -> Published:
        if [self.value, self.ratio, self.difference].count(None) != 2:
            raise ValueError("give one of value, ratio and difference")
        return self


class Change(Strict):
    """The fields of a claim that differ at demo scale."""

    statement: str | None = Field(None, description="needed where run or value is another")
    run: str | None = None
    baseline: str | None = None
    expected: float | None = None
    tolerance: float | None = Field(None, ge=0)
    reason: str = Field(description="reason of the value and the tolerance at demo scale")

    @model_validator(mode="after")
    def _stated(self) -> Change:
        changes = (self.run, self.baseline, self.expected, self.tolerance)
        if self.statement is None and changes != (None,) * 4:
            raise ValueError("another run or value needs another statement")
        return self


class Claim(Strict):
    """A statement with its test."""

    statement: str = Field(min_length=1, description="the sentence, without its value")
    origin: Literal["paper", "published"] = Field(
        "paper", description="published: a conclusion of the project that `study` repeats"
    )
    figure: str | None = Field(None, description="name of the figure that shows it")
    table: str | None = Field(None, description="name of the table that shows it")
    study: str | None = Field(None, description="study of the runs; null for a software test")
    measure: str = Field(description="measured quantity: a name of report/claims/measures.py")
    run: str | None = Field(None, description="run that the claim is about")
    baseline: str | None = Field(
        None, description="run that it is compared with; null: the study's baseline"
    )
    variant: str | None = Field(None, description="variant of the study that is compared with it")
    metric: str = Field("accuracy", description="metric of a score")
    test: str | None = Field(None, description="test of the software, as pytest names it")
    compare: Comparison = Field(description="relation of the measured to the expected value")
    expected: float | Published | None = Field(
        None, description="expected value in the unit of the measure; null for `equivalent`"
    )
    tolerance: float | None = Field(
        None, ge=0, description="null: the study's evaluate.margin, for `equivalent` alone"
    )
    reason: str = Field(min_length=1, description="reason of the expected value and the tolerance")
    minutes: float = Field(gt=0, description="minutes of all trainings that it needs, full scale")
    hardware: str = Field(description="devices on which it takes these minutes")
    demo: Change | str = Field(
        description="changes at demo scale, or the reason why it is not measured there"
    )

    @model_validator(mode="after")
    def _complete(self) -> Claim:
        if self.measure not in MEASURES:
            raise ValueError(f"measure: {unknown(self.measure, MEASURES)}")
        if self.figure is None and self.table is None:
            raise ValueError("give the figure or the table that shows it")
        measure = MEASURES[self.measure]
        for field in measure.needs:
            if getattr(self, field) is None:
                raise ValueError(f"the measure {self.measure} needs {field}")
        if self.compare == "equivalent":
            if self.expected is not None or self.tolerance is not None:
                raise ValueError(
                    "equivalent has neither expected nor tolerance, since evaluate.margin of the "
                    "settings is the margin: leave both out"
                )
            if not measure.paired:
                raise ValueError(f"equivalent is no comparison of {self.measure}")
        elif self.expected is None or self.tolerance is None:
            raise ValueError(f"{self.compare} needs expected and tolerance")
        return self


class Claims(Strict):
    """The file of claims."""

    claims: dict[Name, Claim]


def unknown(name: str, choices: Iterable[str]) -> str:
    """Return a message on an unknown name, with the known name that is closest."""
    names = sorted(set(choices))
    hint = suggestion(name, names).strip() or f"there are: {', '.join(names)}"
    return f"there is no {name!r}; {hint}"


def read_claims(path: Path) -> dict[str, Claim]:
    """Read a file of claims.

    Raises MedscaleError for a file that is missing or no YAML, and for wrong fields, each named.
    """
    return read_section(path, Claims).claims


def accepted(compare: str, expected: float, tolerance: float) -> tuple[float | None, float | None]:
    """Return the lowest and the highest accepted value; None for no bound.

    Args:
        compare: ``near``, ``at_least``, ``at_most`` or ``equivalent`` (near 0).
    """
    low = None if compare == "at_most" else expected - tolerance
    high = None if compare == "at_least" else expected + tolerance
    return low, high


def published(expected: Published, figures: dict[str, Any]) -> float:
    """Return an expected value from the published figures of a study.

    A published range counts by its middle. Raises MedscaleError for a figure that does not exist.
    """
    if expected.value is not None:
        return _figure(figures, expected.value)
    if expected.ratio is not None:
        above, below = (_figure(figures, place) for place in expected.ratio)
        return above / below
    first, second = (_figure(figures, place) for place in expected.difference or ())
    return second - first


def _figure(figures: dict[str, Any], place: str) -> float:
    value: Any = figures
    for key in place.split(SEPARATOR):
        keys = {str(name): name for name in value} if isinstance(value, dict) else {}
        if key not in keys:
            raise MedscaleError(f"reported.yaml: {place!r}: {unknown(key, keys)}")
        value = value[keys[key]]
    if isinstance(value, list):
        value = sum(value) / len(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MedscaleError(f"reported.yaml: {place!r} is no number: {value!r}")
    return float(value)
