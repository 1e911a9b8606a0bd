"""Headings of Snakemake's report: studies, variants and runs by the names that people give them.

The report sorts its headings by the alphabet. A number before a study's title keeps the order of
the configuration; a study's variants stand below the study.
"""

from __future__ import annotations

import re
from typing import Any

from medscale.base.text import truncate
from medscale.config.configuration import Config

ALL_STUDIES = "All studies"
LONGEST = 70  # characters of a title in the menu
# Snakemake writes titles into HTML, reStructuredText and patterns with braces
_SIGNS = re.compile(r"[^\w .,;()+%&-]|_+(?=\W|$)|(?<=\W)_+")


def safe(title: str) -> str:
    """Return a title without the signs that HTML, reStructuredText or Snakemake would read."""
    words = " ".join(_SIGNS.sub(" ", title).replace("_", " ").split())
    return truncate(words, LONGEST)


class Headings:
    """The headings of a configuration's studies."""

    def __init__(self, config: Config) -> None:
        """Number the active studies in the order of the configuration."""
        self.config = config
        self._width = len(str(len(config.active)))

    def study(self, name: str) -> str:
        """Return the heading of a study, which is also that of its variants: "1 Glaucoma"."""
        owner = self._main(name)
        titled = safe(self.config.study(owner).title) or owner
        number = 1 + self.config.active.index(owner) if owner in self.config.active else 0
        return f"{number:0{self._width}} {titled}"

    def _main(self, name: str) -> str:
        """Return the study that a variant belongs to, mostly itself."""
        return name if name in self.config.active else self.config.owner(name)

    def category(self, wildcards: Any) -> str:
        """Return the category of an output; those of no single study come first."""
        study = getattr(wildcards, "study", "")
        return self.study(study) if study else f"{0:0{self._width}} {ALL_STUDIES}"

    def subcategory(self, kind: str, wildcards: Any) -> str:
        """Return an output's heading below its study: its kind, or the title of the variant."""
        study = getattr(wildcards, "study", "")
        if not study or self._main(study) == study:
            return kind
        return f"Variant, {safe(self.config.study(study).title)}"

    def labels(self, title: str, _wildcards: Any) -> dict[str, str]:
        """Return the title of an output, in the form that a list of the report takes."""
        return {"title": title}

    def run_labels(self, wildcards: Any) -> dict[str, str]:
        """Return the title of a run's output: the run in words, and its name."""
        from medscale.report.names import label  # imports pandas, which a start does not need

        return {"run": label(wildcards.run), "name": wildcards.run}
