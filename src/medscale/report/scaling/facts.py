"""Facts of the chapter scaling: what the paper says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medscale.config.configuration import Config
from medscale.measure.scaling import Series
from medscale.measure.scaling.advice import findings, recommendation, speaker, superlinear, verdict
from medscale.report.latex import escape, significant
from medscale.report.names import family, label
from medscale.report.scaling.analysis import Analysis
from medscale.resources.cost import kind_of


def plural(series: Series, *, published: bool = False) -> str:
    """The devices of a series in words."""
    if series.stand_in:
        return "CPU processes in place of GPUs"
    return (
        "GPUs" if series.spec.device == "gpu" else "CPU workers" if published else "CPU processes"
    )


def facts(
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
