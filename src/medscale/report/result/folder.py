"""The result folder of a run: summary, tables, figures and model card, put in place whole."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medscale.base.errors import MedscaleError
from medscale.base.files import atomic, sync_folder, write_csv, write_json, write_text
from medscale.evaluate import metrics
from medscale.evaluate.assessment import Assessment
from medscale.evaluate.evaluation import Evaluation
from medscale.evaluate.replicates import Gallery
from medscale.evaluate.summary import summarise
from medscale.report import style
from medscale.report.marks import formats, mark, marks_of
from medscale.report.result import figures, quality
from medscale.report.result import gallery as gradcam
from medscale.report.result.card import model_card
from medscale.report.result.reading import records

# Writes further files into a new result folder, given the content of summary.json.
Further = Callable[[Path, dict[str, Any]], None]


def write_result(
    evaluation: Evaluation,
    folder: str | Path,
    gallery: Gallery | None = None,
    further: Further | None = None,
) -> dict[str, Any]:
    """Write the result folder of a classification run and return the content of summary.json.

    Raises MedscaleError when the folder cannot be written.

    Args:
        evaluation: scores, curves and tables.
        folder: ``results/<study>/<run>``.
        gallery: images with their Grad-CAM; without it the folder has none.
        further: writes the files that prediction needs.
    """
    summary = summarise(evaluation)
    summary["gradcam"] = (
        None if gallery is None else {"cases": len(gallery.cases), "why_none": gallery.reason}
    )
    with whole_folder(Path(folder)) as new, style.house():
        run = summary["run"]["name"]
        figure_by_name = {"curves": figures.curves(evaluation.curves, run)}
        figure_by_name |= drawings(evaluation, summary, run)
        if gallery is not None:
            figure_by_name["gradcam"] = gradcam.of_run(gallery, summary)
            write_csv(new / "gradcam.csv", gallery.cases)
            for name in ("heat", "images"):
                with atomic(new / f"gradcam_{name}.npy") as path, open(path, "wb") as file:
                    np.save(file, getattr(gallery, name), allow_pickle=False)
        content = tables(evaluation) | {"curves": evaluation.curves}
        if evaluation.folds is not None:
            content["folds"] = evaluation.folds.scores
        fill(new, summary, figure_by_name, content, evaluation.per_class, further)
    return summary


def _replace(folder: Path, new: Path, earlier: Path) -> None:
    """Rename ``new`` to ``folder``, which is renamed to ``earlier`` before.

    A removal instead would take time, in which the process can be killed with half of the folder.
    """
    with suppress(FileNotFoundError):
        os.replace(folder, earlier)
    try:
        os.replace(new, folder)
    except OSError as error:  # such as a folder that another process has put there meanwhile
        if earlier.exists() and not folder.exists():
            os.replace(earlier, folder)
        raise MedscaleError(
            f"{folder} cannot be replaced: {error.strerror or error}; give the command again"
        ) from error


def fill(
    folder: Path,
    summary: dict[str, Any],
    drawings: Mapping[str, Figure],
    tables: Mapping[str, pd.DataFrame],
    per_class: pd.DataFrame | None,
    further: Further | None,
) -> None:
    """Write figures with their mark, tables, model card and summary into a new result folder."""
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    marks = [marks_of(summary)]
    for name, figure in drawings.items():
        style.save(figure, folder / f"{name}.pdf", mark(marks), formats(marks))
    write_text(folder / "model_card.md", model_card(summary, per_class))
    if further is not None:
        further(folder, summary)
    # Last, since commands take a folder with it for a result, also one that a killed process left.
    write_json(folder / "summary.json", summary)


def tables(evaluation: Assessment) -> dict[str, pd.DataFrame]:
    """Return the tables of the predictions for a set of images, by the names of their files."""
    confusion = pd.DataFrame(evaluation.confusion, columns=evaluation.classes)
    confusion.insert(0, "true class", evaluation.classes)
    return {
        "metrics": evaluation.scores,
        "per_class": evaluation.per_class,
        "confusion": confusion,
        "confusions": evaluation.confusions,
        "roc": evaluation.roc,
        "pr": evaluation.precision_recall,
        "reliability": evaluation.reliability,
        "operating": evaluation.operating,
        "decision": evaluation.decision,
        "distribution": evaluation.distribution,
        "subgroups": evaluation.subgroups,
        "gaps": evaluation.gaps,
        "resamples": evaluation.resamples,
    }


def drawings(evaluation: Assessment, summary: dict[str, Any], run: str) -> dict[str, Figure]:
    """Return the figures of the predictions for a set of images, by the names of their files."""
    per_class = evaluation.per_class
    areas = [areas_of(summary, per_class, area) for area in metrics.AREAS]
    operating, test = records(evaluation.operating), summary["metrics"]["test"]
    return {
        "confusion": figures.confusion(evaluation.confusion, evaluation.classes, run),
        "roc": figures.roc(evaluation.roc, evaluation.precision_recall, areas, run, operating),
        "quality": quality.quality(evaluation.reliability, evaluation.subgroups, test, run),
    }


def areas_of(summary: dict[str, Any], per_class: pd.DataFrame, area: str) -> dict[str, float]:
    """Return an area (auroc or auprc) by name of curve, where it is defined."""
    rows = per_class[(per_class["metric"] == area) & per_class["mean"].notna()]
    areas = {str(row["class"]): float(row["mean"]) for row in records(rows)}
    test = summary["metrics"]["test"]
    for name, key in (("macro average", area), ("micro average", f"{area}_micro")):
        if key in test and test[key]["mean"] is not None:
            areas[name] = test[key]["mean"]
    return areas


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that replaces ``folder`` if the block ends without an error.

    Raises MedscaleError when the folder cannot be written.
    """
    temporary = folder.parent / f".{folder.name}.{os.getpid()}"
    earlier = folder.parent / f"{temporary.name}.earlier"
    try:
        for place in (temporary, earlier):
            shutil.rmtree(place, ignore_errors=True)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise MedscaleError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield temporary
        _replace(folder, temporary, earlier)
        sync_folder(folder.parent)
    finally:
        for place in (temporary, earlier):
            shutil.rmtree(place, ignore_errors=True)
