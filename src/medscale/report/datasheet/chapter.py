"""Declaration of the chapter datasheet: origin, content and preparation of a study's images."""

from medscale.config.configuration import Config
from medscale.data.kind import kind_file
from medscale.report import sources
from medscale.report.chapter import Chapter, Inputs

PATH = "data/{study}/datasheet.md"


def inputs(config: Config, study: str) -> Inputs:
    """Return the files that the chapter is made from."""
    return {
        "index": sources.index(study),
        "counts": sources.audit(study),
        "kind": kind_file(config.study(study).source.kind),
    }


CHAPTER = Chapter(
    "datasheet",
    inputs,
    sources.section,
    documents={
        PATH: "Datasheet of the images of *{study}* after Gebru et al. (2021): origin, licence, "
        "make-up, what was left out, and how they are divided."
    },
    variants=True,  # which divide the same images otherwise
)
