"""The chapter profiling: time and memory of a training step, by kind of work."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from medscale.measure.profiling import bottleneck
from medscale.report.names import label
from medscale.report.profiling import figures, tables
from medscale.report.profiling.reading import PRODUCTS, Profiled, device, read_profiled
from medscale.report.writer import Pages


def make(study: str, *, folders: Sequence[str]) -> Pages:
    """Return figures, tables and facts; raise MedscaleError when a folder is missing or damaged."""
    runs = [read_profiled(folder) for folder in folders]
    operators = tables.operators(runs)
    return Pages(
        marks=[run.marks for run in runs],
        figures={
            "profile": figures.kinds(runs),
            "operators": figures.operators(runs),
            "memory": figures.memory(runs),
            "roofline": figures.roofline(runs),
        },
        tables={
            "profile": tables.kinds(runs),
            "operators": operators,
            "memory": tables.memory(runs),
            "roofline": tables.roofline(runs),
        },
        facts=_facts(runs, operators[1]),
    )


def _facts(profiles: Sequence[Profiled], operators: pd.DataFrame) -> dict[str, Any]:
    """Return the facts of a study's profiled runs; ``seconds`` are those of a step.

    Args:
        profiles: the profiled runs.
        operators: rows of the table of operators; a ``name`` ends with its kind in brackets where
            the operator mostly has another kind.
    """
    return {
        "marks": [profile.about["marks"] for profile in profiles],
        "has_kinds_in_brackets": bool(operators["name"].str.endswith(")").any()),
        "runs": [
            {
                "label": label(profile.name),
                "stand_in": profile.about["marks"]["stand_in"],
                "device": device(profile),
                "format": profile.about["format"],
                "seconds": profile.numbers.seconds,
                "images_per_second": profile.images_per_second,
                "slowdown": profile.numbers.slowdown,
                "bottleneck": limit(profile),
            }
            for profile in profiles
        ],
    }


def limit(profile: Profiled) -> str:
    """Return the sentence on what limits a run.

    A roofline names the limit of the operators that compute, so that the sentence on arithmetic
    gives their share of the traced step.
    """
    sentence = bottleneck.sentence(profile.numbers)
    if bottleneck.rule(profile.numbers) != "arithmetic":
        return sentence
    products = sum(float(profile.share(kind).mean()) for kind in PRODUCTS)
    bounded = f"its convolutions and products ({100 * products:.0f} % of the traced step)"
    sentence = sentence.replace("bounds the step: ", f"bounds {bounded}: ")
    return sentence.replace(" it is ", " the step is ")
