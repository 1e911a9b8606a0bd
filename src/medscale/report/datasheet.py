"""datasheet.md of a study's images, and its table in the paper: origin, make-up, what was left out, the split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from medscale.base.files import read_json, sha256, write_text
from medscale.config.configuration import Config
from medscale.config.sections import Datasheet, Study
from medscale.data.download import command_line
from medscale.data.kind import load_kind
from medscale.evaluate.replicates import read_index
from medscale.report import tables
from medscale.report.latex import escape, tabular
from medscale.report.marks import SYNTHETIC
from medscale.report.names import SPLITS_IN_WORDS

UNKNOWN = "not known to this study"
OWN_COLUMNS = {
    "id",
    "path",
    "label",
    "split",
    "split_published",
    "group",
    "width",
    "height",
    "sha256",
    "source",
}
NO_METADATA = {*OWN_COLUMNS, "alike", "boxes"}
DIVIDED = {
    "grouped": "whole patients or groups of near-duplicates are drawn, so that none is on both sides",
    "random": "images are drawn, without regard to patients",
    "published": "the published one",
}
TEMPLATE = """\
# Datasheet: images of the study {{ study }}

{% if synthetic %}> **All images are synthetic**, drawn by a program in the layout of the dataset named below. \
What is counted here are
> those drawings; what is said of origin, people and licence is about the real dataset.

{% endif %}
Questions after Gebru et al. (2021), *Datasheets for datasets*. What nobody told this study is marked as {{ unknown }}.

## Motivation

- Dataset: {{ d.name }}
- For what it was made: {{ d.purpose }}
- By whom: {{ d.creators }}
- Here it serves the study "{{ title }}".

## Composition

- Instances: {{ d.instances }}
- Labels: {{ d.labels }}
- Files: {{ a.found }} found, {{ a.used }} used, of {{ a.groups }} patients or groups, {{ a.excluded }} left out.

| class | {{ splits.values() | join(" | ") }} | all |
|---|{{ "---|" * (splits | length) }}---|
{% for name, row in a.counts.items() %}| {{ name }} \
| {% for split in splits %}{{ row[split] }} | {% endfor %}{{ row.values() | sum }} |
{% endfor %}

- Sizes of the images as found: {{ sizes }}
{% for name, said in metadata.items() %}- {{ name }}: {{ said }}
{% else %}- No age, sex or other fact of a patient is in the index.
{% endfor %}
- Images by source set and class: {% for name, row in a.counts_by_source.items() %}{{ name }} \
({% for label, count in row.items() %}{{ label }} {{ count }}{{ ", " if not loop.last }}{% endfor %})\
{{ "; " if not loop.last }}{% endfor %}

{% if problems or a.notes %}

Known problems of the dataset, and what the audit of these files noted:

{% for one in problems %}- {{ one }}.
{% endfor %}
{% for one in a.notes %}- {{ one }}
{% endfor %}
{% endif %}

## Collection

- Origin: {{ d.origin }}
- Consent of the people shown, and review by an ethics board: {{ d.people }}
{% if fetch %}- Obtained by: `{{ fetch }}`
{% endif %}

## Cleaning and preprocessing

{% if a.by_reason %}Left out, each file with its reason in `audit.csv`:

| reason | files |
|---|---|
{% for reason, count in a.by_reason.items() %}| {{ reason }} | {{ count }} |
{% endfor %}

{% else %}No file was left out.

{% endif %}
Split: {{ divided }}{% if split.balance %}; each class is cut to the size of the smallest{% endif %}\
{% if split.mode != "published" %} ({{ shares }}; seed {{ split.seed }}){% endif %}. Images become \
{{ preprocess.size }}x{{ preprocess.size }} pixels ({{ steps | join(", ") }}); the raw files stay as they are.

## Uses

Research on parallel training, in this study. The images do not represent a population: shares of classes, ages and
sources are those of what was published. They do not suffice to validate a medical device.

## Distribution

- Licence: {{ d.licence }}
- Citation: {{ d.citation }}
- This project passes on no images, only the way to obtain and prepare them.

## Maintenance

The dataset is its publishers'; this study keeps no copy. What these images are is fixed by SHA-256: each file's stands
in `index.parquet`, whose own is `{{ digest }}`.
"""


def write_datasheet(study: str, config: Config, data: Path, folder: Path) -> None:
    """Write ``data/datasheet.md`` and ``folder/datasheet.tex|csv``.

    Args:
        study: its name.
        config: the resolved configuration.
        data: ``data/<study>``, with index.parquet and audit.json.
        folder: folder of the study's tables.

    Raises:
        MedscaleError: when an input is missing or damaged.
    """
    settings = config.study(study)
    about, audit = facts(settings), read_json(data / "audit.json")
    index = read_index(data / "index.parquet")
    said = _said(study, settings, about, audit, index, sha256(data / "index.parquet"))
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    write_text(data / "datasheet.md", environment.from_string(TEMPLATE).render(said) + "\n")
    rows = _rows(said)
    tables.write(
        folder, "datasheet", _table(rows), pd.DataFrame(rows, columns=["question", "answer"])
    )


def facts(settings: Study) -> Datasheet:
    """Return the study's own answers, completed by those of the dataset kind."""
    answers = load_kind(settings.source.kind).datasheet.model_dump(exclude_none=True)
    return Datasheet.model_validate(answers | settings.datasheet.model_dump(exclude_none=True))


def _said(
    study: str,
    settings: Study,
    about: Datasheet,
    audit: dict[str, Any],
    index: pd.DataFrame,
    digest: str,
) -> dict[str, Any]:
    """All that the template prints."""
    split, download = settings.split, load_kind(settings.source.kind).download
    shares = ", ".join(
        f"{100 * getattr(split, name):g} % {SPLITS_IN_WORDS[name]}" for name in tables.SPLITS
    )
    return {
        "study": study,
        "title": settings.title,
        "synthetic": settings.source.synthetic,
        "unknown": f'"{UNKNOWN}"',
        "d": {
            key: UNKNOWN if value is None else value for key, value in about.model_dump().items()
        },
        "problems": about.known_problems or [],
        "a": audit,
        "splits": {name: SPLITS_IN_WORDS[name] for name in tables.SPLITS},
        "sizes": _range(index["width"]) + " pixels wide, " + _range(index["height"]) + " high",
        "metadata": {
            name: _spread(index[name]) for name in index.columns if name not in NO_METADATA
        },
        "fetch": command_line(download) if download else None,
        "split": split,
        "divided": DIVIDED[split.mode],
        "shares": shares,
        "preprocess": settings.preprocess,
        "steps": _steps(settings),
        "digest": digest,
    }


def _rows(said: dict[str, Any]) -> list[tuple[str, str]]:
    """The datasheet's essence for the paper: question and answer."""
    about, audit = said["d"], said["a"]
    left_out = ", ".join(f"{reason} {count}" for reason, count in audit["by_reason"].items())
    rows = [
        ("dataset", about["name"]),
        ("origin", about["origin"]),
        ("licence", about["licence"]),
        ("consent, ethics review", about["people"]),
        ("labels", about["labels"]),
        (
            "metadata",
            "; ".join(f"{name}: {text}" for name, text in said["metadata"].items()) or "none",
        ),
        (
            "files",
            f"{audit['found']} found, {audit['used']} used, {audit['excluded']} left out ({left_out or 'none'})",
        ),
        ("patients or groups", str(audit["groups"])),
        ("image sizes as found", said["sizes"]),
        ("split", said["divided"]),
        ("known problems", ". ".join(said["problems"]) or UNKNOWN),
        ("SHA-256 of the index", said["digest"]),
    ]
    if said["synthetic"]:
        of_images = (
            f"{SYNTHETIC}, in this dataset's layout. Metadata, files, groups, sizes, split and digest below describe "
            "the synthetic images; all else describes the real dataset."
        )
        rows.insert(1, ("images used here", of_images))
    return rows


def _table(rows: list[tuple[str, str]]) -> str:
    cells = [[escape(question), escape(answer)] for question, answer in rows[:-1]]
    cells.append([escape(rows[-1][0]), r"\texttt{" + rows[-1][1] + "}"])
    return tabular(
        [(r">{\raggedright}p{0.18\linewidth}", "about"), (r"p{0.78\linewidth}", "what is known")],
        cells,
    )


def _steps(settings: Study) -> list[str]:
    """Preprocessing in words."""
    one = settings.preprocess
    steps = {
        "cut to the middle square": one.fit == "cover",
        "stretched": one.fit == "stretch",
        "local histogram equalization": one.clahe is not None,
        f"gamma {one.gamma}": one.gamma is not None,
        f"median filter {one.median}x{one.median}": one.median is not None,
    }
    return [step for step, done in steps.items() if done]


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def _spread(values: pd.Series) -> str:
    """How far a fact of the metadata is known, and its range or its most frequent values."""
    known = values.dropna()
    share = f"known of {len(known)} of {len(values)} images"
    if known.empty:
        return share
    if pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known):
        low, middle, high = known.quantile([0, 0.5, 1])
        return f"{share}; {low:g} to {high:g}, median {middle:g}"
    counts = known.astype(str).value_counts()
    shown = ", ".join(f"{name} {count}" for name, count in counts.head(6).items())
    return f"{share}; {shown}" + (f" and {len(counts) - 6} more" if len(counts) > 6 else "")
