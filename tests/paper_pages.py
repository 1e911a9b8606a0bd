"""Pages of the sections of a built paper."""

from __future__ import annotations

import re
from pathlib import Path

LINE = re.compile(
    r"\\contentsline \{section\}\{\\numberline \{[^}]*\}(.*)\}\{(\d+)\}\{(?:section|appendix)\."
)


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
