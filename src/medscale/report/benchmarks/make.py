"""Figure, table and facts of what a study measures besides its runs: preprocessing, loading, exports, inference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.measure.scaling import by_format, by_inference, by_way, by_workers
from medscale.report import style
from medscale.report.enhance import figures as benchmark_figures
from medscale.report.inference import figures as inference_figures
from medscale.report.inference import tables as inference
from medscale.report.latex import escape, number, significant, stacked, tabular
from medscale.report.marks import mark
from medscale.report.names import SPLITS_IN_WORDS
from medscale.report.overview import tables
from medscale.report.overview.tables import with_range
from medscale.report.reported import read_reported
from medscale.report.result.reading import records

CROWDED = r"\textsuperscript{*}"
ALONE = "simple"


def write_benchmark(
    name: str, study: str, measured: Path, reported: Path, figures: Path, tables_to: Path
) -> None:
    """Write ``figures/<study>/<name>.pdf`` and ``tables/<study>/<name>.tex|csv`` from what was measured.

    Raises:
        MedscaleError: when an input is missing or damaged.
    """
    about, rows = read_json(measured / f"{name}.json"), _read(measured / f"{name}.csv")
    seen = mark([about["marks"]])
    said = read_reported(reported, study)
    table, figure, text = _MADE[name](rows, about, said)
    style.save(figure, figures / f"{name}.pdf", seen)
    tables.write(tables_to, name, text, table.assign(**about["marks"], cpu=about["machine"]["cpu"]))


Made = tuple[pd.DataFrame, Figure, str]  # summed rows, their figure, their table as LaTeX
About = dict[str, Any]  # what stands beside the measured rows


def _of_enhance(rows: pd.DataFrame, about: About, reported: dict[str, Any]) -> Made:
    table = by_workers(rows)
    return table, benchmark_figures.enhance(table), _enhance(table)


def _of_loading(rows: pd.DataFrame, about: About, reported: dict[str, Any]) -> Made:
    table, words, published = (
        by_way(rows, ALONE),
        _words(about, rows["way"]),
        reported.get("loader_speedup"),
    )
    figure = benchmark_figures.loading(table, words, published)
    return table, figure, _loading(table, words, published)


def _of_export(rows: pd.DataFrame, about: About, reported: dict[str, Any]) -> Made:
    table, words = by_format(rows), _words(about, rows["format"])
    text = inference.export_table(table, words, about["missing"])
    return table, inference_figures.export(table, words), text


def _of_inference(rows: pd.DataFrame, about: About, reported: dict[str, Any]) -> Made:
    table, words, published = (
        by_inference(rows),
        _words(about, rows["way"]),
        reported.get("inference_images_per_second"),
    )
    figure = inference_figures.inference(table, words, published)
    text = inference.inference_table(table, words, published, about["missing"])
    return table, figure, text


def _words(about: About, measured: pd.Series) -> dict[str, str]:
    """What each way is called, in the order in which they were measured."""
    return {
        str(way): about["ways"][way]["label"] for way in measured.unique() if way in about["ways"]
    }


_MADE: dict[str, Callable[[pd.DataFrame, About, dict[str, Any]], Made]] = {
    "enhance": _of_enhance,
    "loading": _of_loading,
    "export": _of_export,
    "inference": _of_inference,
}


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise MedscaleError(f"{path} cannot be read ({error}); delete it and run again") from None


def _enhance(table: pd.DataFrame) -> str:
    rows, rules = [], []
    for split, part in table.groupby("split", sort=False):
        for row in records(part):
            rows.append(
                [
                    SPLITS_IN_WORDS[str(split)],
                    str(row["images"]),
                    _count(row["workers"], row["oversubscribed"]),
                    with_range(*_ends(row, "seconds")),
                    significant(row["images_per_second"]),
                    with_range(*_ends(row, "speedup"), 2),
                    number(row["efficiency"], 2),
                    significant(row["startup_s"], 2),
                    significant(row["peak_memory_mb"]),
                ]
            )
        rules.append(len(rows) - 1)
    heads = (
        "images",
        "workers",
        "seconds",
        "images/s",
        "speedup",
        r"effi-\\ciency",
        r"start-up\\(s)",
        r"memory a\\worker (MB)",
    )
    return tabular([("l", "split"), *[("r", stacked(head)) for head in heads]], rows, rules)


def _loading(table: pd.DataFrame, labels: dict[str, str], published: float | None) -> str:
    rows, rules = [], []
    for way, part in table.groupby("way", sort=False):
        for row in records(part):
            rows.append(
                [
                    escape(labels[str(way)]),
                    _count(row["processes"], row["oversubscribed"]),
                    with_range(*_ends(row, "images_per_second")),
                    significant(row["images_per_second_core"]),
                    with_range(*_ends(row, "wait_ms")),
                    "1" if way == ALONE else with_range(*_ends(row, "gain"), 2),
                ]
            )
        rules.append(len(rows) - 1)
    if published is not None:
        rows.append(["reported", "--", "--", "--", "--", number(published, 2)])
    heads = (
        "processes",
        "images/s",
        r"images/s\\a core",
        r"waited for\\a batch (ms)",
        r"against\\simple",
    )
    return tabular(
        [("l", "way of loading"), *[("r", stacked(head)) for head in heads]], rows, rules
    )


def _count(processes: Any, crowded: bool) -> str:
    return f"{int(processes)}{CROWDED if crowded else ''}"


def _ends(row: dict[str, Any], column: str) -> tuple[float, float, float]:
    return row[column], row[f"{column}_low"], row[f"{column}_high"]
