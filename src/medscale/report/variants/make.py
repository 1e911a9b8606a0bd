"""The chapter variants: a study compared with itself, one setting changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from medscale.base.text import latex
from medscale.report import style
from medscale.report.marks import marks_of
from medscale.report.names import label, numbered_look
from medscale.report.result.reading import Result, read_result, records
from medscale.report.tables import left, right, scored, table
from medscale.report.writer import Pages

METRICS = (  # metric, name, heading of a table, scale, decimals
    ("accuracy", "accuracy (%)", r"accuracy\\(\%)", 100, 1),
    ("balanced_accuracy", "balanced accuracy (%)", r"balanced\\accuracy (\%)", 100, 1),
    ("auroc", "AUROC", "AUROC", 1, 3),
)
TRAINED = {"all": "all layers", "last_block": "last block", "last_layer": "last layer"}
SETTINGS = ("split", "trained", "metadata")


def make(
    study: str,
    *,
    results: Sequence[str],
    sections: dict[str, dict[str, Any]],
    changed: dict[str, bool],
) -> Pages:
    """Return the figures, tables and facts of the chapter."""
    runs = [read_result(folder) for folder in results]
    titles = {name: section["title"] for name, section in sections.items()}
    names, rows = _names(study, titles, runs), _rows(sections, runs)
    return Pages(
        marks=[marks_of(result.summary) for result in runs],
        figures={"variants": _figure(names, runs)},
        tables={"variants": (_table(names, rows), rows)},
        facts=_facts(titles, study, runs, changed),
    )


def _names(study: str, titles: dict[str, str], runs: Sequence[Result]) -> list[str]:
    """Return the name of each row, with the run where these differ."""
    several = len({result.name for result in runs}) > 1
    names = []
    for result in runs:
        owner = result.summary["study"]
        name = "as configured" if owner == study else titles[owner]
        form = result.summary["format"]
        names.append(f"{name} ({label(result.name)}, {form})" if several else f"{name}, {form}")
    return names


def _rows(sections: dict[str, dict[str, Any]], runs: Sequence[Result]) -> pd.DataFrame:
    """Return settings and scores, a row for each result."""
    rows = []
    for result in runs:
        section = sections[result.summary["study"]]
        row = {
            "study": result.summary["study"],
            "run": result.name,
            "format": result.summary["format"],
            "test_images": result.summary["counts"]["test"]["images"],
            "replicates": len(result.summary["replicates"]),
            "split": section["split"],
            "trained": TRAINED[section["trained"]],
            "metadata": ", ".join(section["metadata"]) or "none",
        }
        for metric, *_ in METRICS:
            score = result.score(metric)
            row |= {f"{metric}_{key}": score[key] for key in ("mean", "low", "high", "seed_sd")}
        rows.append(row)
    return pd.DataFrame(rows)


def _figure(names: Sequence[str], runs: Sequence[Result]) -> Figure:
    """Draw the scores of the test images with bootstrap intervals, a row for each result."""
    figure = style.new(0.9 + 0.28 * len(runs))
    panels = figure.subplots(1, len(METRICS), sharey=True)
    heights = style.rows(panels[0], [style.wrapped(name, 34) for name in names])
    for axes, (metric, unit, _, scale, _) in zip(panels, METRICS, strict=True):
        for number, (height, result) in enumerate(zip(heights, runs, strict=True)):
            if (score := result.score(metric))["mean"] is not None:
                ends = style.score_ends(score, scale)
                style.interval(axes, height, ends, numbered_look(number))
        axes.set(xlabel=unit)
    return figure


def _table(names: Sequence[str], rows: pd.DataFrame) -> str:
    """Return the settings that differ, the number of replicates, and the scores."""
    column_names = [*SETTINGS, "test_images", "replicates"]
    same = {column for column in column_names if rows[column].nunique() == 1} - {"replicates"}

    def cell(column: str) -> Any:
        return lambda row: "" if column in same else latex(str(row[column]))

    columns = [
        left("variant", lambda row: latex(row["name"])),
        *[left(column, cell(column)) for column in SETTINGS],
        right(r"test\\images", cell("test_images")),
        right(r"repli-\\cates", cell("replicates")),
        *[scored(heading, metric, digits, scale) for metric, _, heading, scale, digits in METRICS],
    ]
    return table(records(rows.assign(name=names)), columns)


def _facts(
    titles: Mapping[str, str], study: str, results: Sequence[Result], changed: Mapping[str, bool]
) -> dict[str, Any]:
    """Return the facts of a study's variants.

    Args:
        titles: titles of the study and its variants by name.
        study: the study that the variants belong to.
        results: result folders of the study and its variants; those of the study come first.
        changed: which settings the variants change.
    """
    runs: dict[str, dict[str, Any]] = {}
    for result in results:
        name, score = result.summary["study"], result.score("accuracy")
        accuracy = {key: score[key] for key in ("mean", "low", "high")}
        if name == study:
            own = {"label": label(result.name), "accuracy": accuracy, "variants": []}
            runs[result.name] = own
            continue
        variant = {"title": titles[name], "collapsed": result.collapsed}
        runs[result.name]["variants"].append(variant | {"accuracy": accuracy})
    return {"runs": list(runs.values()), "changed": dict(changed)}
