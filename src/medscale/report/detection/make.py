"""The chapter detection: boxes and scores of the runs that localize."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.base.files import read_json, read_table
from medscale.data.shards import Shards
from medscale.evaluate.boxes import NAMES
from medscale.measure.scaling.speedup import speedups
from medscale.report import style
from medscale.report.latex import number, significant
from medscale.report.marks import marks_of
from medscale.report.names import GREY, label, look
from medscale.report.result import boxes
from medscale.report.result.detection import images
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


class Detected(NamedTuple):
    """The result folder of a detection run: summary.json and boxes.csv."""

    summary: dict[str, Any]
    boxes: pd.DataFrame


def make(study: str, *, results: Sequence[str], shards: str) -> Pages:
    """Return figures, tables and facts; raise MedscaleError for an incomplete result."""
    runs = [_read(Path(folder)) for folder in results]
    drawn = images(Shards.open(Path(shards).parent), pd.concat([run.boxes for run in runs]))
    scores = _scores([run.summary for run in runs])
    return Pages(
        marks=[marks_of(run.summary) for run in runs],
        figures={"detection": _figure(runs, drawn)},
        tables={"detection": (_table(scores), scores)},
    )


def _read(folder: Path) -> Detected:
    summary, remedy = read_json(folder / "summary.json"), f"delete {folder} and run again"
    table = read_table(folder / "boxes.csv", remedy, dtype={"kind": str}).fillna({"kind": ""})
    return Detected(summary, table)


def _figure(runs: Sequence[Detected], drawn: Mapping[int, np.ndarray]) -> Figure:
    """Draw a row of test images with the boxes of each run, and below them the scores by run."""
    ids = sorted(set.intersection(*[set(run.boxes["id"]) for run in runs]))[: boxes.COLUMNS]
    heights = [0.35 + 1.53 * len(runs), 0.7 + 0.3 * len(runs)]
    figure = style.new(sum(heights))
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    panels = above.subplots(len(runs), boxes.COLUMNS, squeeze=False)
    names = [label(run.summary["run"]["name"]) for run in runs]
    for row, run, name in zip(panels, runs, names, strict=True):
        for axes, number_ in zip(row, ids, strict=False):
            boxes.draw_boxes(axes, drawn[number_], run.boxes[run.boxes["id"] == number_])
        for axes in row[len(ids) :]:
            axes.set_axis_off()
        row[0].set_ylabel(name.replace(", ", "\n"))
    boxes.draw_legend(above)
    panels = below.subplots(1, len(NAMES), sharey=True)
    places = style.rows(panels[0], names)
    for axes, (metric, words) in zip(panels, NAMES.items(), strict=True):
        for place, run in zip(places, runs, strict=True):
            _interval(axes, run.summary, metric, place)
        axes.set(xlabel=words.replace(" (", "\n("), xlim=(-0.02, 1.04))
    return figure


def _interval(axes: Axes, summary: dict[str, Any], metric: str, place: float) -> None:
    score = summary["metrics"]["test"][metric]
    if score["mean"] is None:
        axes.text(0.5, place, "undefined", color=GREY, size=6.5, va="center")
    else:
        style.interval(axes, place, style.score_ends(score), look(summary["run"]["name"]))


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
        right(r"s an\\epoch", lambda row: significant(row["seconds"])),
        right("speedup", lambda row: number(row["speedup"], 2)),
    ]
    return table(records(scores), columns)
