"""Comparison of a raw folder with the complete download of its dataset; no image is opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.data.demo.common import MARKER
from medscale.data.download import interrupted_download
from medscale.data.inventory import HIDDEN, NO_IMAGE_NAME, READ, Inventory
from medscale.data.kind import ALL, Edition, load_kind, scan
from medscale.data.settings import Source

SHOWN = 4  # endings of files in a message
SMALLEST = 128  # bytes; no photograph is smaller
UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".aria2", ".tmp")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


@dataclass(frozen=True)
class Count:
    """Number of images of a split and class (either may be ``ALL``), and the expected number."""

    split: str
    label: str
    images: int
    expected: int | None = None
    complete: bool = True


@dataclass(frozen=True)
class Finding:
    """One line of the report; an error makes the download incomplete."""

    level: Literal["ok", "note", "error"]
    message: str


@dataclass(frozen=True)
class Report:
    """The contents of a raw folder compared with a complete download."""

    counts: list[Count]
    findings: list[Finding]

    @property
    def complete(self) -> bool:
        """Whether all counts and required files are complete."""
        return all(count.complete for count in self.counts) and all(
            finding.level != "error" for finding in self.findings
        )


def check(kind: str, folder: Path) -> Report:
    """Compare a raw folder with the complete download of a dataset kind.

    Kinds without a download, and synthetic images, have no expected numbers. For them the report
    counts images and lists unusual files.

    Raises:
        MedscaleError: when the kind does not exist.
    """
    dataset = load_kind(kind)
    source = Source(kind=kind, path=folder, options=dict(dataset.check_options))
    findings = []
    if partial := interrupted_download(folder):
        message = f"an interrupted download is in {partial}; `medscale data fetch` continues it"
        findings.append(Finding("error", message))
    if synthetic := (folder / MARKER).is_file():
        options = read_json(folder / MARKER).get("options", {})
        source = source.model_copy(update={"synthetic": True, "options": options})
    try:
        inventory = scan(source, None)
    except MedscaleError as error:
        return Report([], [*findings, Finding("error", str(error))])
    edition = None
    if synthetic:
        message = f"synthetic images, not a download: see {folder / MARKER}"
        findings.append(Finding("note", message))
    elif edition := _matching_edition(dataset.editions, inventory):
        findings.append(Finding("ok", f"compared with the complete {edition.name}"))
        findings += _missing_files(edition, inventory)
    findings += [Finding("note", note) for note in inventory.notes]
    is_known, sentences = inventory.patient_sentences()
    findings += [Finding("ok" if is_known else "note", text) for text in sentences]
    return Report(_counts(inventory, edition), [*findings, *_oddities(folder, inventory)])


def _matching_edition(editions: tuple[Edition, ...], inventory: Inventory) -> Edition | None:
    paths = inventory.rows["path"]
    return next((e for e in editions if any(fnmatch(path, e.path) for path in paths)), None)


def _counts(inventory: Inventory, edition: Edition | None) -> list[Count]:
    """Return counts by split and class, with the expected numbers of the edition."""
    splits = inventory.rows["split_published"].fillna(ALL)
    images = Counter(zip(splits, inventory.rows["label"], strict=True))
    expected = dict(edition.images) if edition else {}
    order = {name: place for place, name in enumerate(("train", "val", "test", ALL))}
    pairs = sorted({*images, *expected}, key=lambda pair: (order[pair[0]], pair[1] == ALL, pair[1]))
    counts = []
    for split, label in dict.fromkeys([*pairs, (ALL, ALL)]):
        count = sum(
            n for (s, name), n in images.items() if split in (s, ALL) and label in (name, ALL)
        )
        target = expected.get((split, label))
        complete = edition is None or target is None or edition.is_complete(target, count)
        counts.append(Count(split, label, count, target, complete))
    return counts


def _missing_files(edition: Edition, inventory: Inventory) -> list[Finding]:
    names = {Path(path).name for path in inventory.excluded["path"]}
    findings = [
        Finding("error", f"no {pattern} ({purpose})")
        for pattern, purpose in edition.files.items()
        if not any(fnmatch(name, pattern) for name in names)
    ]
    if len(inventory.classes) < edition.classes:
        message = f"{len(inventory.classes)} classes, expected are at least {edition.classes}"
        findings.append(Finding("error", message))
    return findings


def _oddities(folder: Path, inventory: Inventory) -> list[Finding]:
    """Return notes on files that are left out, and on files that may be damaged or unpacked."""
    images, excluded_paths = inventory.rows["path"], list(inventory.excluded["path"])
    groups = {
        "nearly empty files": [path for path in images if _size(folder / path) < SMALLEST],
        "unfinished downloads": [
            path for path in excluded_paths if path.lower().endswith(UNFINISHED)
        ],
        "archives that may hold more": [p for p in excluded_paths if p.lower().endswith(ARCHIVES)],
    }
    sentences = [
        f"{title}: {len(paths)}, such as {paths[0]}" for title, paths in groups.items() if paths
    ]
    return [Finding("note", text) for text in (*left_out_sentences(inventory.excluded), *sentences)]


def left_out_sentences(left_out: pd.DataFrame) -> list[str]:
    """Return a sentence on the files of each reason.

    There is none on tables that are read, and on files that systems and tools make.

    ``left_out``: ``Inventory.excluded``.
    """
    sentences = []
    for reason, files in left_out[~left_out["reason"].isin((HIDDEN, READ))].groupby("reason"):
        path, detail = files["path"].iloc[0], files["detail"].iloc[0]
        text = f"{len(files)}, such as {path} ({detail})"
        text = _endings(files["path"]) if reason == NO_IMAGE_NAME else text
        sentences.append(f"left out, {reason!s}: {text}")
    return sentences


def _endings(paths: Iterable[str]) -> str:
    """Return how many files have each ending, and an example."""
    files = [PurePosixPath(path) for path in paths]
    examples = {file.suffix.lower(): file for file in reversed(files)}
    endings = Counter(file.suffix.lower() for file in files)
    return ", ".join(
        f"{count} {ending or 'without ending'} (such as {examples[ending]})"
        for ending, count in endings.most_common(SHOWN)
    )


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
