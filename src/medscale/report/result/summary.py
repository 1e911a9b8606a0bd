"""Reading of a result's summary.json by commands, which a user may point at any folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.base.paths import SUMMARY

KEYS = ["study", "run", "metrics", "counts", "seeds", "marks", "patients"]
KEYS_OF_TRAINING = ["model", "timing", "format", "replicates", "provenance"]  # not of external sets


def read_summary(folder: Path, is_external: bool = False) -> dict[str, Any]:
    """Return the content of a result's summary.json.

    Args:
        folder: of the result.
        is_external: whether it is an evaluation on external images, which has no training.

    Raises:
        MedscaleError: when the file is damaged, or another version wrote it.
    """
    summary = read_json(folder / SUMMARY)
    keys = KEYS if is_external else KEYS + KEYS_OF_TRAINING
    if not isinstance(summary, dict) or (missing := [key for key in keys if key not in summary]):
        lacks = f" (no {missing[0]!r})" if isinstance(summary, dict) else ""
        raise MedscaleError(
            f"{folder / SUMMARY} is no summary of this version{lacks}; evaluate the run again"
        )
    return summary
