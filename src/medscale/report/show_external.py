"""An evaluation on external images in the terminal, next to the study's own test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from medscale.base.console import plain
from medscale.base.paths import workdir_of
from medscale.evaluate.calibration import CALIBRATED
from medscale.evaluate.metrics import NAMES, in_percent
from medscale.report.marks import mark
from medscale.report.names import OVER
from medscale.report.result.summary import read_summary
from medscale.report.show import POINTS, class_titles, operating_point


def show_external(folder: Path) -> Iterator[str | Table]:
    """Yield lines and tables, for rich, of the folder of an evaluation on external images.

    Titles of the classes are those of the result in the same working folder, if it is there.
    Raises MedscaleError when summary.json is damaged, or of another version.
    """
    summary = read_summary(folder, is_external=True)
    result = workdir_of(folder) / "results" / summary["study"] / summary["run"]["name"]
    yield from lines(summary, str(folder), class_titles(result))


def lines(summary: dict[str, Any], folder: str, titles: Mapping[str, str]) -> Iterator[str | Table]:
    """Yield lines and tables, for rich, of an external evaluation and its folder.

    ``titles``: of the classes, by name.
    """
    name = f"{summary['study']}/{summary['run']['name']} on {summary['title']}"
    yield f"[bold]{plain(name)}[/], not a medical device"
    if words := mark([summary["marks"]]):
        yield f"[yellow]{plain(words)}[/]"
    counts = summary["counts"]["test"]
    yield f"{counts['images']} images; 95 % intervals are over {OVER[summary['patients']]}"
    shared = [copies_sentence(summary["copies"]), *patients_note(summary["same_patients"])]
    for note in [*summary["notes"], *shared]:
        yield f"[yellow]note[/] {plain(note)}"
    names = NAMES | CALIBRATED
    table = Table("metric", "inside (test)", "outside", "outside - inside", box=None)
    for row in summary["shift"]:
        scale = 100 if row["metric"] in NAMES and in_percent(row["metric"]) else 1
        cells = [_around(row, side, scale) for side in ("inside", "outside", "difference")]
        words = names[row["metric"]] + (" (%)" if scale == 100 else "")
        table.add_row(words, *cells)
    yield table
    for row in summary["operating"][:POINTS]:
        yield from operating_point(row, titles)
    yield "thresholds and temperatures are those of the result, from its validation images"
    yield f"figures, tables and predictions: {plain(folder)}/"


def copies_sentence(copies: dict[str, int] | None) -> str:
    """Return a sentence on the external images that are copies of the study's images."""
    if copies is None:
        return (
            "Whether images are copies of training images is not known: the study's index.parquet "
            "is not available (--index)."
        )
    total = ", ".join(f"{count} of {split}" for split, count in copies.items())
    if any(copies.values()):
        return f"Images that are copies, byte by byte, of images of the study: {total}."
    return "No image is a copy, byte by byte, of an image of the study."


def patients_note(same: dict[str, int] | None) -> list[str]:
    """Return a note on external images of patients who have names of the study's patients."""
    if same is None:
        return ["Whether patients of the study are among these is not known."]
    if not any(same.values()):
        return []
    total = ", ".join(f"{count} of {split}" for split, count in same.items())
    return [
        f"Images whose patient has the name of a patient of the study: {total}. If these are the "
        "same people, the set is not independent of the study."
    ]


def _around(row: dict[str, Any], name: str, scale: float) -> str:
    values = [row[f"{name}{end}"] for end in ("", "_low", "_high")]
    if values[0] is None:
        return "–"
    digits = 1 if scale == 100 else 3
    mean, low, high = ("–" if value is None else f"{scale * value:z.{digits}f}" for value in values)
    return mean if low == "–" else f"{mean} ({low} to {high})"
