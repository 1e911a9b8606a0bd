"""Generators of synthetic raw folders by source kind; what they write is marked as synthetic."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.data.demo import dermoscopy, fundus, skin, xray
from medscale.data.demo.common import Options, parse_options

# Each module has ``Options`` and ``generate(options, out)``.
GENERATORS: dict[str, ModuleType] = {
    "isic2017": dermoscopy,
    "rsna": xray,
    "skin": skin,
    "smdg": fundus,
}


def generate(kind: str, options: dict[str, Any], out: Path) -> None:
    """Write a synthetic raw folder in the layout of source ``kind``; its last file is ``demo.json``.

    Raises:
        MedscaleError: when there is no generator for the kind, an option is wrong, or ``out`` holds other files.
    """
    settings = checked(kind, options)
    GENERATORS[kind].generate(settings, out)


def checked(kind: str, options: dict[str, Any]) -> Options:
    """The options of a kind's generator, complete; ``images`` says about how many files it writes.

    Raises:
        MedscaleError: when there is no generator for the kind, or an option is wrong.
    """
    if kind not in GENERATORS:
        known = ", ".join(sorted(GENERATORS))
        raise MedscaleError(
            f"there are no synthetic images for source kind {kind!r}; there are for: {known}"
        )
    model: type[Options] = GENERATORS[kind].Options
    return parse_options(model, options)
