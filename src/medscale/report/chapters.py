"""The list of the report's chapters, in the order in which the paper shows them."""

from typing import Any

from medscale.base.errors import MedscaleError
from medscale.config.configuration import Config
from medscale.report.boxes.chapter import CHAPTER as BOXES
from medscale.report.chapter import Chapter
from medscale.report.checklists.chapter import CHAPTER as CHECKLISTS
from medscale.report.checklists.items import check_names, files, read_listing, study_answers
from medscale.report.claims.chapter import CHAPTER as CLAIMS
from medscale.report.claims.planned import plan_claims, shown_by
from medscale.report.convergence.chapter import CHAPTER as CONVERGENCE
from medscale.report.datasheet.chapter import CHAPTER as DATASHEET
from medscale.report.detection.chapter import CHAPTER as DETECTION
from medscale.report.enhance.chapter import CHAPTER as ENHANCE
from medscale.report.export.chapter import CHAPTER as EXPORT
from medscale.report.external.chapter import CHAPTER as EXTERNAL
from medscale.report.folds.chapter import CHAPTER as FOLDS
from medscale.report.formats.chapter import CHAPTER as FORMATS
from medscale.report.gradcam.chapter import CHAPTER as GRADCAM
from medscale.report.inference.chapter import CHAPTER as INFERENCE
from medscale.report.loading.chapter import CHAPTER as LOADING
from medscale.report.overview.chapter import CHAPTER as OVERVIEW
from medscale.report.profiling.chapter import CHAPTER as PROFILING
from medscale.report.provenance.chapter import CHAPTER as PROVENANCE
from medscale.report.quality.chapter import CHAPTER as QUALITY
from medscale.report.samples.chapter import CHAPTER as SAMPLES
from medscale.report.scaling.chapter import CHAPTER as SCALING
from medscale.report.sweep.chapter import CHAPTER as SWEEP
from medscale.report.synthesis.chapter import CHAPTER as SYNTHESIS
from medscale.report.variants.chapter import CHAPTER as VARIANTS

CHAPTERS = (
    OVERVIEW,
    SAMPLES,
    DATASHEET,
    QUALITY,
    FOLDS,
    GRADCAM,
    SCALING,
    CONVERGENCE,
    SWEEP,
    VARIANTS,
    EXTERNAL,
    DETECTION,
    BOXES,
    ENHANCE,
    LOADING,
    FORMATS,
    EXPORT,
    INFERENCE,
    PROFILING,
    SYNTHESIS,
    PROVENANCE,
    CLAIMS,
    CHECKLISTS,
)


def chapters_of(config: Config, study: str) -> list[Chapter]:
    """Return the chapters of a study's report."""
    return [c for c in CHAPTERS if not c.spans_studies and c.present(config, study)]


def outputs() -> dict[str, dict[str, str]]:
    """Return the pattern of the path of each figure and table of all chapters, by name."""
    paths: dict[str, dict[str, str]] = {"figures": {}, "tables": {}}
    for chapter in CHAPTERS:
        paths["figures"] |= {name: chapter.figure_path(name) for name in chapter.figures}
        paths["tables"] |= {name: chapter.table_path(name, "csv") for name in chapter.tables}
    return paths


def settings_of(chapter: Chapter, config: Config, study: str) -> dict[str, Any]:
    """Return the settings of a chapter, with titles of classes, and names where it needs them.

    Titles of classes are for ``write_chapter``; names are of the study's chapters and of outputs.
    """
    settings = dict(chapter.settings(config, study))
    if not chapter.spans_studies and (titles := config.study(study).class_titles):
        settings["class_titles"] = titles
    if chapter.lists_chapters:
        settings["chapters"] = [other.name for other in chapters_of(config, study)]
    if chapter.cites_outputs:
        settings["output_paths"] = outputs()
    return settings


def refuse_mistakes(config: Config) -> None:
    """Refuse claims and answers to checklists with names that do not exist.

    Raises MedscaleError naming the claim or item, and the closest name.
    """
    output_paths = outputs()
    for claim in plan_claims(config):
        shown_by(claim, output_paths)
    listings = {path.stem: read_listing(path) for path in files()}
    check_names(listings, study_answers(config))


def refuse_absent(config: Config, study: str, kind: str, name: str) -> None:
    """Refuse a figure or table that a study's report does not have.

    ``kind``: ``figures`` or ``tables``. Raises MedscaleError that names the missing setting.
    """
    for chapter in CHAPTERS:
        if name in getattr(chapter, kind) and not chapter.present(config, study):
            raise MedscaleError(
                f"{kind}/{study}/{name}: the study {study} has no chapter {chapter.name!r}; "
                f"{chapter.remedy}"
            )
