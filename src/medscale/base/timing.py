"""Time of each stage of a study, from the benchmark files that Snakemake writes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from medscale.base.errors import MedscaleError


def stage_times(workdir: Path) -> pd.DataFrame:
    """Return the seconds of each stage, summed over its jobs, in the order in which stages ended.

    Args:
        workdir: folder of the study's outputs.

    Returns:
        Columns ``study, stage, jobs, seconds``; ``study`` is empty for stages of all studies.

    Raises:
        MedscaleError: when a file is empty or damaged, as after a full disk.
    """
    rows = []
    for file in sorted((workdir / "benchmarks").rglob("*.tsv")):
        parts = file.relative_to(workdir / "benchmarks").with_suffix("").parts
        stage = parts[-1].split(".")[-1]
        rows.append(
            {
                "study": parts[0] if len(parts) > 1 else "",
                "stage": stage,
                "at": file.stat().st_mtime,
            }
        )
        try:
            rows[-1]["seconds"] = float(pd.read_csv(file, sep="\t")["s"].mean())
        except (KeyError, TypeError, ValueError):
            raise MedscaleError(f"{file} holds no times of a job; delete it") from None
    if not rows:
        return pd.DataFrame(columns=["study", "stage", "jobs", "seconds"])
    by_stage = pd.DataFrame(rows).groupby(["study", "stage"], as_index=False)
    times = by_stage.agg(jobs=("seconds", "size"), seconds=("seconds", "sum"), at=("at", "max"))
    # Names decide between stages that ended together.
    return times.sort_values("at", kind="stable").drop(columns="at").reset_index(drop=True)
