"""The folder of an external evaluation: the tables and figures of a result, and the shift."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medscale.base.files import write_csv, write_json
from medscale.base.provenance import machine
from medscale.evaluate.assessment import Assessment
from medscale.evaluate.summary import assessment_content, plain
from medscale.report import style
from medscale.report.marks import mark
from medscale.report.names import LOOKS, label
from medscale.report.result import folder
from medscale.report.result.reading import Result

MOST_CLASSES = 6  # of which the distribution of scores is drawn


@dataclass(frozen=True)
class External:
    """An external evaluation of a run."""

    title: str  # of the external set
    study: str  # that the run was trained on
    run: dict[str, Any]  # entry ``run`` of the result's summary.json
    seeds: list[int]
    marks: dict[str, Any]
    missing: list[str]  # classes of which there is no external image
    notes: list[str]  # on the external images
    copies: dict[str, int] | None  # ``evaluate.external.copies``
    same_patients: dict[str, int] | None  # ``evaluate.external.same_patients``
    inputs: dict[str, Any]  # digests of index and result
    assessment: Assessment
    inside: Result
    shift: pd.DataFrame  # ``evaluate.external.shift``
    predictions: pd.DataFrame


def write_external(external: External, path: Path, further: Mapping[str, bytes]) -> dict[str, Any]:
    """Write the folder of an external evaluation and return the content of summary.json.

    ``further``: content of further files by name.
    """
    assessment, run = external.assessment, external.run["name"]
    summary = plain(
        {
            "study": external.study,
            "run": external.run,
            "title": external.title,
            "marks": external.marks,
            "seeds": external.seeds,
            "missing": external.missing,
            "notes": external.notes,
            "copies": external.copies,
            "same_patients": external.same_patients,
            "inputs": external.inputs,
            "environment": machine(),
            **assessment_content(assessment),
            "shift": external.shift.to_dict("records"),
        }
    )
    tables = folder.tables(assessment) | {
        "shift": external.shift,
        "predictions": external.predictions,
    }
    with folder.whole_folder(path) as new, style.house():
        drawings = folder.drawings(assessment, summary, run)
        drawings["distribution"] = distributions(external)
        for name, table in tables.items():
            write_csv(new / f"{name}.csv", table)
        for name, figure in drawings.items():
            style.save(figure, new / f"{name}.pdf", mark([external.marks]))
        for name, content in further.items():
            (new / name).write_bytes(content)
        write_json(new / "summary.json", summary)
    return summary


def distributions(external: External) -> Figure:
    """Draw the distribution of the scores by true class, inside on the left, outside right."""
    tables = (external.inside.distribution, external.assessment.distribution)
    classes = list(dict.fromkeys(tables[0]["class"]))[:MOST_CLASSES]
    figure = style.new(0.9 + 1.7 * len(classes))
    figure.suptitle(f"{label(external.run['name'])}: {external.title}", size=9)
    panels = figure.subplots(len(classes), 2, squeeze=False, sharex=True, sharey="row")
    for row, name in zip(panels, classes, strict=True):
        for axes, table, side in zip(row, tables, ("test images", external.title), strict=True):
            draw_distribution(axes, table[table["class"] == name])
            axes.set_title(style.shorten(side, 40))
        row[0].set_ylabel("share of the class (%)")
    for axes in panels[-1]:
        axes.set_xlabel(
            f"probability of {style.short_class(classes[-1])}"
            if len(classes) == 1
            else "probability of the class"
        )
    style.legend_below(figure, panels[0][0].get_legend_handles_labels()[0])
    return figure


def draw_distribution(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the rows of distribution.csv of one class."""
    for look, (name, part) in zip(LOOKS, table.groupby("true", sort=False), strict=False):
        edges = [*part["low"], part["high"].iloc[-1]]
        shares = (100 * part["share"]).fillna(0)
        options: dict[str, Any] = {"color": look.colour, "linestyle": look.line}
        axes.stairs(shares, edges, label=style.short_class(str(name)), **options)
    axes.set(xlim=(0, 1))
