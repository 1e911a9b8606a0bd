"""The chapter boxes: test images with the boxes of the runs of a study that localize."""

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
from medscale.report import style
from medscale.report.marks import marks_of
from medscale.report.names import GREY, label, look
from medscale.report.result import boxes
from medscale.report.result.detection import images
from medscale.report.writer import Pages


class Detected(NamedTuple):
    """The result folder of a detection run: summary.json and boxes.csv."""

    summary: dict[str, Any]
    boxes: pd.DataFrame


def make(study: str, *, results: Sequence[str], shards: str) -> Pages:
    """Return the chapter's figure; raise MedscaleError for an incomplete result."""
    runs = [_read(Path(folder)) for folder in results]
    drawn = images(Shards.open(Path(shards).parent), pd.concat([run.boxes for run in runs]))
    marks = [marks_of(run.summary) for run in runs]
    return Pages(marks=marks, figures={"detection": _figure(runs, drawn)})


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
