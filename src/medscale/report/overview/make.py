"""The chapter overview: data, accuracy and time of a study's classification runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, read_table
from medscale.config.sections import Study
from medscale.data.index_file import read_index
from medscale.data.settings import SPLITS
from medscale.measure.scaling.speedup import speedups
from medscale.report.marks import marks_of
from medscale.report.overview import figures, tables
from medscale.report.overview.facts import facts
from medscale.report.overview.linear import Linear, read_linear
from medscale.report.overview.parity import parity
from medscale.report.reported import compare, read_reported
from medscale.report.result.reading import Result, in_format, read_result, records
from medscale.report.writer import Pages


def make(
    study: str,
    *,
    index: str,
    audit: str,
    counts: str,
    results: Sequence[str],
    reference: str,
    reported: str,
    kind: str,
    section: dict[str, Any],
    chapters: Sequence[str],
) -> Pages:
    """Return the figures, tables and facts of the chapter."""
    settings = Study.model_validate(section)
    runs, images = [read_result(folder) for folder in results], read_index(index)
    _check_classes(runs, index, list(images["label"].cat.categories))
    files = read_json(counts)
    by_class, reasons = _by_class(images), _reasons(Path(audit), files, len(images))
    times = speedups([result.summary for result in runs])
    reported_values = read_reported(reported, study)
    published = compare(reported_values, runs)
    marks = [marks_of(result.summary) for result in runs]
    data_marks = [result.summary["marks"] | {"stand_in": False} for result in runs]
    baseline = next(result for result in runs if result.name == settings.baseline)
    linear = read_linear(reference)
    return Pages(
        marks=marks,
        figures={
            "audit": (figures.audit(_fates(files, reasons), by_class), data_marks),
            **_run_figures(runs, baseline.name, times),
        },
        tables={
            "data": (
                tables.data(by_class, _groups(images), files["patients"]["state"]),
                by_class.reset_index().rename(columns={"label": "class"}),
            ),
            "audit": (tables.audit(reasons), reasons),
            **_run_tables(runs, baseline, linear, times),
            "reported": (tables.reported(published), published),
        },
        facts=facts(
            study, settings, runs, linear, times, images, by_class, files, published, chapters
        )
        | {
            "coinciding": figures.coinciding(runs),
            "groups_in_two_splits": _spans_splits(_groups(images)),
            "published": {key: reported_values.get(key) for key in ("hardware", "format")},
        },
    )


def _run_figures(runs: Sequence[Result], baseline: str, times: pd.DataFrame) -> dict[str, Figure]:
    """Return the figures of the runs, by name.

    Args:
        runs: all runs of the study.
        baseline: name of the run that the others are compared with.
        times: seconds an epoch and speedup of each run, from ``measure.scaling.speedup.speedups``.
    """
    return {
        "curves": figures.curves(runs),
        "accuracy": figures.accuracy(runs, baseline),
        "roc": figures.roc(runs),
        "confusion": figures.confusion(runs),
        "speedup": figures.speedup(times),
        "time": figures.time(runs),
    }


def _run_tables(
    runs: Sequence[Result], baseline: Result, linear: Linear, times: pd.DataFrame
) -> dict[str, Any]:
    """Return the tables of the runs, by name; ``times`` as in ``_run_figures``."""
    return {
        "results": tables.results(runs, baseline.name, linear),
        "parity": parity(runs, baseline.name),
        "per_class": (tables.per_class(baseline), in_format(baseline, baseline.per_class)),
        "timing": times,
    }


def _check_classes(runs: Sequence[Result], index: str, classes: list[str]) -> None:
    for result in runs:
        if result.classes != classes:
            raise MedscaleError(
                f"{result.folder} was evaluated for other classes than {index} has; "
                f"delete {result.folder.parent}"
            )


def _by_class(index: pd.DataFrame) -> pd.DataFrame:
    """Count images: a row for each class in its order, columns train, val, test."""
    table = index.groupby(["label", "split"], observed=False).size().unstack(fill_value=0)
    return table.reindex(columns=list(SPLITS), fill_value=0)


def _groups(index: pd.DataFrame) -> dict[str, int]:
    """Count patients or groups by split, and under ``all`` each once.

    Splits do not add up to ``all``: a group of a published split can be in two of them.
    """
    groups = index.groupby("split")["group"].nunique().reindex(list(SPLITS), fill_value=0)
    return {str(split): int(count) for split, count in groups.items()} | {
        "all": index["group"].nunique()
    }


def _spans_splits(groups: dict[str, int]) -> bool:
    """Return whether a group has images in several splits; ``groups`` is that of ``_groups``."""
    return sum(groups[split] for split in SPLITS) != groups["all"]


def _reasons(path: Path, counts: dict[str, Any], used: int) -> pd.DataFrame:
    """Count files by ``action`` and ``reason`` of audit.csv.

    Raises MedscaleError when audit.json counts files that audit.csv and the index do not have.
    """
    lines = read_table(path, dtype=str, keep_default_na=False)
    excluded = int((lines["action"] == "excluded").sum())
    if counts["used"] != used or counts["found"] != used + excluded:
        raise MedscaleError(
            f"{path}: {counts['found']} files were found, but {used} used and {excluded} excluded; "
            "index again"
        )
    grouped = lines.groupby(["action", "reason"], as_index=False).size()
    return grouped.rename(columns={"size": "files"}).sort_values(
        ["action", "files", "reason"], ascending=[True, False, True], ignore_index=True
    )


def _fates(counts: dict[str, Any], reasons: pd.DataFrame) -> dict[str, int]:
    """Return the number of files found, used, and left out for each reason."""
    excluded = records(reasons[reasons["action"] == "excluded"])
    return {"found": int(counts["found"]), "used": int(counts["used"])} | {
        f"left out: {row['reason']}": int(row["files"]) for row in excluded
    }
