"""The chapter synthesis: speed and accuracy of all runs of all studies together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from medscale.measure.scaling.advice import is_undecided
from medscale.measure.scaling.series import Series, gather, point_of
from medscale.report.marks import marks_of
from medscale.report.reported import read_reported, times
from medscale.report.synthesis import figures
from medscale.report.synthesis.buying import what_to_buy
from medscale.report.synthesis.effects import published_pairs, split_effects
from medscale.report.synthesis.facts import facts
from medscale.report.synthesis.runs import StudyRuns, all_runs, read_studies
from medscale.report.synthesis.tables import studies_table, verdicts_table
from medscale.report.writer import Pages


def make(
    study: str,
    *,
    results: Sequence[str],
    audits: Sequence[str],
    tables: Sequence[str],
    variants: Sequence[str],
    indexes: Sequence[str],
    reported: str,
    studies: dict[str, dict[str, Any]],
    currency: str,
) -> Pages:
    """Return figures, tables and facts; raise MedscaleError when an input is missing or damaged."""
    members = read_studies(studies, results, audits, tables)
    runs = all_runs(members)
    series = {member.name: _series(member, reported) for member in members}
    measured = {name: lines for name, (lines, _) in series.items()}
    effects = split_effects(members, runs, variants, indexes)
    pairs = published_pairs(members, runs, measured)
    return Pages(
        marks=[marks_of(s) for member in members for s in member.summaries.values()],
        figures={
            "how_far": figures.how_far(members, series),
            "at_what_cost": figures.at_what_cost(runs, min(m.margin for m in members)),
            "why": figures.why(members),
            "what_to_buy": what_to_buy(members, currency),
        },
        tables={"studies": studies_table(members), "verdicts": (verdicts_table(runs), runs)},
        facts=facts(members, runs, effects, pairs) | {"fitted": _is_fitted(series.values())},
    )


def _is_fitted(series: Iterable[tuple[list[Series], list[Series]]]) -> bool:
    """Return whether the figure ``how_far`` draws a law."""
    laws = [line.law() for measured, published in series for line in measured or published]
    return any(law is not None and not is_undecided(law) for law in laws)


def _series(study: StudyRuns, reported: str) -> tuple[list[Series], list[Series]]:
    """Return a study's measured and published series; a person's own images have none."""
    points = [point_of(summary) for summary in study.summaries.values()]
    figures_of_study = read_reported([] if study.personal else reported, study.name)
    return gather(points), gather(times(figures_of_study))
