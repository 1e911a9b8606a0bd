"""Declaration of the chapter sweep: the learning rate of each batch size."""

from typing import Any

from medscale.config.configuration import Config
from medscale.config.sweep import points
from medscale.engine.run import RunSpec
from medscale.report import sources
from medscale.report.chapter import TABLE, Chapter, Inputs


def inputs(config: Config, study: str) -> Inputs:
    """Return the histories of all points, and those that the target is derived from.

    No result folder is read, since those hold scores of the test images.
    """
    return {
        "histories": [
            path
            for point in points(config, study)
            for path in sources.histories(config, point.study, point.run, point.seeds)
        ],
        "reference": sources.reference_histories(config, study),
    }


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return the points, the settings of the target, and the marks of the images."""
    section = config.study(study)
    runs = section.sweep.runs if section.sweep is not None else []
    return {
        "points": [point._asdict() for point in points(config, study)],
        "target": sources.target(config, study),
        "marks": {
            "synthetic": section.source.synthetic,
            "stand_in": config.stand_in_gpu
            and any(RunSpec.parse(run).device == "gpu" for run in runs),
            "scale": config.scale,
        },
    }


def present(config: Config, study: str) -> bool:
    """Return whether the study has a sweep."""
    return config.study(study).sweep is not None


CHAPTER = Chapter(
    "sweep",
    inputs,
    settings,
    figures={
        "sweep": "Best value on the validation images of *{study}* by peak learning rate, a line "
        "for each run; the chosen learning rate is ringed."
    },
    tables={"sweep": TABLE},
    facts="sweep",
    present=present,
    remedy="give it `sweep` in config.yaml",
)
