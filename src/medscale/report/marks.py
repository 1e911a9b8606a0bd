"""What must be said beside every figure, table and page that shows a stand-in: synthetic images, CPUs for GPUs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SYNTHETIC = "synthetic images"
STAND_IN = "CPU processes in place of GPUs"
REDUCED = "reduced network and images"


def mark(marks: Iterable[dict[str, Any]]) -> str:
    """What to say of results with these ``synthetic, stand_in, scale`` (summary.json); empty if all is real."""
    marks = list(marks)
    parts = [
        text
        for key, text in (("synthetic", SYNTHETIC), ("stand_in", STAND_IN))
        if any(m[key] for m in marks)
    ]
    if any(m["scale"] == "demo" for m in marks):
        return "demo: " + "; ".join(parts or [REDUCED])
    return "; ".join(parts)
