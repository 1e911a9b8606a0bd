"""A study's scaling analysis as tables, figures and facts: series, fitted laws, cost to a target, recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_json
from medscale.config.configuration import Config
from medscale.engine.plan import is_detector
from medscale.measure.scaling import Series, gather, point_of, without_one_device
from medscale.measure.scaling.advice import findings, recommendation, speaker, superlinear, verdict
from medscale.measure.scaling.target import costs, frontier, level
from medscale.report import scaling_figures, scaling_tables, style, tables
from medscale.report.latex import escape, significant
from medscale.report.marks import mark
from medscale.report.names import family, label
from medscale.report.reported import read_reported, times
from medscale.report.study import read_config
from medscale.resources.cost import kind_of


@dataclass(frozen=True)
class Analysis:
    """What the tables, figures and facts of a study's scaling are made from.

    Attributes:
        ours: measured series.
        published: series of published times.
        alone: runs on several devices that no run on one can be compared with.
        published_alone: the same among the published times.
        cost: as from ``scaling.target.costs``; empty where the baseline has no validation accuracy.
        target: validation accuracy that counts as reached; NaN where there is none.
    """

    ours: list[Series]
    published: list[Series]
    alone: list[str]
    published_alone: list[str]
    cost: pd.DataFrame
    target: float


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
    write_json(tables_to / "scaling.json", _facts(whole, study, summaries, found, best))


def analyse(
    config: Config,
    study: str,
    summaries: Sequence[dict[str, Any]],
    runs: Path,
    reported: dict[str, Any],
) -> Analysis:
    """Series of ours and of the published times, and what each run costs until the target accuracy."""
    points, theirs = [point_of(summary) for summary in summaries], times(reported)
    ours, published = gather(points), gather(theirs)
    classified = [one for one in summaries if not is_detector(one["model"]["name"])]
    histories = {
        one["run"]["name"]: _histories(runs / one["run"]["name"], one["seeds"])
        for one in classified
    }
    baseline = config.study(study).baseline
    target = (
        level(histories[baseline], config.cost.target) if baseline in histories else float("nan")
    )
    prices = {one["backend"]: kind_of(config, one["backend"]).price for one in summaries}
    return Analysis(
        ours=ours,
        published=published,
        alone=without_one_device(points, ours),
        published_alone=without_one_device(theirs, published),
        cost=costs(classified, histories, target, prices),
        target=target,
    )


def plural(series: Series, *, published: bool = False) -> str:
    """The devices of a series in words."""
    if series.stand_in:
        return "CPU processes in place of GPUs"
    return (
        "GPUs" if series.spec.device == "gpu" else "CPU workers" if published else "CPU processes"
    )


def _histories(folder: Path, seeds: Sequence[int]) -> list[pd.DataFrame]:
    try:
        return [pd.read_csv(folder / f"seed{seed}" / "history.csv") for seed in seeds]
    except (OSError, ValueError) as error:
        raise MedscaleError(
            f"{folder}: a history cannot be read ({error}); run the training again"
        ) from None


def _facts(
    config: Config,
    study: str,
    summaries: Sequence[dict[str, Any]],
    found: Analysis,
    best: Sequence[str],
) -> dict[str, Any]:
    """``structure`` (for the paper's template) and ``values`` (LaTeX by key, below ``<study>/scaling/``)."""
    kinds = {kind: [s for s in found.ours if s.spec.device == kind] for kind in ("cpu", "gpu")}
    spoken = {kind: speaker(series) for kind, series in kinds.items() if series}
    values = {f"advice/{kind}": recommendation(one, plural(one)) for kind, one in spoken.items()}
    values |= {
        f"published/{one.name}": findings(one, plural(one, published=True))
        for one in found.published
    }
    values |= {f"verdict/{one.name}": verdict(one) for one in found.published}
    priced = {
        ("GPU" if s["backend"] == "cuda" else "CPU core"): kind_of(config, s["backend"])
        for s in summaries
    }
    values |= {f"price/{kind.split()[0].lower()}": f"{one.price:g}" for kind, one in priced.items()}
    values |= {"currency": config.cost.currency, "share": f"{100 * config.cost.target:g}"}
    values["target"] = significant(100 * found.target)
    above = [
        (one, row) for one in found.published for _, row in superlinear(one.table()).iterrows()
    ]
    structure = {
        "part_of": study,
        "part": "scaling",
        "marks": sorted(
            (dict(pair) for pair in {tuple(sorted(s["marks"].items())) for s in summaries}), key=str
        ),
        "advice": [
            {"kind": kind, "series": family(one.spec.name), "stand_in": one.stand_in}
            for kind, one in spoken.items()
        ],
        "published": [
            {"key": one.name, "label": _words(one), "held": one.held} for one in found.published
        ],
        "superlinear": [
            f"{row['speedup']:.2f} on {int(row['devices'])} devices" for _, row in above
        ],
        "alone": [label(run) for run in found.alone],
        "published_alone": [label(run) for run in found.published_alone],
        "priced": [
            {"kind": kind, "key": kind.split()[0].lower(), "title": one.title}
            for kind, one in priced.items()
        ],
        "target": found.target == found.target,
        "best": [label(run) for run in best],
        "series": bool(found.ours),
        "fitted": any(one.law() for one in [*found.ours, *found.published]),
    }
    latex = {key: text if key == "target" else escape(text) for key, text in values.items()}
    return {
        "structure": structure,
        "values": {f"{study}/scaling/{key}": latex[key] for key in sorted(latex)},
    }


def _words(series: Series) -> str:
    words, single = (
        f"{family(series.spec.name)} on {series.spec.device.upper()}s",
        series.points[0].run,
    )
    own = family(single) == family(series.spec.name) or single.startswith("serial")
    return words if own else f"{words}, against {label(single)}"
