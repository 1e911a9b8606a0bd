"""Reading of a result's summary.json by commands, which a user may point at any folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.base.paths import SUMMARY

KEYS = ["study", "run", "model", "metrics", "timing", "counts", "seeds", "marks", "format"]
KEYS += ["patients", "replicates", "provenance"]


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the content of a result's summary.json.

    Raises MedscaleError when it is damaged, or another version wrote it.
    """
    summary = read_json(folder / SUMMARY)
    if not isinstance(summary, dict) or (missing := [key for key in KEYS if key not in summary]):
        lacks = f" (no {missing[0]!r})" if isinstance(summary, dict) else ""
        raise MedscaleError(
            f"{folder / SUMMARY} is no summary of this version{lacks}; evaluate the run again"
        )
    return summary
