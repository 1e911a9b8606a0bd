"""A study beside its variants: the same run with another split, other trained layers or further input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medscale.base.files import write_json
from medscale.config.configuration import Config
from medscale.report import style
from medscale.report.latex import escape, number, span, stacked, tabular
from medscale.report.marks import mark
from medscale.report.names import LOOKS, label
from medscale.report.overview import tables
from medscale.report.overview.make import read_config
from medscale.report.result.reading import Result, read_result
from medscale.report.variants.facts import facts

METRICS = (
    ("accuracy", "accuracy (%)", 100, 1),
    ("balanced_accuracy", "balanced accuracy (%)", 100, 1),
    ("auroc", "AUROC", 1, 3),
)
TRAINED = {"all": "all layers", "last_block": "last block", "last_layer": "last layer"}


def write_variants(
    study: str, config: Path, results: Sequence[Path], figures: Path, tables_to: Path
) -> None:
    """Write ``figures/<study>/variants.pdf``, ``tables/<study>/variants.tex|csv`` and ``variants.json``.

    Args:
        study: whose variants are shown.
        config: config.resolved.json.
        results: result folders ``results/<study or variant>/<run>``, those of the study itself first.
        figures: folder of the figures.
        tables_to: folder of the tables.

    Raises:
        MedscaleError: when an input is missing or damaged.
    """
    settings = read_config(config)
    found = [read_result(folder) for folder in results]
    names = _names(settings, study, found)
    style.save(
        figure(names, found),
        figures / "variants.pdf",
        mark(result.summary["marks"] for result in found),
    )
    tables.write(tables_to, "variants", *table(settings, names, found))
    write_json(tables_to / "variants.json", facts(settings, study, found))


@style.styled
def figure(names: Sequence[str], found: Sequence[Result]) -> Figure:
    """Accuracy, balanced accuracy and AUROC of the test images with bootstrap intervals, a row a variant."""
    drawing = style.new(0.9 + 0.28 * len(found))
    places = np.arange(len(found))[::-1]
    for axes, (metric, unit, scale, _) in zip(
        drawing.subplots(1, len(METRICS), sharey=True), METRICS, strict=True
    ):
        for number_, (place, result) in enumerate(zip(places, found, strict=True)):
            score = result.score(metric)
            if score["mean"] is None:
                continue
            mean, low, high = (scale * np.array([score[key]]) for key in ("mean", "low", "high"))
            look = LOOKS[number_ % len(LOOKS)]
            axes.errorbar(
                mean,
                place,
                xerr=style.errors(mean, low, high),
                color=look.colour,
                marker=look.marker,
                capsize=2,
            )
        axes.set(xlabel=unit)
    drawing.axes[0].set_yticks(places, [style.wrapped(name, 34) for name in names])
    drawing.axes[0].set_ylim(-0.6, len(found) - 0.4)
    return drawing


def table(
    config: Config, names: Sequence[str], found: Sequence[Result]
) -> tuple[str, pd.DataFrame]:
    """What differs and how well each does, as LaTeX and with every digit."""
    rows, flat = [], []
    for name, result in zip(names, found, strict=True):
        settings = config.study(result.summary["study"])
        images, seeds = result.summary["counts"]["test"]["images"], len(result.summary["seeds"])
        differs = [
            settings.split.mode,
            TRAINED[settings.model.trained],
            ", ".join(settings.model.metadata) or "none",
        ]
        record = {
            "study": result.summary["study"],
            "run": result.name,
            "test_images": images,
            "replicates": seeds,
        }
        record |= dict(zip(("split", "trained", "metadata"), differs, strict=True))
        cells = [escape(name), *map(escape, differs), str(images), str(seeds)]
        for metric, _, scale, digits in METRICS:
            score = result.score(metric)
            cells.append(
                f"{number(score['mean'], digits, scale)} ({span(score['low'], score['high'], digits, scale)})"
            )
            record |= {f"{metric}_{key}": score[key] for key in ("mean", "low", "high", "seed_sd")}
        rows.append(cells)
        flat.append(record)
    same = [
        place for place in range(1, 6) if len({row[place] for row in rows}) == 1
    ]  # columns that tell nothing apart
    rows = [["" if place in same else cell for place, cell in enumerate(row)] for row in rows]
    heads = (
        "test\\\\images",
        "repli-\\\\cates",
        "accuracy\\\\(\\%)",
        "balanced\\\\accuracy (\\%)",
        "AUROC",
    )
    words = (("l", "variant"), ("l", "split"), ("l", "trained"), ("l", "metadata"))
    return tabular([*words, *[("r", stacked(head)) for head in heads]], rows), pd.DataFrame(flat)


def _names(config: Config, study: str, found: Sequence[Result]) -> list[str]:
    """What each result is of, with its run where these differ."""
    own = [result.summary["study"] for result in found]
    words = ["as configured" if name == study else config.study(name).title for name in own]
    if len({result.name for result in found}) == 1:
        return words
    return [f"{what} ({label(result.name)})" for what, result in zip(words, found, strict=True)]
