"""Declaration of the chapter external: trained runs on images of another origin."""

from typing import Any

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import TABLE, Chapter, Inputs


def inputs(config: Config, study: str) -> Inputs:
    """Return the external evaluations, and the results inside and with a source held out."""
    pairs = [(name, run) for name in config.externals(study) for run in config.study(name).runs]
    held_out = [
        (name, run) for name in sources.held_out(config, study) for run in config.study(name).runs
    ]
    inside = sources.results(study, (run for _, run in held_out))
    return {
        "external": [f"external/{name}/{run}" for name, run in pairs],
        "inside": list(
            dict.fromkeys([*sources.results(study, (run for _, run in pairs)), *inside])
        ),
        "held_out": [folder for name, run in held_out for folder in sources.results(name, [run])],
    }


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return column and value that each variant holds out."""
    splits = {name: config.study(name).split for name in sources.held_out(config, study)}
    return {"splits": {name: [split.column, split.held_out] for name, split in splits.items()}}


def present(config: Config, study: str) -> bool:
    """Return whether the study has external sets, or variants that hold out a source."""
    return bool(config.externals(study) or sources.held_out(config, study))


CHAPTER = Chapter(
    "external",
    inputs,
    settings,
    figures={
        "external": "Runs of *{study}* inside (test images of the same origin) and outside (images "
        "of another origin), with 95 % bootstrap intervals.",
        "external_scores": "Distribution of the predicted probabilities of *{study}* by true "
        "class, inside and on each external set, and the reliability outside.",
    },
    tables={"external": TABLE, "external_points": TABLE},
    unprinted=("external_points",),
    facts="external",
    present=present,
    remedy="give it `external`, or a variant with split.held_out, in config.yaml",
)
