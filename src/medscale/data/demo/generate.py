"""Generates synthetic raw folders by dataset kind."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from medscale.base.errors import MedscaleError
from medscale.data.demo.common import Options
from medscale.data.kind import kind_names, load_kind


def generate(kind: str, options: dict[str, Any], out: Path) -> None:
    """Write a synthetic raw folder in the layout of a dataset kind; ``demo.json`` comes last.

    Raises:
        MedscaleError: when the kind has no generator, an option is wrong, or ``out`` holds other
            files.
    """
    _generator(kind).generate(parse_options(kind, options), out)


def parse_options(kind: str, options: dict[str, Any]) -> Options:
    """Return the options of a kind's generator, completed by defaults.

    Raises:
        MedscaleError: when the kind has no generator, or an option is wrong.
    """
    model: type[Options] = _generator(kind).Options
    try:
        return model.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise MedscaleError(
            f"source.options.{name} of the synthetic images: {first['msg']}"
        ) from None


def _generator(kind: str) -> ModuleType:
    """Import the generator that a kind names; it has ``Options`` and ``generate(options, out)``."""
    name = load_kind(kind).demo
    if name is None:
        names = ", ".join(name for name in kind_names() if load_kind(name).demo)
        raise MedscaleError(
            f"dataset kind {kind!r} has no synthetic images; kinds with a generator: {names}"
        )
    return import_module(f"medscale.data.demo.{name}")
