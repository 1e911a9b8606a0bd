"""A study's scaling analysis: series, and the cost of each run until the target accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.config.configuration import Config
from medscale.engine.plan import is_detector
from medscale.measure.scaling import Series, gather, point_of, without_one_device
from medscale.measure.scaling.target import costs, level
from medscale.report.reported import times
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


def _histories(folder: Path, seeds: Sequence[int]) -> list[pd.DataFrame]:
    try:
        return [pd.read_csv(folder / f"seed{seed}" / "history.csv") for seed in seeds]
    except (OSError, ValueError) as error:
        raise MedscaleError(
            f"{folder}: a history cannot be read ({error}); run the training again"
        ) from None
