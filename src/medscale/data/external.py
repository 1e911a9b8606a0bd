"""External images: labelled images of another origin, under the class names of a study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from unicodedata import normalize

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data.inventory import OTHER_CLASS, Inventory
from medscale.data.kind import scan
from medscale.data.settings import Source

ANOTHER_NAME = "; if one of them is {}, match the names by source.labels (or --label THEIRS=OURS)"
# Marks that change the meaning of a class: comparisons and plus (>5 mm, HER2+), the minus of a
# number or after a word (-1, HER2-), and decimal marks.
MEANT = r"[+<>=≤≥]|(?<!\w)[-\u2212](?=\d)|(?<=\w)[-\u2212](?!\w)|(?<=\d)[.,](?=\d)"


def external_inventory(source: Source, classes: Sequence[str]) -> Inventory:
    """List external images by the classes of a study.

    The folder's class names are matched without regard to capitals, spaces and most punctuation;
    ``source.labels`` matches further names. Images of other classes are left out, and the notes
    name missing classes.

    Args:
        source: kind and path of the folder.
        classes: classes of the study in their order.

    Raises:
        MedscaleError: when no class of the folder matches a class of the study, or ``scan`` fails.
    """
    # A label such as NA is a class in the folder's table too if the study has a class NA.
    labels_of_study = {name: name for name in classes} | source.labels
    inventory = scan(source.model_copy(update={"labels": labels_of_study}), None, fewest=1)
    names = match_classes(inventory.classes, classes, source.labels)
    labels = inventory.rows["label"].map(names)
    if not labels.notna().any():
        raise MedscaleError(
            f"{source.path}: its classes are {', '.join(inventory.classes)}, the study's are "
            f"{', '.join(classes)}; match them by source.labels (or --label THEIRS=OURS)"
            + "".join(f"\n  {note}" for note in inventory.notes)
        )
    unmatched = inventory.rows[labels.isna()]
    details = "class " + unmatched["label"].astype(str)
    other_classes = pd.DataFrame(
        {"path": unmatched["path"], "reason": OTHER_CLASS, "detail": details}, dtype=object
    )
    rows = inventory.rows.assign(label=labels)[labels.notna()].reset_index(drop=True)
    notes = [f"Class {name} is read as {label}." for name, label in names.items() if name != label]
    missing = [name for name in classes if not (rows["label"] == name).any()]
    if extra := [name for name in inventory.classes if name not in names]:
        counts = unmatched["label"].value_counts()
        listing = ", ".join(f"{name} {counts.get(name, 0)}" for name in extra)
        remedy = ANOTHER_NAME.format(missing[0]) if missing else ""
        notes.append(f"Classes that the study does not have are left out: {listing}{remedy}.")
    if missing:
        notes.append(
            f"No image is of class {', '.join(missing)}, so that nothing can be estimated for it."
        )
    return replace(
        inventory,
        rows=rows,
        excluded=pd.concat([inventory.excluded, other_classes], ignore_index=True),
        classes=list(classes),
        notes=[*inventory.notes, *notes],
    )


def match_classes(
    names: Sequence[str], classes: Sequence[str], labels: dict[str, str]
) -> dict[str, str]:
    """Return the study's class for each class name of a folder; names without a match are left out.

    Args:
        names: class names of the folder.
        classes: classes of the study.
        labels: class of the study by class name of the folder, for names that do not match.

    Raises:
        MedscaleError: when ``labels`` names a class that the folder or the study does not have.
    """
    if unknown := [name for name in labels if name not in names]:
        raise MedscaleError(
            f"labels names the class {unknown[0]!r}; the folder has: {', '.join(names)}"
        )
    if absent := [name for name in labels.values() if name not in classes]:
        raise MedscaleError(
            f"labels names the class {absent[0]!r}; the study has: {', '.join(classes)}"
        )
    keys = [_key(name) for name in classes]
    # If several classes differ only by punctuation, a name must match exactly.
    by_key = {key: name for key, name in zip(keys, classes, strict=True) if keys.count(key) == 1}
    class_of = {name: name if name in classes else by_key.get(_key(name)) for name in names}
    return {name: label for name, label in (class_of | labels).items() if label is not None}


def _key(name: str) -> str:
    """Return a class name without capitals, spaces and punctuation other than ``MEANT``."""
    return re.sub(
        rf"({MEANT})|[\W_]", lambda match: match[1] or "", normalize("NFKC", name).casefold()
    )
