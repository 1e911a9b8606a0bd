"""The shared declaration of the chapters of the benchmarks."""

from collections.abc import Mapping
from functools import partial

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import TABLE, Chapter, Inputs


def inputs(name: str, config: Config, study: str) -> Inputs:
    """Return the measurements of a benchmark and the published figures."""
    measured = f"measured/{study}/{name}"
    return {
        "measured": f"{measured}.csv",
        "about": f"{measured}.json",
        "reported": sources.reported(config, study),
    }


def present(name: str, config: Config, study: str) -> bool:
    """Return whether the study has the benchmark."""
    return getattr(config.study(study).benchmarks, name) is not None


def chapter(
    name: str, figures: Mapping[str, str], *, printed: bool = False, facts: bool = False
) -> Chapter:
    """Return the declaration of a benchmark's chapter.

    Args:
        printed: whether the paper prints its table.
        facts: whether it has facts.
    """
    return Chapter(
        name,
        partial(inputs, name),
        figures=figures,
        tables={name: TABLE},
        unprinted=() if printed else (name,),
        facts=name if facts else "",
        present=partial(present, name),
        remedy=f"give it a section benchmarks.{name} in config.yaml",
    )
