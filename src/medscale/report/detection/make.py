"""The chapter detection: scores and times of the runs that localize."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.files import read_json
from medscale.measure.scaling.speedup import speedups
from medscale.report.latex import number, significant
from medscale.report.names import label
from medscale.report.result.origin import different_conditions
from medscale.report.result.reading import records
from medscale.report.tables import by_run, left, right, scored, table
from medscale.report.writer import Pages

SCORES = (
    ("map50", "mAP50"),
    ("map_challenge", r"challenge\\mAP"),
    ("precision", "precision"),
    ("recall", "recall"),
)
TIMES = [f"{time}{end}" for time in ("seconds", "speedup") for end in ("", "_low", "_high")]
TIMES += ["baseline", "note"]


def make(study: str, *, results: Sequence[str]) -> Pages:
    """Return the chapter's table and facts."""
    summaries = [read_json(Path(folder) / "summary.json") for folder in results]
    scores = _scores(summaries)
    return Pages(tables={"detection": (_table(scores), scores)}, facts=facts(summaries))


def facts(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts: why scores of runs are not compared, and seeds that range widely.

    ``replicates`` is the smallest number of replicates of a run; ``drawn_seeds`` are those of the
    boxes in the figure, the first of each run; ``mixed`` are the runs whose
    replicates differ in more than the seed, with these differences in words.
    """
    return {
        "runs": len(summaries),
        "drawn_seeds": sorted({summary["seeds"][0] for summary in summaries}),
        "replicates": min(len(summary["seeds"]) for summary in summaries),
        "mixed": [
            {"label": label(summary["run"]["name"]), "differences": words}
            for summary in summaries
            if (words := different_conditions(summary))
        ],
        "spread": list(filter(None, map(spread, summaries))),
    }


def spread(summary: dict[str, Any]) -> dict[str, Any] | None:
    """Return the range of mAP50 over seeds; None unless it is wider than the interval."""
    score = summary["metrics"]["test"]["map50"]
    values = [value for value in score["values"] if value is not None]
    if len(values) < 2 or None in (score["low"], score["high"]):
        return None
    least, most = min(values), max(values)
    if most - least <= score["high"] - score["low"]:
        return None
    return {"label": label(summary["run"]["name"]), "least": least, "most": most}


def _scores(summaries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the scores on the test images and the times, a row for each run."""
    times = {row["run"]: row for row in records(speedups(summaries))}
    rows = []
    for summary in summaries:
        name, test = summary["run"]["name"], summary["metrics"]["test"]
        row = {"run": name, "devices": summary["run"]["devices"]}
        for metric, _ in SCORES:
            keys = ("mean", "low", "high", "seed_sd")
            row |= {f"{metric}_{key}": test[metric][key] for key in keys}
        row["stand_in"] = summary["marks"]["stand_in"]
        row["format"] = summary["format"]
        rows.append(row | {key: times[name][key] for key in TIMES})
    return pd.DataFrame(rows)


def _table(scores: pd.DataFrame) -> str:
    columns = [
        left("run", by_run()),
        *[scored(heading, metric, 3) for metric, heading in SCORES],
        right(r"sd of mAP50\\over seeds", lambda row: number(row["map50_seed_sd"], 3)),
        right(r"s an\\epoch", lambda row: significant(row["seconds"])),
        right("speedup", lambda row: number(row["speedup"], 2)),
    ]
    return table(records(scores), columns)
