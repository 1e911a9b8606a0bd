"""Generators of synthetic raw folders by source kind; what they write is marked as synthetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medscale.data.demo import fundus
from medscale.errors import MedscaleError

GENERATORS: dict[str, Callable[[dict[str, Any], Path], None]] = {"smdg": fundus.generate}


def generate(kind: str, options: dict[str, Any], out: Path) -> None:
    """Write a synthetic raw folder in the layout of source ``kind``; its last file is ``demo.json``.

    Raises:
        MedscaleError: when there is no generator for the kind, an option is wrong, or ``out`` holds other files.
    """
    if kind not in GENERATORS:
        known = ", ".join(sorted(GENERATORS))
        raise MedscaleError(f"there are no synthetic images for source kind {kind!r}; there are for: {known}")
    GENERATORS[kind](options, out)
