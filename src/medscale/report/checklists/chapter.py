"""Declaration of the chapter checklists: items of reporting checklists with their answers."""

from dataclasses import asdict
from typing import Any

from medscale.config.configuration import Config
from medscale.report.chapter import Chapter, Inputs
from medscale.report.checklists.items import files, study_answers
from medscale.report.claims.chapter import CHAPTER as CLAIMS
from medscale.report.external.chapter import CHAPTER as EXTERNAL
from medscale.report.overview.chapter import CHAPTER as OVERVIEW
from medscale.report.provenance.chapter import CHAPTER as PROVENANCE
from medscale.report.quality.chapter import CHAPTER as QUALITY
from medscale.report.scaling.chapter import CHAPTER as SCALING
from medscale.report.synthesis.chapter import CHAPTER as SYNTHESIS
from medscale.report.variants.chapter import CHAPTER as VARIANTS

OF_STUDIES = (OVERVIEW, QUALITY, SCALING, VARIANTS, EXTERNAL)  # chapters whose facts answers use
SHARED = (PROVENANCE, SYNTHESIS, CLAIMS)
CAPTION = "Items of a reporting checklist, each with the answer of the studies."


def inputs(config: Config, study: str) -> Inputs:
    """Return the checklists, and the facts that their answers use."""
    facts = [
        chapter.table_path(chapter.facts, "json").format(study=name)
        for name in config.active
        for chapter in OF_STUDIES
        if chapter.present(config, name)
    ]
    shared = [chapter.table_path(chapter.facts, "json") for chapter in SHARED]
    return {"listings": files(), "facts": facts, "shared": shared}


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return each study's own answers, and whether an item without an answer stops the paper."""
    return {"studies": {name: asdict(own) for name, own in study_answers(config).items()}}


CHAPTER = Chapter(
    "checklists",
    inputs,
    settings,
    tables={f"checklist_{path.stem}": CAPTION for path in files()},
    facts="checklists",
    spans_studies=True,
)
