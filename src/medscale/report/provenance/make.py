"""The chapter provenance: the code and the machines that made all results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.files import read_json
from medscale.base.text import latex
from medscale.evaluate.summary import FORMAT_UNKNOWN, replicate_scores
from medscale.report.latex import longtable, number, significant
from medscale.report.result.origin import (
    LOCAL,
    SHORT,
    container_name,
    different_conditions,
    origins,
)
from medscale.report.result.reading import records
from medscale.report.tables import DAGGER, Column, left, right, table
from medscale.report.writer import Pages

# Columns that each replicate has in ``timing`` of summary.json.
TIMING = ("epochs", "best_epoch", "restarts", "seconds_per_epoch", "wall_seconds")
ORIGIN = [  # columns that name a combination of machine and code
    "hardware",
    "cores",
    "memory_gb",
    "driver",
    "container",
    "commit",
    "package",
    "python",
    "torch",
]


def make(study: str, *, results: Sequence[str], titles: dict[str, str]) -> Pages:
    """Return figures, tables and facts; raise MedscaleError for a damaged summary."""
    summaries = [read_json(Path(result) / "summary.json") for result in results]
    runs = pd.DataFrame([row for summary in summaries for row in _replicates(summary)])
    groups = runs.groupby(ORIGIN, dropna=False, sort=False)
    machines = groups.size().rename("replicates").reset_index()
    return Pages(
        tables={"runs": (_runs(runs, titles), runs), "provenance": (_machines(machines), machines)},
        facts=_facts(summaries, runs, machines),
    )


def _replicates(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of runs.csv: scores, times and origin of each replicate of a run."""
    timing = summary["timing"]
    score = "map50" if summary.get("detect") else "accuracy"
    environments = summary["provenance"]["replicates"]
    rows = []
    values = replicate_scores(summary, score)
    for place, (origin, environment) in enumerate(zip(origins(summary), environments, strict=True)):
        rows.append(
            {
                "study": summary["study"],
                "run": summary["run"]["name"],
                "seed": origin["seed"],
                "fold": origin["fold"],
                **summary["marks"],
                "score": score,
                "value": values[place],
                **{key: timing[key]["values"][place] for key in TIMING},
                "device_hours": timing["device_seconds"]["values"][place] / 3600,
                "format": environment.get("format", FORMAT_UNKNOWN),
                "specification": environment["plan_digest"],
                "shards": environment.get("inputs", {}).get("shards"),
                "hardware": timing["hardware"][place],
                "cores": environment.get("cpus_machine") or environment.get("cpus"),
                "memory_gb": environment.get("memory_gb"),
                "driver": environment.get("driver"),
                "container": container_name(environment),
                "commit": origin["commit"],
                "package": environment.get("code"),
                "python": environment["python"],
                "torch": environment["versions"]["torch"],
                "finished": environment.get("finished"),
            }
        )
    return rows


def _runs(runs: pd.DataFrame, titles: dict[str, str]) -> str:
    """Return the appendix's table: a row for each replicate, below its study's title."""
    columns = [
        Column(r"p{0.26\linewidth}", "run", _run),
        Column("r", "seed", _seed),
        left("format", lambda row: latex(row["format"])),
        Column("r", r"score (\%)", _score),
        Column("r", "epochs", lambda row: f"{row['epochs']:.0f}"),
        right(r"best\\epoch", lambda row: f"{row['best_epoch']:.0f}"),
        right(r"s an\\epoch", lambda row: significant(row["seconds_per_epoch"])),
        right(r"whole\\time (s)", lambda row: significant(row["wall_seconds"])),
        Column("r", "restarts", lambda row: f"{row['restarts']:.0f}"),
        left("specification", lambda row: rf"\texttt{{{row['specification'][:SHORT]}}}"),
    ]
    groups = [
        (
            rf"{latex(titles[str(study)])} (\texttt{{{latex(str(study))}}})",
            [[column.cell(row) for column in columns] for row in records(part)],
        )
        for study, part in runs.groupby("study", sort=False)
    ]
    return longtable([(column.align, column.heading) for column in columns], groups)


def _run(row: dict[str, Any]) -> str:
    dagger = DAGGER if row["stand_in"] else ""
    return rf"\raggedright\texttt{{{latex(row['run'])}}}{dagger}"


def _seed(row: dict[str, Any]) -> str:
    fold = row["fold"]
    return str(row["seed"]) + ("" if pd.isna(fold) else f", fold {fold:.0f}")


def _score(row: dict[str, Any]) -> str:
    note = r"\textsuperscript{b}" if row["score"] == "map50" else ""
    return number(row["value"], 1, 100) + note


def _machines(machines: pd.DataFrame) -> str:
    """Return machines and code, each combination once."""
    columns = [
        left("hardware", lambda row: latex(row["hardware"])),
        Column("r", "cores", lambda row: str(row["cores"])),
        Column("r", "memory (GiB)", lambda row: number(row["memory_gb"], 0)),
        left("container", lambda row: latex(row["container"])),
        left("commit", lambda row: rf"\texttt{{{latex(row['commit'])}}}"),
        left("Python / PyTorch", lambda row: latex(f"{row['python']} / {row['torch']}")),
        Column("r", "replicates", lambda row: str(row["replicates"])),
    ]
    return table(records(machines), columns)


def _facts(
    summaries: Sequence[dict[str, Any]], replicates: pd.DataFrame, origins: pd.DataFrame
) -> dict[str, Any]:
    """Return the counts, code, software and machines of all runs, for the paper.

    Args:
        replicates: the table runs.csv, a row a replicate.
        origins: the table provenance.csv, a row for each combination of machine and code.
    """
    environment = summaries[-1]["environment"]
    return {
        "marks": [summary["marks"] for summary in summaries],
        "runs": len(summaries),
        "replicates": len(replicates),
        "restarts": int(replicates["restarts"].sum()),
        "device_hours": float(replicates["device_hours"].sum()),
        "mixed": [
            {"run": f"{summary['study']}/{summary['run']['name']}", "differences": words}
            for summary in summaries
            if (words := different_conditions(summary))
        ],
        "commits": sorted(set(origins["commit"])),
        "local_changes": bool(origins["commit"].str.contains(LOCAL, regex=False).any()),
        "containers": sorted(set(origins["container"]) - {"none"}),
        "hardware": sorted(set(origins["hardware"])),
        "python": environment["python"],
        "versions": environment["versions"],
    }
