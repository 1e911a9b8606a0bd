"""The chapter profiling: time and memory of a training step, by kind of work."""

from collections.abc import Sequence

from medscale.report.profiling import figures, tables
from medscale.report.profiling.facts import facts
from medscale.report.profiling.reading import read_profiled
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
        facts=facts(runs, operators[1]),
    )
