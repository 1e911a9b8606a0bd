"""The chapter folds: pooled scores next to those by fold, and tests paired by fold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medscale.data.folds import test_to_train
from medscale.data.index_file import read_index
from medscale.evaluate.by_fold import TESTED_METRICS, compare_folds
from medscale.evaluate.replicates import read_predictions
from medscale.evaluate.verdicts import ALPHA
from medscale.report import style
from medscale.report.latex import number, p_value, span
from medscale.report.marks import marks_of
from medscale.report.names import BLACK, label, look
from medscale.report.result.reading import Result, check_paired, read_result, records
from medscale.report.sources import by_run as files_by_run
from medscale.report.tables import Row, by_run, interval, left, right, table
from medscale.report.writer import Pages

UNITS = {"accuracy": ("accuracy (%)", 100, 1), "auroc": ("AUROC", 1, 3)}


def make(
    study: str, *, index: str, results: Sequence[str], predictions: Sequence[str], baseline: str
) -> Pages:
    """Return the figure, tables and facts of the chapter.

    Raises MedscaleError where the runs were not tested on the same images in the same folds.
    """
    runs = [read_result(folder) for folder in results]
    for run in runs:
        check_paired(run, runs[0])
    rows = pd.DataFrame([row for run in runs for row in _rows(run)])
    tests = _tests(runs, index, predictions, baseline)
    return Pages(
        marks=[marks_of(run.summary) for run in runs],
        figures={"folds": _figure(runs)},
        tables={"folds": (_table(rows), rows), "fold_tests": (_tests_table(tests), tests)},
        facts=_facts(runs, tests),
    )


def _tests(
    runs: Sequence[Result], index: str, predictions: Sequence[str], baseline: str
) -> pd.DataFrame:
    """Return the comparison of each run with the baseline, paired by fold."""
    table_of_images, files = read_index(index), files_by_run(predictions)
    names = [run.name for run in runs]
    predicted = [
        read_predictions([file.parent for file in files[name]], table_of_images) for name in names
    ]
    return compare_folds(names, predicted, names.index(baseline), test_to_train(table_of_images))


def _rows(run: Result) -> list[dict[str, Any]]:
    """Return a run's scores, a row for each metric: pooled, over folds and in each fold."""
    rows = []
    for metric in TESTED_METRICS:
        pooled, folds = run.score(metric), run.summary["folds"]["metrics"][metric]
        row: dict[str, Any] = {"run": run.name, "format": run.summary["format"]}
        row |= {"stand_in": run.summary["marks"]["stand_in"], "metric": metric}
        row |= {f"pooled_{key}": pooled[key] for key in ("mean", "low", "high")}
        row |= {f"folds_{key}": folds[key] for key in ("mean", "sd", "low", "high")}
        values = enumerate(folds["values"], start=1)
        rows.append(row | {f"fold_{number}": value for number, value in values})
    return rows


def _figure(runs: Sequence[Result]) -> Figure:
    """Draw pooled scores, means over folds and single folds, a row for each run."""
    figure = style.new(1.0 + 0.35 * len(runs))
    panels = figure.subplots(1, len(UNITS), sharey=True)
    heights = style.rows(panels[0], [label(run.name) for run in runs])
    for axes, (metric, (unit, scale, _)) in zip(panels, UNITS.items(), strict=True):
        for height, run in zip(heights, runs, strict=True):
            folds, run_look = run.summary["folds"]["metrics"][metric], look(run.name)
            ends = style.score_ends(run.score(metric), scale)
            style.interval(axes, height + 0.12, ends, run_look)
            ends = style.score_ends(folds, scale)
            style.interval(axes, height - 0.12, ends, run_look, markerfacecolor="white")
            values = [scale * value for value in folds["values"] if value is not None]
            axes.plot(values, [height - 0.34] * len(values), "|", color=BLACK, markersize=3.5)
        axes.set(xlabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(4))  # more decimals would touch each other
    return figure


def _table(rows: pd.DataFrame) -> str:
    """Return the scores of each run: pooled, and over folds."""

    def cell(prefix: str) -> Any:
        return lambda row: interval(row, _digits(row), _scale(row), prefix)

    columns = [
        left("run", by_run()),
        left("metric", lambda row: UNITS[row["metric"]][0].replace("%", r"\%")),
        right(r"pooled\\out-of-fold", cell("pooled_")),
        right(r"mean\\over folds", cell("folds_")),
        right(r"sd over\\folds", lambda row: number(row["folds_sd"], _digits(row), _scale(row))),
        right(r"range\\of folds", _range),
    ]
    return table(records(rows), columns)


def _tests_table(tests: pd.DataFrame) -> str:
    """Return the differences from the baseline by fold."""
    columns = [
        left("run", by_run()),
        left("metric", lambda row: "accuracy (points)" if row["metric"] == "accuracy" else "AUROC"),
        right(r"mean difference\\over folds", lambda row: interval(row, _digits(row))),
        right(r"sd over\\folds", lambda row: number(row["sd"], _digits(row))),
        right("p", lambda row: p_value(row["p"])),
    ]
    return table(records(tests), columns, otherwise="no other run")


def _digits(row: Row) -> int:
    return UNITS[row["metric"]][2]


def _scale(row: Row) -> float:
    return UNITS[row["metric"]][1]


def _range(row: Row) -> str:
    """Return the range of the folds; none where the metric is undefined in one, as of the mean."""
    values = np.array([row[name] for name in row if str(name).startswith("fold_")], float)
    ends = values.min(), values.max()
    return number(None, 0) if np.isnan(values).any() else span(*ends, _digits(row), _scale(row))


def _facts(runs: Sequence[Result], tests: pd.DataFrame) -> dict[str, Any]:
    """Return the number of folds, the images and their groups, and the number of comparisons."""
    summary = runs[0].summary
    return {
        "count": summary["folds"]["count"],
        "images": summary["counts"]["test"]["images"],
        "groups": summary["counts"]["test"]["groups"],
        "compared": len(tests) > 0,
        "apart": [label(run) for run in tests.loc[tests["p"] < ALPHA, "run"].unique()],
    }
