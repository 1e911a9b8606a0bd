"""Facts of the provenance: code, software and machines of all replicates."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from medscale.report.conditions import different_conditions
from medscale.report.result.origin import LOCAL


def facts(
    summaries: Sequence[dict[str, Any]], replicates: pd.DataFrame, origins: pd.DataFrame
) -> dict[str, Any]:
    """Return the facts of all runs.

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
