"""The chapter checklists: the items of reporting checklists, each with its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.report.checklists.answers import NOT_ANSWERED, NOT_DONE, answer
from medscale.report.checklists.items import (
    Listing,
    StudyAnswers,
    check_names,
    read_listing,
    remedy,
    stopping,
)
from medscale.report.latex import longtable, prose
from medscale.report.paper.facts import read_facts
from medscale.report.writer import Pages

COLUMNS = [
    (r">{\raggedright\arraybackslash}p{0.10\linewidth}", "item"),
    (r">{\raggedright\arraybackslash}p{0.30\linewidth}", "asks for"),
    (r">{\raggedright\arraybackslash}p{0.53\linewidth}", "answer"),
]


def make(
    study: str,
    *,
    listings: Sequence[str],
    facts: Sequence[str],
    shared: Sequence[str],
    studies: Mapping[str, dict[str, Any]],
) -> Pages:
    """Return a table for each checklist, and the number of its items by kind of answer.

    Raises MedscaleError for an answer to an unknown item, for an unknown fact in an answer, and for
    items without an answer where a study's configuration asks for all.

    Args:
        listings: files of checklists.
        facts, shared: of ``medscale.report.paper.facts.read_facts``.
        studies: fields of ``items.StudyAnswers`` by study.
    """
    lists = {Path(path).stem: read_listing(Path(path)) for path in listings}
    own = {name: StudyAnswers(**fields) for name, fields in studies.items()}
    check_names(lists, own)
    if missing := stopping(lists, own):
        raise MedscaleError(remedy(missing))
    variables = read_facts(list(map(Path, facts)), list(map(Path, shared)))
    tables = {name: _rows(name, listing, own, variables) for name, listing in lists.items()}
    return Pages(
        tables={f"checklist_{name}": (_table(rows), rows) for name, rows in tables.items()},
        facts={
            "lists": [
                {"name": name, "title": lists[name].title, "cite": lists[name].cite}
                | counts(tables[name])
                for name in lists
            ]
        },
    )


def _rows(
    name: str, listing: Listing, studies: Mapping[str, StudyAnswers], variables: Mapping[str, Any]
) -> pd.DataFrame:
    rows = [
        {
            "item": key,
            "asks": item.asks,
            "answer": answer(f"{name}.{key}", item, studies, variables),
        }
        for key, item in listing.items.items()
    ]
    return pd.DataFrame(rows)


def counts(rows: pd.DataFrame) -> dict[str, int]:
    """Return the number of items, of those not done, and of those without an answer.

    ``not_done`` counts items not done for all studies with one reason, ``partly`` items not done
    for at least one study.
    """
    answers = rows["answer"].str.lower()
    not_done = answers.str.startswith(NOT_DONE)
    partly_done = answers.str.contains(f": {NOT_DONE}", regex=False)
    return {
        "items": len(rows),
        "not_done": int(not_done.sum()),
        "partly": int((partly_done & ~not_done).sum()),
        "unanswered": int(answers.str.contains(NOT_ANSWERED, regex=False).sum()),
    }


def _table(rows: pd.DataFrame) -> str:
    cells = [[prose(str(cell)) for cell in row] for row in rows.itertuples(index=False)]
    return longtable(COLUMNS, [("", cells)])
