"""Pages of the sections of a built paper, and its lines that leave the text's width."""

from __future__ import annotations

import re
from pathlib import Path

LINE = re.compile(
    r"\\contentsline \{section\}\{\\numberline \{[^}]*\}(.*)\}\{(\d+)\}\{(?:section|appendix)\."
)

WIDE = re.compile(r"Overfull \\hbox \(([\d.]+)pt too wide\).*")
SLACK = 2.0  # points beyond the text's width that nobody sees


def pages_of_sections(folder: Path) -> dict[str, int]:
    """Count the pages from each section's beginning to that of the next, by the section's title.

    The last section has no end and is left out.

    Args:
        folder: the working folder of a built paper.
    """
    auxiliary = (folder / "paper" / "build" / "paper.aux").read_text(encoding="utf-8")
    sections = [(title, int(page)) for title, page in LINE.findall(auxiliary)]
    following = sections[1:]
    return {title: end - page for (title, page), (_, end) in zip(sections, following, strict=False)}


def wide_lines(folder: Path) -> list[str]:
    """Return LaTeX's messages on lines and tables that are wider than the text.

    Args:
        folder: the working folder of a built paper.
    """
    log = (folder / "paper" / "build" / "paper.log").read_text(encoding="utf-8", errors="replace")
    return [match[0] for match in WIDE.finditer(log) if float(match[1]) > SLACK]
