"""A study's figures, tables and facts, from its index, audit, shards and result folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.config.configuration import Config
from medscale.config.figures import FIGURES
from medscale.data.shards import Shards
from medscale.evaluate.replicates import read_index
from medscale.measure.scaling import speedups
from medscale.report import style
from medscale.report.marks import mark
from medscale.report.overview import data as data_figures
from medscale.report.overview import figures as study_figures
from medscale.report.overview import tables
from medscale.report.overview.facts import facts
from medscale.report.overview.parity import parity
from medscale.report.reported import compare, read_reported
from medscale.report.result.reading import Result, read_result, records


def write_report(
    study: str,
    config: Path,
    data: Path,
    results: Sequence[Path],
    reported: Path,
    figures: Path,
    tables_to: Path,
) -> None:
    """Write ``figures/<study>/*.pdf``, ``tables/<study>/*.tex|csv`` and ``tables/<study>/facts.json``.

    Args:
        study: its name.
        config: config.resolved.json.
        data: ``data/<study>``, with index.parquet, audit.csv, audit.json and shards.
        results: result folders, in the order in which runs are shown.
        reported: reported.yaml.
        figures: folder of the figures.
        tables_to: folder of the tables.

    Raises:
        MedscaleError: when an input is missing, damaged, or does not fit the others.
    """
    whole = read_config(config)
    settings = whole.study(study)
    found = [read_result(folder) for folder in results]
    index, audit = read_index(data / "index.parquet"), read_json(data / "audit.json")
    shards = Shards.open(data / "shards")
    for result in found:
        if result.classes != shards.classes:
            raise MedscaleError(
                f"{result.name} was evaluated for other classes than {data} has; delete results/{study}"
            )
    counts = _counts(index)
    reasons = _reasons(data / "audit.csv", audit, len(index))
    times = speedups([result.summary for result in found])
    published = compare(read_reported(reported, study), found)
    _figures(figures, found, times, settings.baseline, shards, counts, reasons, audit)
    _tables(tables_to, found, times, settings.baseline, index, counts, reasons, published)
    said = facts(
        study,
        settings,
        found,
        times,
        counts,
        audit,
        published,
        whole.figures(study)[len(FIGURES) :],
    )
    write_json(tables_to / "facts.json", said)


def read_config(path: Path) -> Config:
    """The resolved configuration.

    Raises:
        MedscaleError: when it is missing or another version's.
    """
    try:
        return Config.model_validate(read_json(path))
    except ValidationError as error:
        raise MedscaleError(
            f"{path} is not this version's configuration ({error.errors()[0]['msg']}); delete it"
        ) from None


def _counts(index: pd.DataFrame) -> pd.DataFrame:
    """Images: a row a class in its order, columns train, val, test."""
    table = index.groupby(["label", "split"], observed=False).size().unstack(fill_value=0)
    return table.reindex(columns=list(tables.SPLITS), fill_value=0)


def _reasons(path: Path, audit: dict[str, Any], used: int) -> pd.DataFrame:
    """Files by ``action`` and ``reason``, from audit.csv, checked against the totals of audit.json.

    Raises:
        MedscaleError: when files are unaccounted for.
    """
    lines = pd.read_csv(path, dtype=str, keep_default_na=False)
    excluded = int((lines["action"] == "excluded").sum())
    if audit["used"] != used or audit["found"] != used + excluded:
        raise MedscaleError(
            f"{path}: {audit['found']} files were found, but {used} used and {excluded} excluded; index again"
        )
    grouped = (
        lines.groupby(["action", "reason"], as_index=False).size().rename(columns={"size": "files"})
    )
    return grouped.sort_values(
        ["action", "files", "reason"], ascending=[True, False, True], ignore_index=True
    )


def _figures(
    folder: Path,
    found: Sequence[Result],
    times: pd.DataFrame,
    baseline: str,
    shards: Shards,
    counts: pd.DataFrame,
    reasons: pd.DataFrame,
    audit: dict[str, Any],
) -> None:
    marks = [result.summary["marks"] for result in found]
    seen = mark(marks)
    of_data = mark([{**m, "stand_in": False} for m in marks])
    files = {"found": int(audit["found"]), "used": int(audit["used"])}
    excluded = reasons[reasons["action"] == "excluded"]
    files |= {f"left out: {row['reason']}": int(row["files"]) for row in records(excluded)}
    style.save(data_figures.samples(shards), folder / "samples.pdf", of_data)
    style.save(data_figures.audit(files, counts), folder / "audit.pdf", of_data)
    style.save(study_figures.curves(found), folder / "curves.pdf", seen)
    style.save(study_figures.accuracy(found, baseline), folder / "accuracy.pdf", seen)
    style.save(study_figures.roc(found), folder / "roc.pdf", seen)
    style.save(study_figures.confusion(found), folder / "confusion.pdf", seen)
    style.save(study_figures.speedup(times), folder / "speedup.pdf", seen)
    style.save(study_figures.efficiency(times), folder / "efficiency.pdf", seen)
    style.save(study_figures.time(found), folder / "time.pdf", seen)


def _tables(
    folder: Path,
    found: Sequence[Result],
    times: pd.DataFrame,
    baseline: str,
    index: pd.DataFrame,
    counts: pd.DataFrame,
    reasons: pd.DataFrame,
    published: pd.DataFrame,
) -> None:
    groups = index.groupby("split")["group"].nunique().reindex(list(tables.SPLITS), fill_value=0)
    groups["all"] = index["group"].nunique()  # a group of a published split can stand in two parts
    by_class = counts.reset_index().rename(columns={"label": "class"})
    tables.write(
        folder, "data", tables.data(counts, {str(k): int(v) for k, v in groups.items()}), by_class
    )
    tables.write(folder, "audit", tables.audit(reasons), reasons)
    tables.write(folder, "results", *tables.results(found, baseline))
    steps = parity(found, baseline)
    tables.write(folder, "parity", tables.parity(steps), steps)
    base = next(result for result in found if result.name == baseline)
    tables.write(folder, "per_class", *tables.per_class(base))
    tables.write(folder, "timing", tables.timing(times), times)
    tables.write(folder, "reported", tables.reported(published), published)
