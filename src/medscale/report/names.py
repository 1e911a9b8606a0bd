"""Readable names of runs and classes, and the colour, line and marker of each run in figures."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from zlib import crc32

from medscale.data.patients import KNOWN, NOT_KNOWN, PARTLY
from medscale.engine.parallel.strategies.registry import STRATEGIES
from medscale.engine.parallel.strategies.strategy import Look
from medscale.engine.run import RunSpec
from medscale.evaluate.bootstrap import FEWEST_GROUPS

# Okabe & Ito (2008): colours that are distinct for every kind of colour vision.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, BROWN, WINE, OLIVE = "#7F7F7F", "#8C510A", "#882255", "#999933"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK, BROWN, WINE, OLIVE)
LINES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (8, 2)),
    (0, (1, 1)),
    (0, (3, 1)),
    (0, (6, 1, 2, 1)),
    (0, (3, 1, 1, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
VARIANT_MARKERS = ("p", "d", "h", "1", "8", "2", "H", "3")  # of another batch size or network

# The units of intervals and of groups of images, by whether the patients are known. Where they are
# not, a group is a set of near-duplicates, or a single image.
STATES = {
    KNOWN: "the patients are known",
    PARTLY: "the patients are known of a part of the images",
    NOT_KNOWN: "the patients are not known",
}
OVER = {KNOWN: "patients", PARTLY: "patients or groups of images", NOT_KNOWN: "groups of images"}
GROUPS = {
    KNOWN: "patients or groups",
    PARTLY: "patients or groups",
    NOT_KNOWN: "groups of images (the patients are not known)",
}

TOO_FEW = f"the test images have fewer than {FEWEST_GROUPS} patients or groups of them"

SPLITS_IN_WORDS = {"train": "training", "val": "validation", "test": "test", "all": "all"}

LOOKS = tuple(map(Look, COLOURS, MARKERS, LINES))
# Colour, hatch and name of each activity that the time of an epoch is divided into.
TIME_LOOKS = {
    "data": (ORANGE, "", "waiting for data"),
    "compute": (BLUE, "", "forward and backward"),
    "communication": (VERMILION, "////", "communication"),
    "checkpoint": (GREEN, "||||", "checkpoint"),
    "validation": (SKY, "\\\\\\\\", "validation"),
}


# Titles of the classes of the study whose figures and tables are being made.
_TITLES: ContextVar[Mapping[str, str] | None] = ContextVar("class titles", default=None)


@contextmanager
def class_titles(titles: Mapping[str, str]) -> Iterator[None]:
    """Print classes by a study's titles (``studies.<name>.class_titles``) within the context."""
    token = _TITLES.set(titles)
    try:
        yield
    finally:
        _TITLES.reset(token)


def class_name(text: str, titles: Mapping[str, str] | None = None) -> str:
    """Return a class name for readers: its title, or its name without underscores.

    "acne_vulgaris" is "acne vulgaris". An underscore at either end stays: without it the name could
    be empty.

    Args:
        text: the name of the class in the data.
        titles: of the study's classes; by default those of the context ``class_titles``.
    """
    study_titles = (_TITLES.get() or {}) if titles is None else titles
    if text in study_titles:
        return study_titles[text]
    return re.sub(r"(?<=[^\s_])_+(?=[^\s_])", " ", text)


def family(run: str) -> str:
    """Return a run's strategy and precision in words: "DDP + AMP"."""
    spec = RunSpec.parse(run)
    strategy = STRATEGIES[spec.strategy].title
    parts = [strategy, *(["AMP"] if spec.amp else []), *(["MP"] if spec.mp else [])]
    return ", ".join([" + ".join(parts), *_variant(spec)])


def label(run: str) -> str:
    """Return a run in words: "DDP + AMP, 2 GPU"."""
    spec = RunSpec.parse(run)
    plain = spec.model_copy(update={"batch": None, "model": None})
    return ", ".join([family(plain.name), f"{spec.devices} {spec.device.upper()}", *_variant(spec)])


def title(run: str) -> str:
    """Return a run in words on two lines."""
    return label(run).replace(", ", "\n", 1)


def look(run: str) -> Look:
    """Return the look of a run's family.

    Another batch size or network than the study's has a darker colour and another marker, chosen
    by a checksum of its name, so that it does not depend on the other runs of a figure.
    """
    spec = RunSpec.parse(run)
    plain = STRATEGIES[spec.strategy].look(amp=spec.amp, mp=spec.mp)
    place = COLOURS.index(plain.colour) if plain.colour in COLOURS else len(COLOURS)
    if not (variant := _variant(spec)):
        return plain
    chosen = (crc32(", ".join(variant).encode()) + place) % len(VARIANT_MARKERS)
    share, towards = 0.45 + 0.1 * (chosen % 4), 255 if plain.colour == BLACK else 0
    channels = [int(plain.colour[at : at + 2], 16) for at in (1, 3, 5)]
    mixed = [round((1 - share) * channel + share * towards) for channel in channels]
    colour = "#" + "".join(f"{channel:02X}" for channel in mixed)
    return Look(colour, VARIANT_MARKERS[chosen], LINES[chosen])


def numbered_look(number: int) -> Look:
    """Return the look of the item with a number, counted from 0: those of 100 items differ.

    The first ten are ``LOOKS``. Of later ones the colours recur with other lines and markers.
    """
    turn, place = divmod(number, len(LOOKS))
    other = (place + turn) % len(LOOKS)
    return Look(COLOURS[place], MARKERS[other], LINES[other])


def _variant(spec: RunSpec) -> list[str]:
    return [*([f"batch {spec.batch}"] if spec.batch else []), *([spec.model] if spec.model else [])]
