"""The interface of dataset kinds, and access to them: each module of ``data/kinds`` is a kind.

The configuration names a kind by its module's name (``source.kind``). The module defines ``KIND``,
a ``DatasetKind``. A new kind needs no other change.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from medscale.base.errors import MedscaleError
from medscale.base.suggest import suggestion

if TYPE_CHECKING:
    from medscale.data.download import Download
    from medscale.data.inventory import Inventory
    from medscale.data.settings import Datasheet, Source

ALL = "all"  # any split, or any class
COLUMNS = ("table", "image", "label", "patient")  # settings of ``source`` for the user's own files


@dataclass(frozen=True)
class Edition:
    """The contents of a complete download, for one published form of a dataset."""

    name: str  # the edition's name, for messages
    # number of images by (split, class); either may be ``ALL``
    images: Mapping[tuple[str, str], int]
    path: str = "*"  # a pattern that the path of at least one image of this edition matches
    # required files besides images: name pattern and purpose
    files: Mapping[str, str] = field(default_factory=dict)
    approximate: bool = False  # the publisher gives rough numbers only
    classes: int = 0  # smallest number of classes, for datasets whose classes have no fixed names

    def is_complete(self, expected: int, count: int) -> bool:
        """Return whether a count is complete; of approximate numbers 95 % suffice."""
        return count >= 0.95 * expected if self.approximate else count == expected


@dataclass(frozen=True)
class DatasetKind:
    """The properties and functions of one dataset kind."""

    # function that lists a raw folder without opening an image; see ``scan`` below
    scan: Callable[[Source, list[str] | None], Inventory]
    datasheet: Datasheet  # the publisher's answers to the questions of the datasheet
    paper: str = ""  # LaTeX that completes the sentence "The dataset is ...", and further sentences
    download: Download | None = None  # the official download; None for a user's own images
    # contents of complete downloads; the first that matches a raw folder applies
    editions: tuple[Edition, ...] = ()
    # allowed values of each entry of ``source.options``, the default first
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    # ``source.options`` with which ``medscale data check`` scans a raw folder
    check_options: Mapping[str, Any] = field(default_factory=dict)
    # module of ``medscale.data.demo`` that generates synthetic images, if there is one
    demo: str | None = None
    # ``source.table``, ``image``, ``label`` and ``patient`` describe the user's own files
    takes_columns: bool = False


@cache
def kind_names() -> list[str]:
    """Return the names of all dataset kinds, sorted; no module of a kind is imported."""
    return sorted(module.name for module in pkgutil.iter_modules([str(kind_file("").parent)]))


def kind_file(name: str) -> Path:
    """Return the path of a kind's module."""
    return Path(__file__).parent / "kinds" / f"{name}.py"


def check_kind(name: str) -> None:
    """Raise MedscaleError if there is no such dataset kind; the message lists the kinds."""
    if name not in kind_names():
        raise MedscaleError(
            f"there is no dataset kind {name!r}; {suggestion(name, kind_names())}"
            f"there are: {', '.join(kind_names())}"
        )


def load_kind(name: str) -> DatasetKind:
    """Import and return a dataset kind.

    Raises:
        MedscaleError: when the kind does not exist.
    """
    check_kind(name)
    kind: DatasetKind = import_module(f"medscale.data.kinds.{name}").KIND
    return kind


def scan(source: Source, classes: list[str] | None, fewest: int = 2) -> Inventory:
    """List a study's raw images; only names and tables are read, which takes seconds.

    Args:
        source: section ``source`` of the study, with a path.
        classes: the study's classes in order; None: the classes of the dataset.
        fewest: smallest accepted number of classes.

    Raises:
        MedscaleError: when the kind is unknown, an option is wrong, the raw folder is missing or
            incomplete, or the classes do not fit.
    """
    kind = load_kind(source.kind)
    unknown = [name for name in source.options if name not in kind.options]
    mistakes = [] if source.synthetic else unknown  # a synthetic source has its generator's options
    mistakes += [
        f"{name}: {source.options[name]}"
        for name, allowed in kind.options.items()
        if name in source.options and source.options[name] not in allowed
    ]
    if mistakes:
        allowed = [f"{k}: {' | '.join(map(str, v))}" for k, v in kind.options.items()]
        raise MedscaleError(
            f"dataset kind {source.kind} has {'the option ' if allowed else 'no options'}"
            f"{', '.join(allowed)}; found in source.options: {', '.join(mistakes)}"
        )
    defaults = {name: allowed[0] for name, allowed in kind.options.items()}
    source = source.model_copy(update={"options": defaults | source.options})
    columns = [name for name in COLUMNS if getattr(source, name) is not None]
    if columns and not kind.takes_columns:
        raise MedscaleError(
            f"source.{columns[0]} is for the kind folder: the kind {source.kind} reads the files "
            "of its publisher"
        )
    names = None if classes is None else [normalize("NFC", name) for name in classes]
    inventory = kind.scan(source, names)
    if len(inventory.classes) < fewest:
        raise MedscaleError(
            f"{source.path}: only one class, {inventory.classes[0]!r}; a classification needs at "
            "least two" + "".join(f"\n  {note}" for note in inventory.notes)
        )
    return inventory
