"""A study's scaling analysis as tables, figures and facts: series, fitted laws, cost to a target, recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medscale.base.files import read_json, write_json
from medscale.measure.scaling.target import frontier
from medscale.report import style
from medscale.report.marks import mark
from medscale.report.overview import tables
from medscale.report.overview.make import read_config
from medscale.report.reported import read_reported
from medscale.report.scaling import figures as scaling_figures
from medscale.report.scaling import tables as scaling_tables
from medscale.report.scaling.analysis import analyse
from medscale.report.scaling.facts import facts


def write_scaling(
    study: str,
    config: Path,
    results: Sequence[Path],
    runs: Path,
    reported: Path,
    figures: Path,
    tables_to: Path,
) -> None:
    """Write ``figures/<study>/scaling|cost.pdf`` and ``tables/<study>/scaling|laws|cost.tex|csv`` and ``scaling.json``.

    Args:
        study: its name.
        config: config.resolved.json.
        results: result folders, in the order in which runs are shown.
        runs: ``runs/<study>``, with the history of each replicate.
        reported: reported.yaml.
        figures: folder of the figures.
        tables_to: folder of the tables.

    Raises:
        MedscaleError: when an input is missing or damaged.
    """
    whole = read_config(config)
    summaries = [read_json(folder / "summary.json") for folder in results]
    marks = [summary["marks"] for summary in summaries]
    found = analyse(whole, study, summaries, runs, read_reported(reported, study))
    seen = mark(marks)
    of_ours = seen if found.ours else ""  # what others published stands in for nothing
    style.save(
        scaling_figures.speedups(found.ours, found.published), figures / "scaling.pdf", of_ours
    )
    best = frontier(found.cost)
    style.save(
        scaling_figures.cost(found.cost, best, whole.cost.currency), figures / "cost.pdf", seen
    )
    tables.write(tables_to, "scaling", *scaling_tables.series(found.ours))
    tables.write(
        tables_to, "laws", *scaling_tables.laws({"ours": found.ours, "published": found.published})
    )
    tables.write(tables_to, "cost", *scaling_tables.cost(found.cost, best, whole.cost.currency))
    write_json(tables_to / "scaling.json", facts(whole, summaries, found, best))
