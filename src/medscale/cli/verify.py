"""The command that measures the claims of the paper anew and prints a verdict on each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table

from medscale.base.console import plain
from medscale.base.errors import MedscaleError
from medscale.base.text import amount
from medscale.cli.options import ConfigFile, Only, Scale, study_graph
from medscale.cli.printing import AsJson, print_facts

if TYPE_CHECKING:
    from medscale.report.claims.planned import Planned
    from medscale.workflow.graph import Graph

STYLES = {"holds": "green", "does not hold": "red bold", "not established": "yellow"}


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="CLAIM", help="names in claims.yaml; default: all")
    ] = None,
    scale: Scale = "full",
    only: Only = None,
    configfile: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure the claims of the paper anew from predictions and histories: a verdict each.

    A claim about a test of the software runs it where it is named. The exit status is 1 where a
    claim of the paper does not hold; a conclusion that others published does not count.
    """
    from medscale.report.chapters import outputs
    from medscale.report.claims.checking import check, failed
    from medscale.report.claims.planned import plan_claims, shown_by
    from medscale.report.claims.quantities import Files

    graph = study_graph(scale, only, configfile)
    claims, shown_files = _selection(plan_claims(graph.config), names or []), outputs()
    files = Files(lambda path: graph.workdir / path)
    rows = []
    for claim in claims:
        row = claim.model_dump() | check(claim, files, run_tests=bool(names))
        row |= {"shown": shown_by(claim, shown_files), "cost": _cost(graph, claim, row)}
        rows.append(row)
    facts = {"scale": graph.config.scale, "claims": rows}
    print_facts(facts, _text(rows, graph.config.scale), as_json)
    if any(map(failed, rows)):
        raise typer.Exit(1)


def _selection(claims: Sequence[Planned], names: Sequence[str]) -> list[Planned]:
    """Return the claims of these names, or all; MedscaleError for an unknown one."""
    from medscale.report.claims.statements import unknown

    by_name = {claim.name: claim for claim in claims}
    if not by_name:
        raise MedscaleError(
            "no claim is about the active studies; docs/claims.md says how to add a claim"
        )
    for name in names:
        if name not in by_name:
            raise MedscaleError(f"claims: {unknown(name, by_name)}")
    return [by_name[name] for name in names] or list(claims)


def _cost(graph: Graph, claim: Planned, row: dict[str, Any]) -> str:
    """Return the targets that make missing inputs and their time by the cost model."""
    from medscale.report.claims.costs import minutes, trainings

    if not row["missing"] or not claim.measurable:
        return ""
    missing = [
        (study, run)
        for study, run in trainings(claim)
        if any(path.startswith(f"runs/{study}/{run}/") for path in row["missing"])
    ]
    text = graph.snakemake(*claim.targets)
    return (
        f"{text}: {minutes(graph.config, missing):.2g} min by the cost model" if missing else text
    )


def _text(rows: Sequence[dict[str, Any]], scale: str) -> Iterator[RenderableType]:
    """Yield a table of the verdicts, and their counts."""
    from medscale.report.claims.checking import words_of_bounds, words_of_value
    from medscale.report.claims.verdicts import ORDER

    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        style = STYLES.get(row["verdict"], "dim")
        lines = [f"{row['name']}: {row['statement']}"]
        if value := words_of_value(row):
            lines.append(f"measured {value}, accepted {words_of_bounds(row)}")
        lines += filter(None, [row["note"], row["cost"]])
        table.add_row(f"[{style}]{row['verdict']}[/]", plain("\n".join(lines), lines=True))
    yield table
    for origin, words in (("paper", "of this paper"), ("published", "of the published projects")):
        verdicts = [row["verdict"] for row in rows if row["origin"] == origin]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ORDER if v in verdicts)
        if counts:
            yield f"{scale} scale, {amount(len(verdicts), 'claim')} {words}: {counts}"
