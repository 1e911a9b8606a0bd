"""Datasets by kind: each module lists a raw folder into the same table, without opening an image."""

from __future__ import annotations

from collections.abc import Callable

from medscale.base.errors import MedscaleError
from medscale.config.sections import Source
from medscale.data.sources import folder, isic2017, rsna, skin, smdg
from medscale.data.sources.found import Found

SOURCES: dict[str, Callable[[Source, list[str] | None], Found]] = {
    "folder": folder.scan,
    "isic2017": isic2017.scan,
    "rsna": rsna.scan,
    "skin": skin.scan,
    "smdg": smdg.scan,
}


def scan(source: Source, classes: list[str] | None) -> Found:
    """List a study's raw images: names, folders and tables only, so that it takes seconds.

    Args:
        source: the ``source`` section of a study, with its path set.
        classes: the study's classes in order; None for the source's own.

    Raises:
        MedscaleError: when the kind is unknown, the folder is missing or incomplete, or the classes do not fit.
    """
    check_kind(source.kind)
    return SOURCES[source.kind](source, classes)


def check_kind(kind: str) -> None:
    """Raise MedscaleError, which names those there are, when there is no such kind of source."""
    if kind not in SOURCES:
        raise MedscaleError(
            f"there is no source kind {kind!r}; there are: {', '.join(sorted(SOURCES))}"
        )
