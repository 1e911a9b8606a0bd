"""The chapter datasheet: origin, content and preparation of a study's images."""

from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.files import read_json
from medscale.config.sections import Study
from medscale.data.download import command_line
from medscale.data.folds import is_of_folds
from medscale.data.index_file import index_digest, read_index
from medscale.data.kind import load_kind
from medscale.data.patients import NOT_KNOWN, is_missing, is_person, names_part, sentence
from medscale.data.settings import SPLITS, Datasheet
from medscale.report.datasheet.chapter import PATH
from medscale.report.markdown import fill
from medscale.report.names import GROUPS, SPLITS_IN_WORDS
from medscale.report.sources import PERSONAL
from medscale.report.units import unit_of_files
from medscale.report.writer import Pages

UNKNOWN = "not known to this study"
FREQUENT = 6  # values of a column of text that the datasheet lists
# Columns of the index that do not describe a patient.
NO_METADATA = {"id", "path", "label", "split", "split_published", "group", "width", "height"}
NO_METADATA |= {"sha256", "source", "alike", "boxes", "patient"}
FOLDERS = "folders"  # a split that a person's own images come with
DIVIDED = {
    "grouped": "whole patients or groups of near-duplicates are drawn, so that none is on both "
    "sides",
    "grouped, patients not known": "whole groups of near-duplicates are drawn, so that none is on "
    "both sides; the patients are not known, so that images of one can be on both sides",
    "random": "images are drawn, without regard to patients",
    "published": "the published one",
    "source": "the images of one value of a column are the test split; of the others whole groups "
    "are drawn for validation",
    FOLDERS: "that of the folders or of index.csv",
}
UNKNOWN_GROUPED = ("grouped", NOT_KNOWN)  # mode of the split, state of the patients
TEMPLATE = Path(__file__).with_suffix(".md.j2")


def make(study: str, *, index: str, counts: str, kind: str, section: dict[str, Any]) -> Pages:
    """Return the datasheet."""
    settings = Study.model_validate(section)
    content = _content(study, settings, description(settings), counts, index)
    return Pages(documents={PATH: fill(TEMPLATE, content, trim_blocks=True, lstrip_blocks=True)})


def description(settings: Study) -> Datasheet:
    """Return the study's own answers, completed by those of the dataset kind."""
    answers = load_kind(settings.source.kind).datasheet.model_dump(exclude_none=True)
    return Datasheet.model_validate(answers | settings.datasheet.model_dump(exclude_none=True))


def _content(
    study: str, settings: Study, dataset: Datasheet, counts: str, index_path: str
) -> dict[str, Any]:
    """Return the variables of the template."""
    index, split, audit = read_index(index_path), settings.split, read_json(counts)
    personal = settings.source.kind == PERSONAL
    state = audit["patients"]["state"]
    mode = FOLDERS if personal and split.mode == "published" else split.mode
    if (mode, state) == UNKNOWN_GROUPED:
        mode = "grouped, patients not known"
    download = load_kind(settings.source.kind).download
    shares = [f"{100 * getattr(split, name):.4g} % {SPLITS_IN_WORDS[name]}" for name in SPLITS]
    described = dataset.model_dump()
    metadata = metadata_columns(index, audit)
    return {
        "study": study,
        "title": settings.title,
        "synthetic": settings.source.synthetic,
        "personal": personal,
        "unknown": f'"{UNKNOWN}"',
        "d": {key: UNKNOWN if value is None else value for key, value in described.items()},
        "problems": dataset.known_problems or [],
        "a": audit,
        "classes": list(index["label"].cat.categories),  # in the study's order
        "files": unit_of_files(audit),
        "groups": GROUPS[state],
        "patients": sentence(audit["patients"]),
        "splits": {name: SPLITS_IN_WORDS[name] for name in SPLITS},
        "sizes": f"{_range(index['width'])} pixels wide, {_range(index['height'])} high",
        "metadata": {name: _distribution(index[name]) for name in metadata},
        "fetch": command_line(download) if download else None,
        "split": split,
        "divided": DIVIDED[mode]
        + (f" ({split.column} {split.held_out})" if split.held_out is not None else ""),
        "shares": ", ".join(shares),
        "preprocess": settings.preprocess,
        "steps": _steps(settings),
        "digest": index_digest(index_path),
    }


def metadata_columns(index: pd.DataFrame, audit: dict[str, Any]) -> list[str]:
    """Return the columns of an index that describe patients and do not identify them.

    Numbers of patients, lesions and exams identify them, whether patients are known by them or not.

    ``audit``: the content of audit.json, which says where the patients' names come from.
    """
    source = audit["patients"].get("from") or ""
    return [
        name
        for name in index.columns
        if name not in NO_METADATA
        and not is_of_folds(name)
        and not (is_person(name) or names_part(name))
        and not source.startswith(f"column {name} of ")
    ]


def _steps(settings: Study) -> list[str]:
    """Return the steps of preprocessing in words."""
    section = settings.preprocess
    steps = {
        "cut to the middle square": section.fit == "cover",
        "stretched": section.fit == "stretch",
        "local histogram equalization": section.clahe is not None,
        f"gamma {section.gamma}": section.gamma is not None,
        f"median filter {section.median}x{section.median}": section.median is not None,
    }
    return [step for step, is_used in steps.items() if is_used]


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def _distribution(values: pd.Series) -> str:
    """Return how many images have a value, and its range or its most frequent values.

    Images whose value is a word such as ``unknown`` are not counted.
    """
    present = values.dropna()
    if not pd.api.types.is_numeric_dtype(present):
        present = present[[not is_missing(str(text), name=True) for text in present]]
    share = f"known of {len(present)} of {len(values)} images"
    if present.empty:
        return share
    if pd.api.types.is_numeric_dtype(present) and not pd.api.types.is_bool_dtype(present):
        low, middle, high = present.quantile([0, 0.5, 1])
        return f"{share}; {low:g} to {high:g}, median {middle:g}"
    counts = present.astype(str).value_counts()
    most_frequent = ", ".join(f"{name} {count}" for name, count in counts.head(FREQUENT).items())
    more = f" and {len(counts) - FREQUENT} more" if len(counts) > FREQUENT else ""
    return f"{share}; {most_frequent}{more}"
