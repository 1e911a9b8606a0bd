"""What made the study: a table of every replicate, one of machines and code, and what the paper says of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.base.files import read_json, write_json
from medscale.measure.scaling.speedup import hardware
from medscale.report.latex import escape, longtable, number, significant, tabular
from medscale.report.overview import tables
from medscale.report.provenance.facts import LOCAL, facts
from medscale.report.result.reading import records

SHORT = 12  # letters of a SHA-256 that a reader is shown
COMMIT = 9
MADE = [
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


def made_of(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a replicate of a result (summary.json): seed, digests and code, short enough for a reader's table."""
    return [
        {
            "seed": seed,
            "plan_digest": one["plan_digest"],
            "commit": _commit(one),
            "code": (one.get("code") or "–")[:SHORT],
            "container": container_name(one),
            "shards": (one.get("inputs", {}).get("shards") or "–")[:SHORT],
        }
        for seed, one in zip(summary["seeds"], summary["provenance"]["replicates"], strict=True)
    ]


def write_provenance(results: Sequence[Path], titles: dict[str, str], folder: Path) -> None:
    """Write ``runs.tex|csv``, ``provenance.tex|csv`` and ``provenance.json`` into ``folder``.

    Args:
        results: all result folders, of variants and detection too, in the order in which they are shown.
        titles: title by study, of variants too.
        folder: where to.

    Raises:
        MedscaleError: when a summary is missing or damaged.
    """
    summaries = [read_json(result / "summary.json") for result in results]
    runs = pd.DataFrame([row for summary in summaries for row in _replicates(summary)])
    made = runs.groupby(MADE, dropna=False, sort=False).size().rename("replicates").reset_index()
    tables.write(folder, "runs", _runs(runs, titles), runs)
    tables.write(folder, "provenance", _made(made), made)
    write_json(folder / "provenance.json", facts(summaries, runs, made))


def _replicates(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of runs.csv: what made each replicate of a run, and what came of it."""
    clock, test = summary["timing"], summary["metrics"]["test"]
    score = "map50" if summary.get("detect") else "accuracy"
    environments = summary["provenance"]["replicates"]
    rows = []
    for at, (seed, short, one) in enumerate(
        zip(summary["seeds"], made_of(summary), environments, strict=True)
    ):
        rows.append(
            {
                "study": summary["study"],
                "run": summary["run"]["name"],
                "seed": seed,
                **summary["marks"],
                "score": score,
                "value": test[score]["values"][at],
                **{key: clock[key]["values"][at] for key in ("epochs", "best_epoch", "restarts")},
                "seconds_per_epoch": clock["seconds_per_epoch"]["values"][at],
                "wall_seconds": clock["wall_seconds"]["values"][at],
                "device_hours": clock["wall_seconds"]["values"][at]
                * summary["run"]["devices"]
                / 3600,
                "specification": one["plan_digest"],
                "shards": one.get("inputs", {}).get("shards"),
                "hardware": hardware({"environment": one}),
                "cores": one.get("cpus_machine") or one.get("cpus"),
                "memory_gb": one.get("memory_gb"),
                "driver": one.get("driver"),
                "container": short["container"],
                "commit": short["commit"],
                "package": one.get("code"),
                "python": one["python"],
                "torch": one["versions"]["torch"],
                "finished": one.get("finished"),
            }
        )
    return rows


def _runs(runs: pd.DataFrame, titles: dict[str, str]) -> str:
    """The appendix's table: a row a replicate, under its study's title."""
    columns = [
        (r"p{0.28\linewidth}", "run"),
        *[
            ("r", heading)
            for heading in (
                "seed",
                r"score (\%)",
                "epochs",
                "best",
                "s an epoch",
                "wall s",
                "restarts",
            )
        ],
        ("l", "specification"),
    ]
    groups = []
    for study, part in runs.groupby("study", sort=False):
        cells = [
            [
                r"\raggedright\texttt{"
                + escape(row["run"])
                + "}"
                + (tables.DAGGER if row["stand_in"] else ""),
                str(row["seed"]),
                number(row["value"], 1, 100)
                + (r"\textsuperscript{b}" if row["score"] == "map50" else ""),
                f"{row['epochs']:.0f}",
                f"{row['best_epoch']:.0f}",
                significant(row["seconds_per_epoch"]),
                significant(row["wall_seconds"]),
                f"{row['restarts']:.0f}",
                r"\texttt{" + str(row["specification"])[:SHORT] + "}",
            ]
            for row in records(part)
        ]
        groups.append((f"{escape(titles[str(study)])} (\\texttt{{{escape(str(study))}}})", cells))
    return longtable(columns, groups)


def _made(made: pd.DataFrame) -> str:
    """Machines and code, each combination that made replicates once."""
    rows = [
        [
            escape(row["hardware"]),
            str(row["cores"]),
            number(row["memory_gb"], 0),
            escape(row["container"]),
            r"\texttt{" + escape(row["commit"]) + "}",
            escape(f"{row['python']} / {row['torch']}"),
            str(row["replicates"]),
        ]
        for row in records(made)
    ]
    heads = [
        ("l", "hardware"),
        ("r", "cores"),
        ("r", "memory (GB)"),
        ("l", "container"),
        ("l", "commit"),
    ]
    return tabular([*heads, ("l", "Python / PyTorch"), ("r", "replicates")], rows)


def _commit(environment: dict[str, Any]) -> str:
    commit = environment.get("commit")
    if commit is None:
        return "no git commit"
    return commit[:COMMIT] + (f" {LOCAL}" if environment.get("dirty") else "")


def container_name(environment: dict[str, Any]) -> str:
    """Name of the image's file, which holds its digest, or under docker the digest; "none" where there was none."""
    image = environment.get("container") or {}
    return image.get("file") or image.get("digest") or "none"
