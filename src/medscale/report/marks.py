"""The marks of figures, tables and pages: stand-ins for images or GPUs, and number formats."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SYNTHETIC = "synthetic images"
STAND_IN = "CPU processes in place of GPUs"
NOT_FULL = "not at full scale"
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
# `synthetic, stand_in, scale` of summary.json; the result of ``marks_of`` has further keys
Marks = Mapping[str, Any]


def marks_of(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the marks of a result (summary.json) with its number format."""
    return summary["marks"] | {
        "amp": summary["run"]["amp"],
        "backend": summary["backend"],
        "format": summary["format"],
    }


def mark(marks: Iterable[Marks]) -> str:
    """Return the mark for results with these marks; empty if all of them are real."""
    marks = list(marks)
    parts = [
        text
        for key, text in (("synthetic", SYNTHETIC), ("stand_in", STAND_IN))
        if any(of_result[key] for of_result in marks)
    ]
    if any(of_result["scale"] == "demo" for of_result in marks):
        return "demo: " + "; ".join(parts or [NOT_FULL])
    return "; ".join(parts)


def formats(marks: Iterable[Marks]) -> str:
    """Return the number formats of results: "fp32 (CPU), tf32 (GPU); AMP: bf16".

    Marks without a format are left out; the text is empty if none has one.
    """
    marks = [of_result for of_result in marks if "format" in of_result]
    plain = {(m["format"], m["backend"]) for m in marks if not m["amp"]}
    mixed = sorted({m["format"] for m in marks if m["amp"]})
    if len({name for name, _ in plain}) > 1:
        words = [f"{name} ({DEVICES[backend]})" for name, backend in sorted(plain)]
    else:
        words = sorted({name for name, _ in plain})
    return "; ".join(filter(None, [", ".join(words), "AMP: " * bool(mixed) + ", ".join(mixed)]))


def distinct(summaries: Sequence[dict[str, Any]]) -> list[Marks]:
    """Return the different marks of results (their summary.json), in a fixed order."""
    pairs = {tuple(sorted(summary["marks"].items())) for summary in summaries}
    return sorted((dict(pair) for pair in pairs), key=str)
