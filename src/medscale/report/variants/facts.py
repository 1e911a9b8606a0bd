"""Facts of the chapter variants: what the paper says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medscale.config.configuration import Config
from medscale.report.latex import number, span
from medscale.report.names import label
from medscale.report.result.reading import Result


def facts(config: Config, study: str, found: Sequence[Result]) -> dict[str, Any]:
    """``structure`` (the study's runs, each with its variants) and ``values`` (LaTeX, below ``<study>/variants/``)."""
    runs: dict[str, dict[str, Any]] = {}
    values = {}
    for result in found:
        name = result.summary["study"]
        key, score = f"{name}/{result.name}", result.score("accuracy")
        values[f"{study}/variants/{key}/accuracy"] = number(score["mean"], 1, 100)
        values[f"{study}/variants/{key}/accuracy/interval"] = span(
            score["low"], score["high"], 1, 100
        )
        one = runs.setdefault(
            result.name,
            {"label": label(result.name), "own": f"{study}/{result.name}", "others": []},
        )
        if name != study:
            one["others"].append(
                {"key": key, "title": config.study(name).title, "collapsed": result.collapsed}
            )
    marks = sorted(
        (dict(pair) for pair in {tuple(sorted(r.summary["marks"].items())) for r in found}), key=str
    )
    structure = {"part_of": study, "part": "compared", "marks": marks, "runs": list(runs.values())}
    return {"structure": structure, "values": values}
