"""The chapter scaling: series, fitted laws, cost until a target, recommendations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.measure.scaling.target import factor_of, read_history, target_of
from medscale.report.marks import marks_of
from medscale.report.reported import read_reported
from medscale.report.scaling import figures, tables
from medscale.report.scaling.analysis import analyse
from medscale.report.scaling.facts import facts
from medscale.report.sources import by_run
from medscale.report.writer import Pages


def make(
    study: str,
    *,
    results: Sequence[str],
    histories: Sequence[str],
    reference: Sequence[str],
    reported: str,
    target: dict[str, Any],
    currency: str,
    devices: dict[str, dict[str, Any]],
) -> Pages:
    """Return the figures, tables and facts of the chapter.

    Raises MedscaleError when an input is missing or damaged, or a price is missing.
    """
    summaries = [read_json(Path(folder) / "summary.json") for folder in results]
    backends = {summary["backend"] for summary in summaries}
    if missing := backends - set(devices):
        raise MedscaleError(f"cost.devices in config.yaml describes no device of {missing.pop()}")
    prices = {backend: devices[backend]["price"] for backend in backends}
    published = read_reported(reported, study)
    level = target_of([read_history(path) for path in reference], **target)
    analysis = analyse(summaries, by_run(histories), published, level, prices)
    sources = {"ours": analysis.measured, "published": analysis.published}
    marks = [marks_of(summary) for summary in summaries]
    speedups = figures.speedups(analysis.measured, analysis.published)
    cost = analysis.cost, analysis.best, currency
    timings = {summary["run"]["name"]: summary["timing"] for summary in summaries}
    marked = analysis.best if len(analysis.cost) > 1 else []  # a single run is not the best of any
    return Pages(
        marks=marks,
        figures={
            # Published times have no mark.
            "scaling": (speedups, marks if analysis.measured else []),
            "cost": figures.cost(*cost),
        },
        tables={
            "scaling": tables.series(analysis.measured),
            "laws": tables.laws(sources),
            "cost": (tables.cost(analysis.cost, marked, currency, timings), analysis.cost),
        },
        facts=facts(
            summaries,
            analysis,
            factor_of(level.metric, target["share"]) if target["value"] is None else None,
            currency,
            devices,
        ),
    )
