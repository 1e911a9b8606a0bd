"""A run's result folder: summary, tables, figures and model card, put in place whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from medscale.errors import MedscaleError
from medscale.evaluate.evaluation import Evaluation
from medscale.evaluate.summary import summarise
from medscale.files import sync_folder, write_csv, write_json, write_text
from medscale.report import run_figures, style
from medscale.report.card import model_card
from medscale.report.marks import mark

Further = Callable[[Path, dict[str, Any]], None]  # writes more into a new folder, given it and summary.json's content


def write_result(evaluation: Evaluation, folder: str | Path, further: Further | None = None) -> dict[str, Any]:
    """Write ``results/<study>/<run>/`` and return the content of its summary.json.

    Raises:
        MedscaleError: when the folder cannot be written.
    """
    summary = summarise(evaluation)
    run, seen = summary["run"]["name"], mark([summary["marks"]])
    confusion = pd.DataFrame(evaluation.confusion, columns=evaluation.classes)
    confusion.insert(0, "true class", evaluation.classes)
    with whole_folder(Path(folder)) as new:
        write_csv(new / "metrics.csv", evaluation.scores)
        write_csv(new / "per_class.csv", evaluation.per_class)
        write_csv(new / "confusion.csv", confusion)
        write_csv(new / "roc.csv", evaluation.roc)
        write_csv(new / "curves.csv", evaluation.curves)
        write_csv(new / "resamples.csv", evaluation.resamples)
        style.save(run_figures.curves(evaluation.curves, run), new / "curves.pdf", seen)
        style.save(run_figures.confusion(evaluation.confusion, evaluation.classes, run), new / "confusion.pdf", seen)
        style.save(run_figures.roc(evaluation.roc, areas(summary, evaluation.per_class), run), new / "roc.pdf", seen)
        write_text(new / "model_card.md", model_card(summary, evaluation.per_class))
        write_json(new / "summary.json", summary)
        if further is not None:
            further(new, summary)
    return summary


def areas(summary: dict[str, Any], per_class: pd.DataFrame) -> dict[str, float]:
    """AUROC by name of curve, where it is defined."""
    rows = per_class[(per_class["metric"] == "auroc") & per_class["mean"].notna()]
    found = {str(row["class"]): float(row["mean"]) for row in rows.to_dict("records")}
    test = summary["metrics"]["test"]
    for name, key in (("macro average", "auroc"), ("micro average", "auroc_micro")):
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
