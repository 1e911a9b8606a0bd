"""The base class of the sections of the configuration and of plans."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, cast, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from medscale.base.errors import MedscaleError
from medscale.base.files import expand_home

T = TypeVar("T")


TITLE_WORDS = {
    "gpu": "GPU",
    "lr": "learning rate",
    "clahe": "CLAHE",
    "gradcam": "Grad-CAM",
    "tensorboard": "TensorBoard",
}


def _title(name: str, _field: object) -> str:
    """Return the title of a setting without one: its name as words."""
    title = " ".join(TITLE_WORDS.get(word, word) for word in name.split("_"))
    return title[0].upper() + title[1:]


class Strict(BaseModel):
    """A section of the configuration; unknown keys and infinite numbers are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        field_title_generator=_title,
        # Validators are built at the first use: that of Config has all sections, which then need
        # none each (40 of 100 ms of the import).
        defer_build=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _truth_values_are_no_numbers(cls, settings: Any) -> Any:
        """Give true and false as text where a number is expected, so that they are refused.

        Pydantic would take them for 1 and 0: `hflip: yes` would flip every image.
        """
        if not isinstance(settings, dict):
            return settings
        numbers = _numbers(cls)
        return {k: _without_bool(v) if k in numbers else v for k, v in settings.items()}

    @classmethod
    def of_defaults(cls) -> Self:
        """Return the section with all defaults, which are valid: no validator is built for it."""
        return cast("Self", cls.model_construct())


@cache
def _numbers(section: type[Strict]) -> frozenset[str]:
    """Return the names of the settings of a section that are numbers, or lists of numbers."""
    fields = section.model_fields.items()
    return frozenset(name for name, field in fields if _is_number(field.annotation))


def _is_number(annotation: Any) -> bool:
    """Whether an annotation such as ``list[int] | None`` allows numbers, but no bool and text."""
    parts = [annotation]
    for part in parts:
        parts += get_args(part)
    types = {part for part in parts if isinstance(part, type)}
    return bool(types & {int, float}) and not types & {bool, str}


def _without_bool(value: Any) -> Any:
    """Return a value, or the items of a list, with true and false as text."""
    if isinstance(value, list):
        return [_without_bool(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else value


def _unique(values: list[T]) -> list[T]:
    if len(set(values)) != len(values):
        raise ValueError(f"has duplicates: {values}")
    return values


def _usable(path: Path) -> Path:
    """Return a path of the settings with ``~`` replaced by the home folder.

    Raises ValueError, which pydantic reports with the setting, for a null character or for the home
    folder of a user that does not exist.
    """
    if "\0" in str(path):
        raise ValueError("a path has no null character")
    try:
        return expand_home(path)
    except MedscaleError as error:
        raise ValueError(str(error)) from None


def unit(name: str) -> Any:
    """Return an annotation of a setting's unit, for config.schema.json and docs/settings.md."""
    return Field(json_schema_extra={"unit": name})


LARGEST_SEED = 10**8 - 1
LARGEST_COUNT = 10**9
# The seed of a step (engine.train.loop.step_seed) is computed from the seed of a replicate and must
# fit into 64 bits.
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
FilePath = Annotated[Path, AfterValidator(_usable)]
Unique = Annotated[list[T], AfterValidator(_unique), Field(json_schema_extra={"uniqueItems": True})]
Seconds = Annotated[float, unit("seconds")]
Pixels = Annotated[int, unit("pixels")]
Probability = Annotated[float, unit("probability")]
Share = Annotated[float, unit("share")]
