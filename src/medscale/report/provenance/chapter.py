"""Declaration of the chapter provenance: the code and the machines that made all results."""

from typing import Any

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import Chapter, Inputs

CAPTION = (
    "Every replicate of every run (*runs.csv*): its scores, times, specification and inputs as "
    "digests, and the code and machine that made it; *provenance.csv* has each machine and "
    "version of the code once."
)


def studies(config: Config) -> list[str]:
    """Return the studies to carry out and their variants."""
    variants = [name for study in config.active for name in config.variants(study)]
    return [*config.active, *variants]


def inputs(config: Config, study: str) -> Inputs:
    """Return the result folders of all configured runs."""
    return {
        "results": [
            folder
            for name in studies(config)
            for folder in sources.results(name, config.study(name).runs)
        ]
    }


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return the studies' titles."""
    return {"titles": {name: config.study(name).title for name in studies(config)}}


CHAPTER = Chapter(
    "provenance",
    inputs,
    settings,
    tables={"runs": CAPTION, "provenance": CAPTION},
    facts="provenance",
    spans_studies=True,
)
