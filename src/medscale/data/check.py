"""Is a download complete, and what is odd about it? Names and tables only, no image is opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.config.sections import Source
from medscale.data.demo.common import MARKER
from medscale.data.download import unfinished
from medscale.data.sources import check_kind, scan
from medscale.data.sources.found import Found

ALL = "all"  # any split, or any class
SMALLEST = 128  # bytes; no photograph is smaller
UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".aria2", ".tmp")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
OPTIONS: dict[str, dict[str, Any]] = {"isic2017": {"allow_missing": True}}  # to count what is there


@dataclass(frozen=True)
class Edition:
    """What a complete download of one form of a dataset holds.

    Attributes:
        name: for the report.
        images: how many by (split, class), each of which may be ``all``.
        path: a pattern that the path of some image of this form fits.
        files: files besides images, by name pattern, and what they are for.
        about: the numbers are a rough statement, not a count.
        classes: how many classes at least, where they are not named.
    """

    name: str
    images: Mapping[tuple[str, str], int]
    path: str = "*"
    files: Mapping[str, str] = field(default_factory=dict)
    about: bool = False
    classes: int = 0

    def enough(self, expected: int, there: int) -> bool:
        """Whether a count is that of a complete download; a rough one may be missed by a twentieth."""
        return there >= 0.95 * expected if self.about else there == expected


def _isic(path: str, files: Mapping[str, str]) -> Edition:
    counts = {"train": (1372, 254, 374), "val": (78, 42, 30), "test": (393, 90, 117)}
    classes = ("nevus", "seborrheic_keratosis", "melanoma")
    images = {
        (split, name): n
        for split, row in counts.items()
        for name, n in zip(classes, row, strict=True)
    }
    return Edition("ISIC 2017", images, path, files)


EDITIONS: dict[str, tuple[Edition, ...]] = {
    "smdg": (
        Edition(
            "SMDG-19, parent set",
            {(ALL, "normal"): 7299, (ALL, "glaucoma"): 4617},
            "*full-fundus/*",
            {"metadata*.csv": "labels and patients"},
        ),
        Edition(
            "SMDG-19 as fundus-pytorch",
            {
                ("train", "normal"): 5293,
                ("train", "glaucoma"): 3328,
                ("val", ALL): 5747,
                ("test", ALL): 2874,
                (ALL, "normal"): 10_586,
                (ALL, "glaucoma"): 6656,
            },
        ),
    ),
    "skin": (
        Edition(
            "Massive Skin Disease Balanced Dataset", {(ALL, ALL): 245_000}, about=True, classes=34
        ),
    ),
    "isic2017": (
        _isic(
            "*ISIC-2017_*",
            {
                f"ISIC-2017_{part}*_metadata.csv": "age and sex"
                for part in ("Training", "Validation", "Test")
            },
        ),
        _isic("*", {}),
    ),
    "rsna": (
        Edition(
            "RSNA Pneumonia Detection Challenge 2018",
            {(ALL, "normal"): 20_672, (ALL, "pneumonia"): 6012},
            files={
                "stage_2_train_labels.csv": "labels and boxes",
                "stage_2_detailed_class_info.csv": "detailed classes",
            },
        ),
    ),
}


@dataclass(frozen=True)
class Count:
    """Images of a split and class, either of which may be ``all``: how many are there and should be."""

    split: str
    label: str
    there: int
    expected: int | None = None
    enough: bool = True


@dataclass(frozen=True)
class Line:
    """One thing that was looked at; an error makes the download incomplete."""

    level: Literal["ok", "note", "error"]
    says: str


@dataclass(frozen=True)
class Report:
    """What a raw folder holds against what a complete download of its kind does."""

    counts: list[Count]
    lines: list[Line]

    @property
    def complete(self) -> bool:
        """No count falls short and nothing is missing."""
        return all(count.enough for count in self.counts) and all(
            line.level != "error" for line in self.lines
        )


def check(kind: str, folder: Path) -> Report:
    """Compare a raw folder with what a complete download of a source kind holds.

    A kind without a download (``folder``) and synthetic images have nothing to be compared with: then only what is
    there and what is odd is told.

    Raises:
        MedscaleError: when there is no such kind.
    """
    check_kind(kind)
    source = Source(kind=kind, path=folder, options=OPTIONS.get(kind, {}))
    synthetic = (folder / MARKER).is_file()
    if synthetic:
        options = read_json(folder / MARKER).get("options", {})
        source = source.model_copy(update={"synthetic": True, "options": options})
    waiting = unfinished(folder)
    lines = (
        [Line("error", f"an interrupted download is in {waiting}; fetch goes on with it")]
        if waiting
        else []
    )
    try:
        found = scan(source, None)
    except MedscaleError as error:
        return Report([], [*lines, Line("error", str(error))])
    if synthetic:
        lines.append(Line("note", f"synthetic images, not a download: see {folder / MARKER}"))
    edition = None if synthetic else _edition(kind, found)
    if edition is not None:
        lines.append(Line("ok", f"compared with the complete {edition.name}"))
        lines += _missing_files(edition, found)
    return Report(
        _counts(found, edition),
        [*lines, *(Line("note", note) for note in found.notes), *_odd(folder, found)],
    )


def _edition(kind: str, found: Found) -> Edition | None:
    paths = found.rows["path"]
    return next(
        (e for e in EDITIONS.get(kind, ()) if any(fnmatch(path, e.path) for path in paths)), None
    )


def _counts(found: Found, edition: Edition | None) -> list[Count]:
    """Images by split and class, then the sums of which the complete download's are known."""
    splits = found.rows["split_published"].fillna(ALL)
    there = Counter(zip(splits, found.rows["label"], strict=True))
    known = dict(edition.images) if edition else {}
    order = {name: place for place, name in enumerate(("train", "val", "test", ALL))}
    pairs = sorted({*there, *known}, key=lambda pair: (order[pair[0]], pair[1] == ALL, pair[1]))
    if edition is None or (ALL, ALL) not in known:
        pairs.append((ALL, ALL))
    counts = []
    for split, label in dict.fromkeys(pairs):
        some = [n for (s, name), n in there.items() if split in (s, ALL) and label in (name, ALL)]
        expected = known.get((split, label))
        enough = expected is None or edition is None or edition.enough(expected, sum(some))
        counts.append(Count(split, label, sum(some), expected, enough))
    return counts


def _missing_files(edition: Edition, found: Found) -> list[Line]:
    names = {Path(path).name for path in found.excluded["path"]}
    lines = [
        Line("error", f"no {pattern} ({use})")
        for pattern, use in edition.files.items()
        if not any(fnmatch(name, pattern) for name in names)
    ]
    if len(found.classes) < edition.classes:
        lines.append(
            Line("error", f"{len(found.classes)} classes, expected are at least {edition.classes}")
        )
    return lines


def _odd(folder: Path, found: Found) -> list[Line]:
    """What is left out by name or table, and files that look damaged or forgotten."""
    others = list(found.excluded["path"])
    kinds = {
        f"left out, {reason}": list(part)
        for reason, part in found.excluded.groupby("reason")["path"]
    }
    kinds["nearly empty files"] = [
        path for path in found.rows["path"] if _size(folder / path) < SMALLEST
    ]
    kinds["unfinished downloads"] = [path for path in others if path.lower().endswith(UNFINISHED)]
    kinds["archives that may hold more"] = [
        path for path in others if path.lower().endswith(ARCHIVES)
    ]
    return [Line("note", f"{what}: {len(p)}, such as {p[0]}") for what, p in kinds.items() if p]


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
