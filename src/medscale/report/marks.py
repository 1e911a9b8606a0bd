"""The mark of figures, tables and pages that show stand-ins: synthetic images, CPUs for GPUs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SYNTHETIC = "synthetic images"
STAND_IN = "CPU processes in place of GPUs"
REDUCED = "reduced network and images"
Marks = Mapping[str, Any]  # `synthetic, stand_in, scale` of summary.json


def mark(marks: Iterable[Marks]) -> str:
    """Return the mark for results with these marks; empty if all of them are real."""
    marks = list(marks)
    parts = [
        text
        for key, text in (("synthetic", SYNTHETIC), ("stand_in", STAND_IN))
        if any(of_result[key] for of_result in marks)
    ]
    if any(of_result["scale"] == "demo" for of_result in marks):
        return "demo: " + "; ".join(parts or [REDUCED])
    return "; ".join(parts)


def distinct(summaries: Sequence[dict[str, Any]]) -> list[Marks]:
    """Return the different marks of results (their summary.json), in a fixed order."""
    pairs = {tuple(sorted(summary["marks"].items())) for summary in summaries}
    return sorted((dict(pair) for pair in pairs), key=str)
