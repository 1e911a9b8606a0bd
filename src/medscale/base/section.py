"""The base class of the sections of the configuration and of plans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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

    @classmethod
    def of_defaults(cls) -> Self:
        """Return the section with all defaults, which are valid: no validator is built for it."""
        return cast("Self", cls.model_construct())


def _unique(values: list[T]) -> list[T]:
    if len(set(values)) != len(values):
        raise ValueError(f"has duplicates: {values}")
    return values


def _without_null(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path has no null character")
    return path


def unit(name: str) -> Any:
    """Return an annotation of a setting's unit, for config.schema.json and docs/settings.md."""
    return Field(json_schema_extra={"unit": name})


LARGEST_SEED = 10**8 - 1
LARGEST_COUNT = 10**9
# The seed of a step (engine.train.loop.step_seed) is computed from the seed of a replicate and must
# fit into 64 bits.
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
FilePath = Annotated[Path, AfterValidator(_without_null), AfterValidator(expand_home)]
Unique = Annotated[list[T], AfterValidator(_unique), Field(json_schema_extra={"uniqueItems": True})]
Seconds = Annotated[float, unit("seconds")]
Pixels = Annotated[int, unit("pixels")]
Probability = Annotated[float, unit("probability")]
Share = Annotated[float, unit("share")]
