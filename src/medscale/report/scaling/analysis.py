"""A study's scaling analysis: series of runs, and the cost of each run until a target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.engine.run import is_detector
from medscale.measure.scaling.series import Series, gather, point_of, without_one_device
from medscale.measure.scaling.target import Target, costs, frontier, read_history
from medscale.report.reported import times


@dataclass(frozen=True)
class Analysis:
    """The data of the tables, figures and facts of a study's scaling."""

    measured: list[Series]  # series of measured times
    published: list[Series]  # series of published times
    alone: list[str]  # measured runs on several devices without a comparable run on one
    published_alone: list[str]  # the same among the published times
    cost: pd.DataFrame  # a row for each classification run (``scaling.target.costs``)
    target: Target
    best: list[str]  # runs that no other run beats in both time and money


def analyse(
    summaries: Sequence[dict[str, Any]],
    histories: Mapping[str, Sequence[Path]],
    reported: dict[str, Any],
    target: Target,
    prices: Mapping[str, float],
) -> Analysis:
    """Analyse the scaling of a study.

    Raises MedscaleError when a history cannot be read.

    Args:
        target: value of a validation metric until which costs are counted.
        prices: of a device-hour, by backend.
    """
    points, published_points = [point_of(summary) for summary in summaries], times(reported)
    measured, published = gather(points), gather(published_points)
    classified = [s for s in summaries if not is_detector(s["model"]["name"])]
    names = [summary["run"]["name"] for summary in classified]
    by_run = {name: [read_history(path) for path in histories[name]] for name in names}
    cost = costs(classified, by_run, target, dict(prices))
    return Analysis(
        measured=measured,
        published=published,
        alone=without_one_device(points, measured),
        published_alone=without_one_device(published_points, published),
        cost=cost,
        target=target,
        best=list(frontier(cost)),
    )
