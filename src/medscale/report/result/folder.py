"""A run's result folder: summary, tables, figures and model card, put in place whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import atomic, sync_folder, write_csv, write_json, write_text
from medscale.evaluate import metrics
from medscale.evaluate.evaluation import Evaluation
from medscale.evaluate.replicates import Gallery
from medscale.evaluate.summary import summarise
from medscale.report import style
from medscale.report.marks import mark
from medscale.report.names import label
from medscale.report.quality import figures as quality_figures
from medscale.report.result import figures as run_figures
from medscale.report.result import gallery as gallery_figures
from medscale.report.result.card import model_card
from medscale.report.result.reading import records

Further = Callable[
    [Path, dict[str, Any]], None
]  # writes more into a new folder, given it and summary.json's content


def write_result(
    evaluation: Evaluation,
    folder: str | Path,
    gallery: Gallery | None = None,
    further: Further | None = None,
) -> dict[str, Any]:
    """Write ``results/<study>/<run>/`` and return the content of its summary.json; without a gallery no Grad-CAM.

    Raises:
        MedscaleError: when the folder cannot be written.
    """
    summary = summarise(evaluation)
    summary["gradcam"] = (
        None if gallery is None else {"cases": len(gallery.cases), "why_none": gallery.why}
    )
    with whole_folder(Path(folder)) as new:
        _tables(evaluation, new)
        _figures(evaluation, summary, new)
        if gallery is not None:
            write_csv(new / "gradcam.csv", gallery.cases)
            for name in ("heat", "images"):
                with (
                    atomic(new / f"gradcam_{name}.npy") as temporary,
                    open(temporary, "wb") as file,
                ):
                    np.save(file, getattr(gallery, name), allow_pickle=False)
            drawing = gallery_figures.gallery(
                gallery, f"{label(summary['run']['name'])}: test images"
            )
            style.save(drawing, new / "gradcam.pdf", mark([summary["marks"]]))
        write_text(new / "model_card.md", model_card(summary, evaluation.per_class))
        write_json(new / "summary.json", summary)
        if further is not None:
            further(new, summary)
    return summary


def _tables(evaluation: Evaluation, folder: Path) -> None:
    confusion = pd.DataFrame(evaluation.confusion, columns=evaluation.classes)
    confusion.insert(0, "true class", evaluation.classes)
    tables = {
        "metrics": evaluation.scores,
        "per_class": evaluation.per_class,
        "confusion": confusion,
        "confusions": evaluation.confusions,
        "roc": evaluation.roc,
        "pr": evaluation.precision_recall,
        "reliability": evaluation.reliability,
        "operating": evaluation.operating,
        "subgroups": evaluation.subgroups,
        "curves": evaluation.curves,
        "resamples": evaluation.resamples,
    }
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)


def _figures(evaluation: Evaluation, summary: dict[str, Any], folder: Path) -> None:
    run, per_class = summary["run"]["name"], evaluation.per_class
    figures = {
        "curves": run_figures.curves(evaluation.curves, run),
        "confusion": run_figures.confusion(evaluation.confusion, evaluation.classes, run),
        "roc": run_figures.roc(
            evaluation.roc,
            evaluation.precision_recall,
            [areas(summary, per_class, area) for area in metrics.AREAS],
            run,
            records(evaluation.operating),
        ),
        "quality": quality_figures.quality(
            evaluation.reliability, evaluation.subgroups, summary["metrics"]["test"], run
        ),
    }
    for name, figure in figures.items():
        style.save(figure, folder / f"{name}.pdf", mark([summary["marks"]]))


def areas(summary: dict[str, Any], per_class: pd.DataFrame, area: str) -> dict[str, float]:
    """Area (auroc or auprc) by name of curve, where it is defined."""
    rows = per_class[(per_class["metric"] == area) & per_class["mean"].notna()]
    found = {str(row["class"]): float(row["mean"]) for row in rows.to_dict("records")}
    test = summary["metrics"]["test"]
    for name, key in (("macro average", area), ("micro average", f"{area}_micro")):
        if key in test and test[key]["mean"] is not None:
            found[name] = test[key]["mean"]
    return found


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that replaces it when all went well, and vanishes when not.

    Raises:
        MedscaleError: when the folder cannot be written.
    """
    try:
        temporary = folder.parent / f".{folder.name}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise MedscaleError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
