"""The chapter quality: calibration, operating points, subgroups, tests between runs, ensembles."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medscale.data.index_file import read_index
from medscale.evaluate.assessment import draws
from medscale.evaluate.ensembles import METRICS, Member, ensembles
from medscale.evaluate.paired import compare
from medscale.evaluate.replicates import read_predictions
from medscale.report.marks import marks_of
from medscale.report.quality import figures, tables
from medscale.report.quality.assessment import assessment
from medscale.report.quality.facts import facts
from medscale.report.result.reading import Result, check_paired, in_format, read_result
from medscale.report.sources import by_run
from medscale.report.writer import Pages


def make(
    study: str,
    *,
    index: str,
    results: Sequence[str],
    predictions: Sequence[str],
    baseline: str,
    margin: float,
) -> Pages:
    """Return the figures, tables and facts of the chapter."""
    runs = [read_result(folder) for folder in results]
    place = next(number for number, result in enumerate(runs) if result.name == baseline)
    base = runs[place]
    members = _members(runs, by_run(predictions), read_index(index))
    names, tested = [m.name for m in members], [m.predicted for m in members]
    resamples = draws(tested[0], runs[0].summary["bootstrap"]["resamples"])
    tests = compare(names, tested, place, margin, resamples)
    formats = {result.name: result.summary["format"] for result in runs}
    tests = tests.assign(format=[formats[run] for run in tests.get("run", ())])
    gains = ensembles(members, resamples)
    subgroups = figures.subgroups(base.subgroups)
    classes = tables.shown_classes(base.operating)
    return Pages(
        marks=[marks_of(result.summary) for result in runs],
        figures={
            "assessment": (assessment(base), [marks_of(base.summary)]),
            "pr": figures.precision_recall(runs),
            "calibration": figures.calibration(runs, base),
            "subgroups": (subgroups, [marks_of(base.summary)]),
            "gaps": (figures.gaps(base, classes), [marks_of(base.summary)]),
        },
        tables={
            "tests": tests,
            "operating": (tables.operating(base.operating), in_format(base, base.operating)),
            "calibration": tables.calibration(runs),
            "gaps": in_format(base, base.gaps),
            "confusions": in_format(base, base.confusions),
            "ensemble": gains,
        },
        facts=facts(base, tests, gains),
    )


def _members(
    runs: Sequence[Result], files: Mapping[str, Sequence[Path]], index: pd.DataFrame
) -> list[Member]:
    """Return each run's test predictions, checked against the index and the results."""
    members: list[Member] = []
    for result in runs:
        check_paired(result, runs[0])
        predicted = read_predictions([f.parent for f in files[result.name]], index)
        means = {name: result.score(name)["mean"] for name in METRICS}
        scores = {name: float(np.nan if mean is None else mean) for name, mean in means.items()}
        network = result.summary["model"]["name"]
        members.append(Member(result.name, network, predicted, scores, result.resamples))
    return members
