"""The chapter sweep: the learning rate of each batch size, chosen by validation images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medscale.engine.run import RunSpec
from medscale.measure.scaling.convergence import times_to
from medscale.measure.scaling.target import (
    METRICS,
    SMALLER_IS_BETTER,
    Target,
    best,
    read_history,
    target_of,
)
from medscale.report import style
from medscale.report.latex import number
from medscale.report.marks import Marks
from medscale.report.names import label, numbered_look
from medscale.report.result.reading import records
from medscale.report.tables import left, right, short_name, table
from medscale.report.writer import Pages


def make(
    study: str,
    *,
    histories: Sequence[str],
    reference: Sequence[str],
    points: Sequence[dict[str, Any]],
    target: dict[str, Any],
    marks: Marks,
) -> Pages:
    """Return the figure, the table and the facts of the chapter.

    Raises MedscaleError when a history is missing or damaged.
    """
    level = target_of([read_history(path) for path in reference], **target)
    read: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for path in map(Path, histories):
        of_point = path.parents[2].name, path.parents[1].name
        read.setdefault(of_point, []).append(read_history(path))
    rows = pd.DataFrame([_row(p, read[p["study"], p["run"]], level) for p in points])
    rows["chosen"] = False
    rows.loc[chosen(rows, level.metric), "chosen"] = True
    return Pages(
        marks=[marks],
        figures={"sweep": sweep(rows, level.metric)},
        tables={"sweep": (sweep_table(rows, level.metric), rows)},
        facts=_facts(study, rows, level),
    )


def chosen(rows: pd.DataFrame, metric: str) -> list[int]:
    """Return the row of each run whose mean best value on the validation images is best.

    Among equal values the one with the smaller validation loss is chosen.
    """
    sign = 1 if metric in SMALLER_IS_BETTER else -1
    keys = pd.DataFrame({"run": rows["run"], "value": sign * rows["value"], "loss": rows["loss"]})
    ordered = keys.sort_values(["value", "loss"], kind="stable")
    return ordered.drop_duplicates("run").index.tolist()


def _row(
    point: Mapping[str, Any], histories: Sequence[pd.DataFrame], level: Target
) -> dict[str, Any]:
    """Return a point with its best values on the validation images and its epochs to the target."""
    values = np.array([best(level.metric, history) for history in histories])
    planned, devices = max(map(len, histories)), RunSpec.parse(point["run"]).devices
    times = times_to(histories, level, planned, devices)
    return {
        **{key: value for key, value in point.items() if key != "seeds"},
        "replicates": len(histories),
        "value": float(values.mean()),
        "value_low": float(values.min()),
        "value_high": float(values.max()),
        "loss": float(np.mean([best("val_loss", history) for history in histories])),
        "reached": int(times.reached.sum()),
        "epochs": float(times.epochs.mean()),
    }


def sweep(rows: pd.DataFrame, metric: str) -> Figure:
    """Draw the best value against the peak learning rate, a line for each run."""
    scale, unit = (1, "") if metric in SMALLER_IS_BETTER else (100, " (%)")
    figure = style.new(2.4)
    axes = figure.subplots()
    for line_number, (run, part) in enumerate(rows.groupby("run", sort=False)):
        drawn = numbered_look(line_number)
        ordered = part.sort_values("learning_rate")
        center, low, high = (scale * end for end in style.column_ends(ordered, "value"))
        bars = style.errors(center, low, high)
        words = f"{label(str(run))}: {ordered['global_batch'].iloc[0]} images a step"
        options = style.of_look(drawn, capsize=2, label=words)
        axes.errorbar(ordered["learning_rate"], center, yerr=bars, **options)
        ring: dict[str, Any] = {"markersize": 10, "markerfacecolor": "none", "color": drawn.colour}
        best_of = ordered[ordered["chosen"]]
        axes.plot(best_of["learning_rate"], scale * best_of["value"], "o", **ring)
    axes.set_xscale("log")
    style.logarithmic(axes.xaxis)
    axes.set(xlabel="peak learning rate", ylabel=f"best {METRICS[metric]}{unit}")
    style.legend_below(figure, *axes.get_legend_handles_labels(), ncols=2)
    return figure


def sweep_table(rows: pd.DataFrame, metric: str) -> str:
    """Return the points by run, with the chosen one of each marked by an asterisk."""
    is_loss = metric in SMALLER_IS_BETTER
    digits, scale, unit = (4, 1, "") if is_loss else (1, 100, r" (\%)")

    def value(row: dict[str, Any]) -> str:
        center = number(row["value"], digits, scale)
        ends = (number(row[f"value_{end}"], digits, scale) for end in ("low", "high"))
        return center if row["replicates"] == 1 else f"{center} ({'--'.join(ends)})"

    is_scaled = bool((rows["lr"] != rows["learning_rate"]).any())
    spread = r"\\(range)" if (rows["replicates"] > 1).any() else r"\\"

    columns = [
        left("run", lambda row: short_name(label(row["run"]))),
        right("images\\\\a step", lambda row: str(row["global_batch"])),
        right("lr", lambda row: f"{row['lr']:.3g}" if is_scaled else ""),
        left("scaling", lambda row: row["lr_scaling"] if is_scaled else ""),
        right("peak learning\\\\rate", lambda row: f"{row['learning_rate']:.3g}"),
        right(rf"best {METRICS[metric]}{spread}{unit}", value),
        right(
            r"replicates that\\reach the target",
            lambda row: f"{row['reached']} of {row['replicates']}",
        ),
        right(r"epochs to\\the target", _epochs),
        left("chosen", lambda row: "*" if row["chosen"] else ""),
    ]
    ordered = rows.sort_values("learning_rate", kind="stable")
    order = {run: number for number, run in enumerate(dict.fromkeys(rows["run"]))}
    ordered = ordered.sort_values("run", key=lambda runs: runs.map(order), kind="stable")
    return table(records(ordered), columns)


def _epochs(row: dict[str, Any]) -> str:
    """Return the mean epochs to the target, a lower bound where a replicate does not reach it."""
    bound = r"\ensuremath{\geq}" if row["reached"] < row["replicates"] else ""
    return bound + number(row["epochs"], 1)


def _choice(study: str, rows: pd.DataFrame, row: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a run's chosen learning rate among those that were tried.

    ``edge`` is "smallest" or "largest" where it is an end of the range, or empty; ``configured``
    the configured learning rate, None where the sweep leaves it out; ``tied`` counts those with
    the best value, of which the validation loss decides.
    """
    of_run = rows[rows["run"] == row["run"]]
    tried, chosen_rate = of_run["learning_rate"], float(row["learning_rate"])
    ends = {float(tried.max()): "largest", float(tried.min()): "smallest"} if len(tried) > 1 else {}
    configured = of_run.loc[of_run["study"] == study, "learning_rate"]
    return {
        "label": label(row["run"]),
        "global_batch": int(row["global_batch"]),
        "learning_rate": chosen_rate,
        "configured": None if configured.empty else float(configured.iloc[0]),
        "tried": len(tried),
        "tied": int((of_run["value"] == row["value"]).sum()),
        "edge": ends.get(chosen_rate, ""),
        "result": f"results/{row['study']}/{row['run']}",
    }


def _facts(study: str, rows: pd.DataFrame, level: Target) -> dict[str, Any]:
    """Return the facts of the chapter for the paper: the chosen point of each run."""
    return {
        "metric": METRICS[level.metric],
        "points": len(rows),
        "replicates": int(rows["replicates"].min()),
        "chosen": [_choice(study, rows, row) for row in records(rows[rows["chosen"]])],
    }
