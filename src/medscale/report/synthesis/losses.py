"""Where parallel runs lose time: the activities that take more than an equal share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from medscale.engine.run import RunSpec
from medscale.report.result.reading import records
from medscale.report.synthesis.runs import StudyRuns

ACTIVITIES = {
    "communication": "communication",
    "compute": "slower computing",
    "data": "waiting for data",
}


def lost_time(studies: Sequence[StudyRuns], runs: pd.DataFrame) -> dict[str, Any]:
    """Return the activities that cost most of the time that parallel runs lose.

    A run on p devices would ideally take a p-th of the serial run's time for each activity of
    training. The activity with the largest excess in seconds counts. A run without excess,
    or whose communication was not measured, is left out.

    Args:
        runs: of ``runs.all_runs``.

    Returns:
        ``runs`` (number of runs that count) and ``activities``: words and number of runs of each
        activity, the most frequent first.
    """
    by_name = {study.name: study for study in studies}
    parallel = runs[(runs["devices"] > 1) & runs["speedup"].notna()]
    largest = [_largest_loss(by_name[row["study"]], row) for row in records(parallel)]
    counts = Counter(filter(None, largest))
    ordered = sorted(counts, key=lambda kind: (-counts[kind], list(ACTIVITIES).index(kind)))
    return {
        "runs": sum(counts.values()),
        "activities": [{"words": ACTIVITIES[kind], "runs": counts[kind]} for kind in ordered],
    }


def _largest_loss(study: StudyRuns, row: dict[str, Any]) -> str | None:
    """Return the activity that exceeds its share of the serial run's time by most, if any does."""
    timings = [study.summaries[str(row[key])]["timing"] for key in ("run", "baseline")]
    if not all(timing["communication_measured"] for timing in timings):
        return None
    seconds, serial = (timing["seconds_by_kind"] for timing in timings)
    devices = RunSpec.parse(str(row["run"])).devices
    losses = {
        kind: seconds[kind]["mean"] - serial[kind]["mean"] / devices
        for kind in ACTIVITIES
        if kind in seconds
    }
    if sum(losses.values()) <= 0:
        return None
    return max(losses, key=lambda kind: losses[kind])
