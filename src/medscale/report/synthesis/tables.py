"""Tables over all studies: the studies, and the verdict on each of their runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from medscale.base.text import latex
from medscale.report.latex import number, p_value, span
from medscale.report.names import STATES, label
from medscale.report.result.reading import records
from medscale.report.synthesis.runs import BASELINE, NETWORK, StudyRuns
from medscale.report.tables import Heading, around, by_run, left, right, short_name, table, wrapped

LONGEST_TITLE = 100  # letters of a study's title


def studies_table(studies: Sequence[StudyRuns]) -> tuple[str, pd.DataFrame]:
    """Return images, patients, split, network, its batch normalization, and batch of each study.

    The last columns count replicates and runs.
    """
    rows = pd.DataFrame([_study(study) for study in studies])
    columns = [
        wrapped("study", "3.9cm", lambda row: short_name(row["title"], LONGEST_TITLE)),
        right("classes", lambda row: str(row["classes"])),
        right("images", lambda row: f"{row['images']:,}"),
        right(r"test\\images", lambda row: f"{row['test_images']:,}"),
        right(r"test\\groups", lambda row: f"{row['test_groups']:,}"),
        left("patients", lambda row: latex(row["patients"])),
        left("split", lambda row: latex(row["split"])),
        left("network", lambda row: rf"\texttt{{{latex(row['network'])}}}"),
        right(r"batch\\norm", lambda row: "yes" if row["batch_norm"] else "no"),
        right("batch", lambda row: latex(row["batch"])),
        right(r"repli-\\cates", lambda row: str(row["replicates"])),
        right("runs", lambda row: str(row["runs"])),
    ]
    return table(records(rows), columns), rows


def verdicts_table(runs: pd.DataFrame) -> str:
    """Return speedup, efficiency, difference in accuracy and verdict of each run."""
    rows: list[Any] = []
    rules = []
    for title, part in runs.groupby("title", sort=False):
        rows += [Heading(short_name(title, LONGEST_TITLE)), *records(part)]
        rules.append(len(rows) - 1)
    columns = [
        left("run", by_run()),
        right("seeds", lambda row: str(row["replicates"])),
        right(r"speedup\\(95\,\% interval)", _speedup),
        right(r"effi-\\ciency", _efficiency),
        right(r"accuracy minus baseline's\\(points, 95\,\% interval)", _change),
        right("p", lambda row: "--" if row["same_as"] else p_value(row["p"])),
        left("verdict", _verdict),
    ]
    return table(rows, columns, rules_after=rules)


def _study(study: StudyRuns) -> dict[str, Any]:
    summary = study.summaries[study.baseline]
    counts = summary["counts"]["test"]
    is_global = summary["recipe"]["batch_is"] == "global"
    return {
        "study": study.name,
        "title": study.title,
        "classes": len(summary["classes"]),
        "images": int(study.audit["used"]),
        "test_images": int(counts["images"]),
        "test_groups": int(counts["groups"]),
        "patients": STATES[summary["patients"]].removeprefix("the patients are "),
        "split": study.split,
        "network": summary["model"]["name"],
        "batch_norm": bool(summary["batch_norm"]),
        "batch": f"{summary['recipe']['batch_size']} {'in all' if is_global else 'a device'}",
        "replicates": len(summary["replicates"]),
        "runs": len(study.summaries),
    }


def _speedup(row: dict[str, Any]) -> str:
    if row["speedup"] != row["speedup"]:
        return latex(f"no serial run on 1 {str(row['device']).upper()}")
    if row["baseline"] == row["run"]:
        return "--" if row["verdict"] == NETWORK else "1"  # the study's serial run has another
    value = number(row["speedup"], 2)
    low, high = row["speedup_low"], row["speedup_high"]
    return value if low != low else f"{value} ({span(low, high, 2)})"


def _efficiency(row: dict[str, Any]) -> str:
    return number(row["efficiency"], 2) if row["devices"] > 1 else "--"


def _change(row: dict[str, Any]) -> str:
    return "--" if row["verdict"] == BASELINE or row["same_as"] else around(row, "change", 1)


def _verdict(row: dict[str, Any]) -> str:
    """Return the verdict; of one seed it says so, and a repeated run names the run it repeats."""
    if row["same_as"]:
        return latex(f"that of {label(row['same_as'])}")
    is_once = row["replicates"] < 2 and row["verdict"] not in (BASELINE, NETWORK)
    return latex(f"{row['verdict']}{' (1 seed)' if is_once else ''}")
