"""How far a study's results can be trusted: calibration, operating points, subgroups, tests between runs, ensembles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import write_json
from medscale.evaluate.ensembles import METRICS, Member, ensembles
from medscale.evaluate.evaluation import draws
from medscale.evaluate.paired import compare
from medscale.evaluate.replicates import Gallery, Predicted, read, read_index, same_run, together
from medscale.report import style
from medscale.report.marks import mark
from medscale.report.names import label
from medscale.report.overview import tables
from medscale.report.overview.make import read_config
from medscale.report.quality import figures as quality_figures
from medscale.report.quality import tables as quality_tables
from medscale.report.quality.facts import facts
from medscale.report.result import gallery as gallery_figures
from medscale.report.result.reading import Result, read_result


def write_quality(
    study: str,
    config: Path,
    index: Path,
    results: Sequence[Path],
    replicates: Mapping[str, Sequence[Path]],
    figures: Path,
    tables_to: Path,
) -> None:
    """Write the figures and tables of ``config.QUALITY_FIGURES|QUALITY_TABLES`` and ``tables/<study>/quality.json``.

    Args:
        study: its name.
        config: config.resolved.json.
        index: index.parquet.
        results: result folders of the classifications, in the order in which runs are shown.
        replicates: run folders by run.
        figures: folder of the figures.
        tables_to: folder of the tables.

    Raises:
        MedscaleError: when an input is missing, damaged, or does not fit the others.
    """
    settings = read_config(config).study(study)
    found = [read_result(folder) for folder in results]
    base = next(number for number, result in enumerate(found) if result.name == settings.baseline)
    members = _members(found, replicates, read_index(index))
    drawn = draws(members[0].predicted, found[0].summary["bootstrap"]["resamples"])
    margin = settings.evaluate.margin
    tests = compare([m.name for m in members], [m.predicted for m in members], base, margin, drawn)
    together_ = ensembles(members, drawn)
    baseline = found[base]
    seen = mark(result.summary["marks"] for result in found)
    style.save(quality_figures.precision_recall(found), figures / "pr.pdf", seen)
    style.save(quality_figures.calibration(found, baseline.name), figures / "calibration.pdf", seen)
    drawing = quality_figures.subgroups(baseline.subgroups, baseline.name)
    style.save(drawing, figures / "subgroups.pdf", mark([baseline.summary["marks"]]))
    tables.write(tables_to, "tests", quality_tables.tests(tests), tests)
    tables.write(
        tables_to, "operating", quality_tables.operating(baseline.operating), baseline.operating
    )
    tables.write(
        tables_to, "confusions", quality_tables.confusions(baseline.confusions), baseline.confusions
    )
    tables.write(tables_to, "ensemble", quality_tables.ensemble(together_), together_)
    write_json(tables_to / "quality.json", facts(baseline, tests, together_, margin))


def write_gallery(result: Path, figures: Path) -> None:
    """Write ``figures/<study>/gradcam.pdf`` from a result folder with a gallery.

    Raises:
        MedscaleError: when the folder has none.
    """
    found, summary = read_gallery(result), read_result(result).summary
    drawing = gallery_figures.gallery(found, f"{label(summary['run']['name'])}: test images")
    style.save(drawing, figures / "gradcam.pdf", mark([summary["marks"]]))


def read_gallery(folder: Path) -> Gallery:
    """The gallery of a result folder.

    Raises:
        MedscaleError: when a file of it is missing or damaged.
    """
    try:
        cases = pd.read_csv(
            folder / "gradcam.csv", dtype={"true": str, "predicted": str}, keep_default_na=False
        )
        heat, images = (
            np.load(folder / f"gradcam_{name}.npy", allow_pickle=False)
            for name in ("heat", "images")
        )
    except (OSError, ValueError) as error:
        raise MedscaleError(
            f"{folder} has no whole Grad-CAM ({error}); delete it and run again"
        ) from None
    told = read_result(folder).summary["gradcam"] or {}
    return Gallery(cases, heat, images, str(told.get("why_none", "")))


def _members(
    found: Sequence[Result], replicates: Mapping[str, Sequence[Path]], index: pd.DataFrame
) -> list[Member]:
    """Each run's test predictions, checked against the index and the results."""
    members: list[Member] = []
    for result in found:
        read_ = [read(folder) for folder in replicates[result.name]]
        same_run(read_)
        predicted: Predicted = together(read_, index, "test")
        if (
            result.summary["bootstrap"]["paired_with"]
            != found[0].summary["bootstrap"]["paired_with"]
        ):
            raise MedscaleError(
                f"{result.name} and {found[0].name} were evaluated on different test images; delete results/ and run "
                "again"
            )
        mean = {
            name: float(np.nan if (m := result.score(name)["mean"]) is None else m)
            for name in METRICS
        }
        members.append(
            Member(result.name, result.summary["model"]["name"], predicted, mean, result.resamples)
        )
    return members
