"""Search for private data in files: DICOM ids, addresses, home folders, patients and hosts.

The search uses patterns and known names. It misses names of people that no table of the study
lists, and text burned into images.
"""

from __future__ import annotations

import platform
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medscale.base.code import PACKAGE, ROOT, sources
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, read_table
from medscale.base.paths import INDEX
from medscale.data.inventory import HIDDEN, NO_IMAGE_NAME, READ
from medscale.data.patients import NO_PATIENT
from medscale.workflow.crate.contents import files_in, texts

PREAMBLE, DICOM = 128, b"DICM"  # bytes before the mark of a DICOM file, and the mark
# Six numbers or more, and not one of the standard itself, such as a transfer syntax (PS3.6, A).
UID = re.compile(r"(?<![\w.])(?!1\.2\.840\.10008\.)[0-2](?:\.(?:0|[1-9]\d*)){5,}(?![\w.]\d)")
SHORTEST_UID = 16  # characters
HEADERS = re.compile(  # with a value, not as the name of a column in prose
    r"\b(?:Patient(?:ID|Name|BirthDate|sName)|OtherPatientIDs|AccessionNumber"
    r"|StudyInstanceUID)\b[\"']?\s*[:=]|\(0010,\s?00[0-9a-fA-F]{2}\)"
)
MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}")
HOME = re.compile(
    r"/(?:home|Users)/[^/\s\"'<>|:;,)]+|[A-Za-z]:\\+Users\\+[^\\\s\"']+|(?<![\w.])/root(?=/)"
)
TOKEN = re.compile(r"[^\W_](?:[\w.-]*[^\W_])?")
ATOM = re.compile(r"[^._-]+")
NUMBER = re.compile(r"\d+|\d+\.[\d.]+(?:-\d+\.[\d.]+)?")  # also a range, such as 0.12-0.34
MOST_ATOMS = 8  # parts of a name within a longer word
SHORTEST = 4  # characters of a name that is searched for; SHORTEST_NUMBER for digits alone
SHORTEST_NUMBER = 6
ANONYMOUS = "anonymous{:08d}"  # a name in a crate's copy of a table; names nobody
IS_ANONYMOUS = re.compile(r"anonymous\d{8}")
MOST = 100  # lines of a message


@dataclass(frozen=True)
class Finding:
    """Something in a file that must not be published; its value is not repeated."""

    path: str
    place: str
    kind: str


class Names:
    """Names of one kind that a study's files may not hold, as whole words."""

    def __init__(self, kind: str, names: Iterable[str]) -> None:
        """Sort the names; those too short to distinguish from ordinary words are not searched for.

        Args:
            kind: their kind, for messages.
            names: such as the patients' ids.
        """
        distinct = {_composed(name.strip()) for name in names if not IS_ANONYMOUS.fullmatch(name)}
        distinctive = {name for name in distinct if _is_distinctive(name)}
        self.kind, self.too_short = kind, len(distinct) - len(distinctive)
        self._words = {name for name in distinctive if TOKEN.fullmatch(name)}
        # Names of several words by their first, so that a text is searched for few of them.
        self._phrases: dict[str, list[str]] = {}
        for name in distinctive - self._words:
            if first := TOKEN.search(name):
                self._phrases.setdefault(first[0], []).append(name)

    def are_in(self, text: str, words: Collection[str]) -> bool:
        """Whether a text, of which the words are given, holds one of the names."""
        if not self._words.isdisjoint(words):
            return True
        firsts = self._phrases.keys() & set(words)
        return any(name in text for first in firsts for name in self._phrases[first])


def names_of_studies(folders: Iterable[Path], *, file_names: bool) -> list[Names]:
    """Return the ids of the patients of studies, and the names of their files.

    Args:
        folders: the studies' data folders, with index.parquet and audit.csv where they exist.
        file_names: whether names of files are published and therefore not searched for.
    """
    patients: set[str] = set()
    files: set[str] = set()
    no_images: set[str] = set()  # such as README.md: the stem is a word, which names nobody
    for folder in folders:
        if (folder / INDEX).is_file():
            index = read_table(folder / INDEX)
            for column in ("patient", "group"):
                values = index[column].dropna().astype(str) if column in index else pd.Series([])
                patients |= {value for value in values if not value.startswith(NO_PATIENT)}
            files |= set(index["path"]) if "path" in index else set()  # a crate's copy has none
        if (folder / "audit.csv").is_file():
            audit = read_table(folder / "audit.csv", dtype=str).dropna(subset="path")
            is_other = audit["reason"].isin((HIDDEN, NO_IMAGE_NAME, READ))
            files |= set(audit["path"][~is_other])
            no_images |= {Path(file).name for file in audit["path"][is_other]}
    names = [Names("a patient id", patients)]
    if not file_names:
        paths = [Path(file) for file in files]
        parts = {part for path in paths for part in (path.name, path.stem)}
        own = {file.name for file in ROOT.iterdir()} | published()
        names.append(Names("a file name", (parts | no_images) - own))
    return names


def published() -> set[str]:
    """Return the words of the modules of dataset kinds, which are published with this package.

    Among them are names of files of the official downloads, such as known duplicates of ISIC 2017,
    which datasheets and audits repeat.
    """
    modules = sources(PACKAGE / "data" / "kinds", "*.py")
    return {word for module in modules for word in TOKEN.findall(module.read_text("utf-8"))}


def hosts(environments: Iterable[Path]) -> Names:
    """Return the names of this machine and of those in records of earlier versions."""
    names = {platform.node(), platform.node().partition(".")[0]}
    for file in environments:
        names.add(str(read_json(file).get("host") or ""))
    # A host named by a word, such as "login", cannot be distinguished from the word.
    return Names("a host", {name for name in names if re.search(r"[\d.-]", name)})


def scan(
    folder: Path, names: Collection[Names] = (), code: Collection[str] = ()
) -> Iterator[Finding]:
    """Yield the texts in the files below a folder, or in one file, that must not be published.

    Args:
        folder: folder or file.
        names: names to search for as whole words.
        code: paths of source files, which are not searched for names. In these and in all modules
            of Python, the names of DICOM headers are no data.
    """
    home = str(Path.home())
    for file in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        if not file.is_file():
            continue
        path = file.relative_to(folder).as_posix() if folder.is_dir() else file.name
        for inner, data in files_in(file):
            if data.startswith(DICOM, PREAMBLE):
                yield Finding(path, inner or "whole file", "a DICOM file")
                continue
            name = inner or path
            is_code = path in code or name.endswith(".py")
            for place, text in [("its name", name), *texts(file, data)]:
                kinds = _patterns(text, home, is_code=is_code)
                if path not in code:
                    kinds += _names(text, names)
                place = f"{inner}, {place}" if inner else place
                yield from (Finding(path, place, kind) for kind in kinds)


def refuse(findings: Iterable[Finding], subject: str) -> None:
    """Raise MedscaleError with the places of all findings, if there are any."""
    places: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        places.setdefault((finding.path, finding.kind), []).append(finding.place)
    if not places:
        return
    lines = [
        f"{path}, {of_kind[0]}: {kind}" + (f" (and {len(of_kind) - 1} more)" * (len(of_kind) > 1))
        for (path, kind), of_kind in places.items()
    ]
    more = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
    listed = "\n  ".join([*lines[:MOST], *more])
    raise MedscaleError(
        f"{subject} holds what must not leave this machine; remove it at its source and make the "
        f"files again:\n  {listed}"
    )


def _is_distinctive(name: str) -> bool:
    """Whether a name is long enough to be searched for."""
    return len(name) >= (SHORTEST_NUMBER if name.isdigit() else SHORTEST)


def _patterns(text: str, home: str, is_code: bool) -> list[str]:
    """Return the kinds of data that patterns find in a text."""
    kinds = []
    if any(len(match[0]) >= SHORTEST_UID for match in UID.finditer(text)):
        kinds.append("a DICOM id")
    if not is_code and HEADERS.search(text):
        kinds.append("a DICOM header of the patient")
    if "@" in text and MAIL.search(text):
        kinds.append("an e-mail address")
    if HOME.search(text) or (len(home) > 1 and f"{home}/" in text):
        kinds.append("a home folder")
    return kinds


def _names(text: str, names: Collection[Names]) -> list[str]:
    """Return the kinds of the names that a text holds as whole words."""
    text = _composed(text)
    words: set[str] = set()
    for token in set(TOKEN.findall(text)):
        words.add(token)
        if not NUMBER.fullmatch(token):  # parts of a number are no words
            words.update(_parts(token))
    return [group.kind for group in names if group.are_in(text, words)]


def _composed(text: str) -> str:
    """Return a text whose letters with accents are single characters, unlike names on macOS."""
    return unicodedata.normalize("NFC", text)


def _parts(token: str) -> Iterator[str]:
    """Yield all parts of a word between its marks, such as ``P-1`` of ``P-1_left.png``."""
    atoms = list(ATOM.finditer(token))
    for start, first in enumerate(atoms):
        for last in atoms[start : start + MOST_ATOMS]:
            yield token[first.start() : last.end()]
