"""Facts of the chapter provenance: what the paper says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from medscale.report.latex import significant

LOCAL = "with local changes"


def facts(
    summaries: Sequence[dict[str, Any]], runs: pd.DataFrame, made: pd.DataFrame
) -> dict[str, Any]:
    """``structure`` for the text's templates and ``values`` for its numbers, as a study's facts.json."""
    structure = {
        "marks": [
            dict(pair)
            for pair in sorted({tuple(sorted(one["marks"].items())) for one in summaries})
        ],
        "commits": sorted(set(made["commit"])),
        "local_changes": bool(made["commit"].str.contains(LOCAL, regex=False).any()),
        "containers": sorted(set(made["container"]) - {"none"}),
        "hardware": sorted(set(made["hardware"])),
        "versions": summaries[-1]["environment"]["versions"],
        "python": summaries[-1]["environment"]["python"],
        "restarts": int(runs["restarts"].sum()),
        "mixed": [
            f"{one['study']}/{one['run']['name']}"
            for one in summaries
            if one["provenance"]["differ"]
        ],
    }
    values = {
        "runs": str(len(summaries)),
        "replicates": str(len(runs)),
        "restarts": str(structure["restarts"]),
        "device_hours": significant(float(runs["device_hours"].sum()), 2),
    }
    return {
        "structure": structure,
        "values": {f"provenance/{key}": one for key, one in values.items()},
    }
