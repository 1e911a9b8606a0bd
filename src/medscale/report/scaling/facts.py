"""Facts of the scaling analysis: advice, verdicts on published series, cost of a target."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from medscale.measure.scaling.advice import (
    recommendation,
    representative,
    speedup_of,
    superlinear,
    verdict,
)
from medscale.measure.scaling.series import Series
from medscale.measure.scaling.target import METRICS
from medscale.report.names import family, label
from medscale.report.scaling.analysis import Analysis


def plural(series: Series, *, published: bool = False) -> str:
    """Return the devices of a series in words."""
    if series.stand_in:
        return "CPU processes in place of GPUs"
    if series.spec.device == "gpu":
        return "GPUs"
    return "CPU workers" if published else "CPU processes"


def facts(
    summaries: Sequence[dict[str, Any]],
    analysis: Analysis,
    share: float | None,
    currency: str,
    devices: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return the facts of a study's scaling analysis.

    Args:
        analysis: series and costs.
        share: factor from the worst of the best values of the baseline's replicates to the target;
            None where the configuration gives the target.
        devices: title and price of an hour of each kind of device, by backend.
    """
    return {
        "series": bool(analysis.measured),
        "alone": [label(run) for run in analysis.alone],
        "advice": _advice(analysis.measured),
        "published": [
            {
                "label": _words(series),
                "held": series.constant_batch,
                "verdict": verdict(series, plural(series, published=True)),
                "speedup": speedup_of(series, plural(series, published=True)),
            }
            for series in analysis.published
        ],
        "published_alone": [label(run) for run in analysis.published_alone],
        "superlinear": above_devices(analysis),
        "target": None if math.isnan(analysis.target.value) else analysis.target.value,
        "target_words": analysis.target.words,
        "metric": METRICS[analysis.target.metric],
        "share": share,
        "unreached": bool((analysis.cost["reached"] == 0).any()) if len(analysis.cost) else False,
        "fewer": bool(analysis.cost["whole_seconds"].isna().any()) if len(analysis.cost) else False,
        "best": [label(run) for run in analysis.best],
        "first_apart": is_first_apart(analysis.cost, analysis.best),
        "currency": currency,
        "prices": _prices(summaries, devices),
    }


def above_devices(analysis: Analysis) -> list[dict[str, Any]]:
    """Return each speedup above its number of devices: ``origin, speedup, devices``."""
    return [
        {"origin": origin, "speedup": float(row["speedup"]), "devices": int(row["devices"])}
        for origin, group in (("measured", analysis.measured), ("published", analysis.published))
        for series in group
        for _, row in superlinear(series.table()).iterrows()
    ]


def _advice(measured: Sequence[Series]) -> list[dict[str, Any]]:
    """Return the recommendation for each kind of device that has a series."""
    advice = []
    for device in ("cpu", "gpu"):
        if candidates := [series for series in measured if series.spec.device == device]:
            series = representative(candidates)
            text = recommendation(series, plural(series))
            entry = {"device": device, "series": family(series.spec.name), "text": text}
            advice.append(entry | {"stand_in": series.stand_in})
    return advice


def is_first_apart(cost: pd.DataFrame, best: Sequence[str]) -> bool:
    """Return whether the slowest replicate of the fastest run beats those of the cheapest run.

    Args:
        cost: of ``scaling.target.costs``.
        best: runs of ``cost`` from the fastest to the cheapest (``scaling.target.frontier``).
    """
    if len(best) < 2:
        return False
    rows = cost.set_index("run")
    first, cheapest = rows.loc[best[0]], rows.loc[best[-1]]
    repeated = min(first["replicates"], cheapest["replicates"]) > 1
    return bool(repeated and first["seconds_high"] < cheapest["seconds_low"])


def _prices(
    summaries: Sequence[dict[str, Any]], devices: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the price of a device-hour for each kind of device that trained."""
    backends = dict.fromkeys(summary["backend"] for summary in summaries)
    return [
        {"device": "gpu" if backend == "cuda" else "cpu", **devices[backend]}
        for backend in backends
    ]


def _words(series: Series) -> str:
    """Return the name of a series; with the run it counts from where that is another strategy."""
    words = f"{family(series.spec.name)} on {series.spec.device.upper()}s"
    single = series.points[0].run
    usual = family(single) == family(series.spec.name) or single.startswith("serial")
    return words if usual else f"{words}, against {label(single)}"
