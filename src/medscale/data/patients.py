"""The patients of a study's images: the column or pattern that names them, and their number.

Images of one patient must not be on both sides of a split. A column that looks like a patient's is
therefore used or refused, and a study with unknown patients says so in all its outputs.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.suggest import suggestion
from medscale.data.spelling import several_spellings

State = Literal["known", "partly", "not known"]
KNOWN: State = "known"
PARTLY: State = "partly"
NOT_KNOWN: State = "not known"

PATIENT = "patient"  # the documented column of index.csv, and the column of the index
# Texts by which R, pandas, SQL and spreadsheets write a missing value.
MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "none", "null", "<na>", "nat", "#null!"))
# These and further texts that do not name a patient.
NO_NAME = MISSING | frozenset(("unknown", "unk", "?", "-", "--", "."))

# Texts that programs for de-identification write instead of a patient's name or number.
_ANONYMOUS = (
    r"anon(?:ym(?:ous|i[sz]ed?))?|de-?identified|removed|redacted|deleted|hidden"
    r"|no[ _-]?(?:id|name)|\*+"
)
ANONYMOUS = re.compile(_ANONYMOUS, re.IGNORECASE)
# Further ones in DICOM headers; in a table, 0 and x may be patients.
PLACEHOLDER = re.compile(rf"{_ANONYMOUS}|patient|test|x+|0+", re.IGNORECASE)
HEADERS = "a digest of PatientID in the DICOM headers"  # an origin of patients' names

ROUNDED = re.compile(r"\d(?:[.,]\d+)?[Ee]\+\d+")  # 1.23457E+11

NO_PATIENT = "image:"  # prefix of the group's name of an image without a known patient

_IDENTIFIER = r"(?:ids?|no|nos|nr|nb|num|number|identifier|code|key|name|uid|uuid|hash|idx|nummer)"
_PREFIX = r"(?:anon|anonymi[sz]ed|deidentified|deid|pseudo|study|the|id|dicom)?"
_PERSON = r"(?:patient|patients|patienten|subject|subjects|person|participant|individual|proband)"
# Normalized column names (``plain_name``) that name a patient.
PERSONS = re.compile(
    rf"{_PREFIX}(?:{_PERSON}|(?:pat|pt){_IDENTIFIER}|pid|mrn)|[a-z0-9]*{_PERSON}{_IDENTIFIER}"
)
# Normalized column names of a part of a patient, whose images must also share a split.
PARTS = re.compile(
    rf"{_PREFIX}(?:lesion|case|exam|examination|visit|study|series|accession|eye|specimen|biopsy)"
    rf"(?:instance)?{_IDENTIFIER}"
)


def is_missing(text: str | None, *, name: bool = False) -> bool:
    """Return whether a cell has no value; with ``name``, whether it does not name a patient."""
    if text is None:
        return True
    cell = text.strip().lower()
    return cell in NO_NAME or bool(ANONYMOUS.fullmatch(cell)) if name else cell in MISSING


def patient_column(columns: Sequence[str], table: str) -> str | None:
    """Return the column that names patients, or parts of patients; None without such a column.

    Args:
        columns: names of the columns of the table.
        table: name of the table, for messages.

    Raises:
        MedscaleError: when several columns look like a patient's.
    """
    if PATIENT in columns:
        return PATIENT
    for pattern in (PERSONS, PARTS):
        matches = [name for name in columns if pattern.fullmatch(plain_name(name))]
        if len(matches) > 1:
            raise MedscaleError(
                f"{table}: each of the columns {', '.join(matches)} may name the patients; name "
                "the right one with source.patient"
            )
        if matches:
            return matches[0]
    return None


def is_person(column: str) -> bool:
    """Return whether a column names a patient by its own name."""
    return bool(PERSONS.fullmatch(plain_name(column)))


def names_part(column: str) -> bool:
    """Return whether a column names a part of a patient, such as a lesion or an exam."""
    return bool(PARTS.fullmatch(plain_name(column))) and not is_person(column)


def unified(names: Sequence[str | None]) -> tuple[list[str | None], list[str]]:
    """Give one name to each patient whose name has several spellings, such as 12 and 12.0.

    Returns:
        The names, and notes if there are such patients, or rounded numbers.
    """
    texts = [name for name in names if name is not None]
    notes = []
    if rounded_names := sorted({name for name in texts if ROUNDED.fullmatch(name)}):
        notes.append(
            f"{len(rounded_names)} names of patients are rounded numbers, such as "
            f"{rounded_names[0]}, as spreadsheets show long numbers: several patients can have the "
            "same; write them as text"
        )
    groups = several_spellings(texts)
    if not groups:
        return [*names], notes
    first = {name: group[0] for group in groups for name in group}
    notes.append(
        f"{len(groups)} names of patients have several spellings, such as {', '.join(groups[0])}: "
        "each is taken as one patient"
    )
    return [first.get(name, name) if name is not None else None for name in names], notes


def by_pattern(
    paths: Sequence[str], pattern: str, setting: str = "patient", columns: Sequence[str] = ()
) -> list[str | None]:
    """Return the patient (or label) of each path by a regular expression; None without a match.

    The expression is searched in the file's name; one that contains ``/``, in the whole path. The
    value is the group of the setting's name, the first group, or the whole match. Paths and
    expression are compared in Unicode's composed form (NFC), since macOS writes accents in names as
    separate characters.

    Args:
        paths: of the images, below the raw folder.
        pattern: the expression.
        setting: the setting in ``source`` that holds the expression: patient or label.
        columns: of the table of images, in which the name may have been meant.

    Raises:
        MedscaleError: when the expression is not valid, or matches no path.
    """
    hint = suggestion(pattern, columns)
    try:
        expression = re.compile(unicodedata.normalize("NFC", pattern))
    except re.error as error:
        raise MedscaleError(
            f"source.{setting} {pattern!r} is neither a column of the table of images nor a "
            f"regular expression: {error}; {hint}"
        ) from None
    composed = [unicodedata.normalize("NFC", path) for path in paths]
    texts = composed if "/" in pattern else [PurePosixPath(path).name for path in composed]
    values = [_value(expression.search(text), setting) for text in texts]
    if paths and not any(values):
        raise MedscaleError(
            f"source.{setting} {pattern!r} is not a column of the table of images, and as a "
            f"regular expression it matches none of the {len(paths)} paths (first: {paths[0]}); "
            f"{hint}"
        )
    return values


def from_headers(identifiers: Sequence[str | None]) -> list[str | None]:
    """Return the patient of each file by PatientID in its DICOM headers; None if not known.

    Names are digests, since results are published, and hospitals' numbers must not be. A
    placeholder does not name a patient, nor does a number that all files share, which a
    de-identification has written.
    """
    names = [
        None if is_missing(text, name=True) or PLACEHOLDER.fullmatch(str(text)) else str(text)
        for text in identifiers
    ]
    if len(names) > 1 and len(set(names)) == 1:
        return [None] * len(names)
    names, _ = unified(names)
    return [name and hashlib.sha256(name.encode()).hexdigest()[:16] for name in names]


def group_without_patient(digests: pd.Series) -> pd.Series:
    """Return the names of the groups of images without a known patient, by their SHA-256."""
    return NO_PATIENT + digests.astype(str).str[:16]


def _value(match: re.Match[str] | None, setting: str) -> str | None:
    if match is None:
        return None
    groups = match.groupdict().get(setting) or next(iter(match.groups()), match[0])
    return groups or None


def state(patients: Iterable[Any] | None) -> State:
    """Return whether the patients of the images are known.

    Args:
        patients: the patient of each image, missing if not known; None: no image has a patient.
    """
    names = [] if patients is None else list(patients)
    named_images = sum(not pd.isna(name) for name in names)
    if not named_images:
        return NOT_KNOWN
    return KNOWN if named_images == len(names) else PARTLY


def summary(names: pd.Series, origin: str | None) -> dict[str, Any]:
    """Return the entry ``patients`` of audit.json.

    Args:
        names: the patient of each image; missing if it is not known.
        origin: origin of the patients' names, such as ``HEADERS``.
    """
    return {
        "state": state(names),
        "patients": int(names.nunique()),
        "images_of_patients": int(names.notna().sum()),
        "images_without": int(names.isna().sum()),
        "from": origin if names.notna().any() else None,
    }


def sentence(counts: dict[str, Any]) -> str:
    """Return a sentence on the entry ``patients`` of audit.json."""
    if counts["state"] == NOT_KNOWN:
        return (
            "The patients are not known: images of one patient can stand on both sides of the "
            "split."
        )
    text = f"{counts['images_of_patients']} images are of {counts['patients']} patients"
    if counts["state"] == PARTLY:
        text += (
            f"; of the other {counts['images_without']} the patients are not known, so that "
            "images of one patient can stand on both sides of the split"
        )
    return f"{text}."


def plain_name(name: str) -> str:
    """Return a column's name in lower case, without accents, spaces and punctuation."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.lower())
