"""The base class of the sections of the configuration and of plans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from medscale.base.files import expanded

T = TypeVar("T")


class Strict(BaseModel):
    """A section of the configuration; unknown keys and infinite numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _unique(values: list[T]) -> list[T]:
    if len(set(values)) != len(values):
        raise ValueError(f"has duplicates: {values}")
    return values


def _without_null(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path has no null character")
    return path


LARGEST_SEED = 10**8 - 1
LARGEST_COUNT = 10**9
# The seed of a step (engine.train.loop.step_seed) is made from it and must fit into 64 bits.
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
FilePath = Annotated[Path, AfterValidator(_without_null), AfterValidator(expanded)]
Unique = Annotated[list[T], AfterValidator(_unique)]
