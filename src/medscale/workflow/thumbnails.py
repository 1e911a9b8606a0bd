"""Pictures of the figures over all studies, for the first page of Snakemake's report."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medscale.report.chapter import Chapter, in_words

PROGRAM = "pdftocairo"  # of poppler, which LaTeX's packages bring
LARGEST_BYTES = 500_000  # of a picture; a larger one is left out, so that the page opens at once
LINE = 5000  # characters; docutils takes at most 10,000, and joins the lines of an address


class Thumbnail(NamedTuple):
    """A figure on the first page of the report."""

    title: str
    caption: str
    address: str  # the picture itself, as a data URL


def thumbnails(chapters: Sequence[Chapter], workdir: Path) -> list[Thumbnail]:
    """Return the existing figures over all studies as SVG; none where poppler is missing."""
    if shutil.which(PROGRAM) is None:
        return []
    pictures = []
    for chapter in (chapter for chapter in chapters if chapter.spans_studies):
        for name, caption in chapter.figures.items():
            file = workdir / chapter.figure_path(name)
            content = _svg(file) if file.is_file() else b""
            if 0 < len(content) <= LARGEST_BYTES:
                text = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
                parts = [text[at : at + LINE] for at in range(0, len(text), LINE)]
                address = "\n   ".join(parts)
                pictures.append(Thumbnail(in_words(name), caption, address))
    return pictures


def _svg(file: Path) -> bytes:
    """Return the first page of a PDF as SVG; empty where it cannot be read."""
    command = [PROGRAM, "-svg", "-f", "1", "-l", "1", str(file.resolve()), "-"]
    process = subprocess.run(command, capture_output=True, check=False)
    return process.stdout if process.returncode == 0 else b""
