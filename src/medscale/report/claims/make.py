"""The chapter claims: statements of the paper, measured anew, each with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.files import read_json
from medscale.base.paths import TIMING
from medscale.base.text import latex
from medscale.report.claims.chapter import paths
from medscale.report.claims.checking import checked, words_of_bounds, words_of_value
from medscale.report.claims.measures import MEASURES
from medscale.report.claims.planned import Planned, shown_by
from medscale.report.claims.quantities import Files
from medscale.report.claims.statements import PAPER, PUBLISHED
from medscale.report.claims.verdicts import MISSING, ORDER
from medscale.report.latex import longtable, prose, significant
from medscale.report.tables import Column
from medscale.report.units import time_unit
from medscale.report.writer import Pages

NOWHERE = Path("not-an-input")  # of no file that exists
ORIGINS = {PAPER: "Statements of this document", PUBLISHED: "Conclusions of the published projects"}
COLUMNS = ["name", "statement", "origin", "study", "measure", "value", "low", "high"]
COLUMNS += ["lowest", "highest", "verdict", "note", "reason", "shown", "target"]
COLUMNS += ["minutes", "measured_minutes", "hardware", "measured_hardware"]


def make(
    study: str,
    *,
    files: Sequence[str],
    claims: Sequence[dict[str, Any]],
    output_paths: Mapping[str, Mapping[str, str]],
) -> Pages:
    """Return tables and facts of the claims.

    Raises MedscaleError for a damaged input, and for a claim whose figure or table does not exist.

    Args:
        claims: fields of ``planned.Planned``.
        files: where the files of ``chapter.paths`` lie, in the same order.
        output_paths: pattern of the path of each figure and table, by name.
    """
    planned = [Planned.model_validate(claim) for claim in claims]
    places = dict(zip(paths(planned), map(Path, files), strict=True))
    # A file that the configuration does not make is no input, and counts as missing.
    read = Files(lambda path: places.get(path, NOWHERE))
    rows = checked(planned, read)
    for claim, row in zip(planned, rows, strict=True):
        row |= {"shown": shown_by(claim, output_paths), "target": " ".join(claim.targets)}
        row |= _origin(claim, row, read)
    table = pd.DataFrame(rows, columns=COLUMNS).assign(test=[row["test"] for row in rows])
    return Pages(
        tables={"claims": (_claims(rows), table), "artefact": (_artefact(rows), table)},
        facts=_facts(rows),
    )


def _origin(claim: Planned, row: Mapping[str, Any], files: Files) -> dict[str, Any]:
    """Return how long the trainings of a measured claim took, and on which hardware."""
    seconds, machines = 0.0, []
    folders = [path for path in claim.files if path.endswith(TIMING)]
    for path in folders if row["verdict"] != MISSING else ():
        timing = read_json(files.locate(path))
        seconds += timing["wall_seconds"]
        machines.append(timing["hardware"])
    return {
        "measured_minutes": seconds / 60 if machines else None,
        "measured_hardware": "; ".join(dict.fromkeys(machines)),
    }


def _facts(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the number of claims by verdict, and each claim with its verdict."""
    counts = {
        origin: {verdict: _count(rows, origin, verdict) for verdict in ORDER} for origin in ORIGINS
    }
    keys = ("name", "statement", "origin", "verdict", "value", "low", "high", "note")
    return {
        "claims": [{key: row[key] for key in keys} for row in rows],
        "counts": counts,
        "all": {origin: sum(numbers.values()) for origin, numbers in counts.items()},
    }


def _count(rows: Sequence[dict[str, Any]], origin: str, verdict: str) -> int:
    return sum(row["origin"] == origin and row["verdict"] == verdict for row in rows)


def _claims(rows: Sequence[dict[str, Any]]) -> str:
    """Return the verdicts: statement and quantity, value, accepted values, verdict."""
    columns = [
        Column(r"p{0.41\linewidth}", "claim", _statement),
        Column(r"p{0.15\linewidth}", r"measured (95\,\% interval)", _value),
        Column(r"p{0.14\linewidth}", "accepted", lambda row: latex(words_of_bounds(row))),
        Column(r"p{0.19\linewidth}", "verdict", _verdict),
    ]
    return _long(columns, rows)


def _artefact(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table for evaluating the artefact: targets, times, hardware, figure or table."""
    columns = [
        Column(r"p{0.18\linewidth}", "claim", lambda row: rf"\texttt{{{latex(row['name'])}}}"),
        Column(r"p{0.32\linewidth}", "made by (and shown in)", _made_by),
        Column(r"p{0.08\linewidth}", "time here", _measured),
        Column(r"p{0.14\linewidth}", "time at full scale (cost model)", _expected),
        Column(r"p{0.15\linewidth}", "hardware here", _hardware),
    ]
    return _long(columns, rows)


def _long(columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> str:
    groups = [
        (
            heading,
            [[column.cell(row) for column in columns] for row in rows if row["origin"] == key],
        )
        for key, heading in ORIGINS.items()
        if any(row["origin"] == key for row in rows)
    ]
    heads = [(rf">{{\raggedright\arraybackslash}}{c.align}", c.heading) for c in columns]
    return longtable(heads, groups)


def _statement(row: dict[str, Any]) -> str:
    words = MEASURES[row["measure"]].words
    runs = ", ".join(dict.fromkeys(filter(None, [row["run"], row["baseline"], row["variant"]])))
    about = f" {row['study']}: {words} ({runs})" if runs else f" {row['study']} {words}"
    text = rf"\texttt{{{latex(row['name'])}}}: {prose(row['statement'])}"
    return rf"{text} \emph{{{latex(about.strip())}}}"


def _value(row: dict[str, Any]) -> str:
    return latex(words_of_value(row)) or "--"


def _verdict(row: dict[str, Any]) -> str:
    note = f" ({prose(row['note'])})" if row["note"] else ""
    return rf"\textbf{{{latex(row['verdict'])}}}{note}"


def _made_by(row: dict[str, Any]) -> str:
    targets = ", ".join(rf"\texttt{{{latex(t)}}}" for t in row["target"].split())
    targets = targets or rf"\texttt{{medscale verify {latex(row['name'])}}}"
    return rf"{targets} (\texttt{{{latex(row['shown'])}}})"


def _measured(row: dict[str, Any]) -> str:
    minutes = row["measured_minutes"]
    return "--" if minutes is None or minutes != minutes else _duration(minutes)


def _expected(row: dict[str, Any]) -> str:
    return f"{_duration(row['minutes'])} on {latex(row['hardware'])}"


def _duration(minutes: float) -> str:
    """Return a time in a unit that suits it: "16 s", "14 min", "55 h"."""
    factor, unit = time_unit(60 * minutes)
    symbol = {"seconds": "s", "minutes": "min", "hours": "h"}[unit]
    return rf"{significant(60 * minutes * factor, 2)}\,{symbol}"


def _hardware(row: dict[str, Any]) -> str:
    return latex(row["measured_hardware"] or "--")
