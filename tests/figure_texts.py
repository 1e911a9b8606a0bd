"""Texts of a figure: those of its PDF file, and those that overlap or leave the page."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SLACK = 1.0  # pixels by which boxes may touch: a box includes the room above small letters
SHARE = 0.12  # of the smaller box that may lie within the other


def printed(figure: Path) -> str:
    """Return the text of the PDF file of a figure."""
    process = subprocess.run(
        ["pdftotext", str(figure), "-"], capture_output=True, text=True, check=True
    )
    return process.stdout


def faults(figure: Figure) -> list[str]:
    """Draw a figure and describe each pair of overlapping texts and each text beyond the page."""
    figure.draw_without_rendering()
    page = figure.bbox
    boxes = [(text, box) for text, box in _boxes(figure)]
    descriptions = [
        f"{text.get_text()!r} leaves the page"
        for text, box in boxes
        if box.x0 < page.x0 - SLACK or box.x1 > page.x1 + SLACK or box.y1 > page.y1 + SLACK
    ]
    # the box of a slanted text is larger than the text
    straight = [(text, box) for text, box in boxes if text.get_rotation() % 90 == 0]
    for (text, box), (neighbour, neighbour_box) in combinations(straight, 2):
        if _overlap(box, neighbour_box) > SHARE * min(_area(box), _area(neighbour_box)):
            descriptions.append(f"{text.get_text()!r} overlaps {neighbour.get_text()!r}")
    return descriptions


def _boxes(figure: Figure) -> Iterator[tuple[Text, Bbox]]:
    renderer = figure._get_renderer()  # type: ignore[attr-defined]
    for text in _texts(figure):
        if text.get_text().strip() and text.get_visible():
            yield text, text.get_window_extent(renderer)


def _texts(figure: Figure) -> Iterator[Text]:
    """Yield the texts that are drawn; a tick beyond the limits of its axis is not."""
    yield from figure.texts
    for legend in figure.legends:
        yield from legend.get_texts()
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        yield from axes.texts
        if legend := axes.get_legend():
            yield from legend.get_texts()
        if axes.axison:
            yield axes.title
            for axis in (axes.xaxis, axes.yaxis):
                yield axis.label
                for tick in axis._update_ticks():  # type: ignore[attr-defined]
                    yield from (tick.label1, tick.label2)


def _overlap(box: Bbox, neighbour: Bbox) -> float:
    width = min(box.x1, neighbour.x1) - max(box.x0, neighbour.x0)
    height = min(box.y1, neighbour.y1) - max(box.y0, neighbour.y0)
    return max(width, 0.0) * max(height, 0.0)


def _area(box: Bbox) -> float:
    return max(box.width * box.height, 1e-9)
