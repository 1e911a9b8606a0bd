"""Detection runs: the result folder of one, and the figure and table of all that a study has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import read_json, write_csv, write_json, write_text
from medscale.data.shards import Shards
from medscale.evaluate.detection import Localization
from medscale.evaluate.summary import describe, plain
from medscale.measure.scaling import speedups
from medscale.report import style
from medscale.report.detection import figures as box_figures
from medscale.report.latex import escape, number, significant, span, stacked, tabular
from medscale.report.marks import mark
from medscale.report.names import label
from medscale.report.overview import tables
from medscale.report.result import figures as run_figures
from medscale.report.result.card import model_card
from medscale.report.result.folder import Further, whole_folder
from medscale.report.result.reading import records

SHOWN = 8  # images in boxes.pdf
EMPTY_EVERY = 4  # of which each fourth has no true box
LOSS = (("loss", "loss (box + class + distribution)"),)
SCORES = ("map50", "map_challenge", "precision", "recall")


def write_detection(
    localization: Localization, shards: Shards, folder: str | Path, further: Further | None = None
) -> dict[str, Any]:
    """Write ``results/<study>/<run>/`` of a detection run and return the content of its summary.json.

    ``boxes.csv`` holds what ``boxes.pdf`` draws: ``id, kind`` (true or predicted), ``x, y, width, height, confidence``
    of some test images; an image without any box stands there with an empty kind.

    Raises:
        MedscaleError: when the folder cannot be written.
    """
    summary = summarise(localization)
    run, seen = summary["run"]["name"], mark([summary["marks"]])
    drawn = sample(localization, shards)
    with whole_folder(Path(folder)) as new:
        write_csv(new / "metrics.csv", localization.scores)
        write_csv(new / "curves.csv", localization.curves)
        write_csv(new / "pr.csv", localization.precision_recall)
        write_csv(new / "resamples.csv", localization.resamples)
        write_csv(new / "boxes.csv", drawn)
        style.save(run_figures.curves(localization.curves, run, LOSS), new / "curves.pdf", seen)
        style.save(box_figures.boxes(drawn, images(shards, drawn), run), new / "boxes.pdf", seen)
        point = {name: summary["metrics"]["test"][name]["mean"] for name in ("recall", "precision")}
        style.save(
            box_figures.precision_recall(localization.precision_recall, point, run),
            new / "pr.pdf",
            seen,
        )
        write_text(new / "model_card.md", model_card(summary, None))
        write_json(new / "summary.json", summary)
        if further is not None:
            further(new, summary)
    return summary


def summarise(localization: Localization) -> dict[str, Any]:
    """The content of summary.json of a detection run; a value that is undefined is null."""
    said = describe(
        localization.replicates,
        localization.counts,
        localization.scores,
        localization.resamples,
        localization.paired_with,
        localization.inputs,
    )
    return plain(said | {"thresholds": localization.thresholds})


def sample(localization: Localization, shards: Shards) -> pd.DataFrame:
    """True and predicted boxes of some test images, spread over the ids, as ``boxes.csv``."""
    ids = np.sort(shards.ids[shards.positions("test")])
    there = np.isin(ids, localization.true["id"])
    empty = _spread(ids[~there], SHOWN // EMPTY_EVERY)
    chosen = np.sort(np.concatenate([_spread(ids[there], SHOWN - len(empty)), empty]))
    parts = [
        part[part["id"].isin(chosen)].assign(kind=kind)
        for kind, part in (("true", localization.true), ("predicted", localization.predicted))
    ]
    table = pd.concat(parts, ignore_index=True)
    bare = pd.DataFrame(
        {"id": [one for one in chosen if one not in set(table["id"])], "kind": ""}
    ).astype({"id": int})
    columns = ["id", "kind", "x", "y", "width", "height", "confidence"]
    return (
        pd.concat([table, bare], ignore_index=True)
        .reindex(columns=columns)
        .sort_values("id", kind="stable")
    )


def images(shards: Shards, drawn: pd.DataFrame) -> dict[int, np.ndarray]:
    """The images (uint8, H,W,3) that a boxes.csv is of, by id.

    Raises:
        MedscaleError: when the shards have no such image.
    """
    ids = np.unique(drawn["id"].to_numpy(np.int64))
    places = pd.Index(shards.ids).get_indexer(ids)
    if (places < 0).any():
        raise MedscaleError(
            f"{shards.folder} has no image {ids[places < 0][0]}; it was made from another index"
        )
    return dict(zip(ids.tolist(), shards.gather(places), strict=True))


@dataclass(frozen=True)
class Detected:
    """A detection run's result folder, read back."""

    name: str
    summary: dict[str, Any]
    boxes: pd.DataFrame


def write_detection_report(
    results: Sequence[Path], shards: Shards, figures: Path, tables_to: Path
) -> None:
    """Write ``figures/<study>/detection.pdf`` and ``tables/<study>/detection.tex|csv``.

    Raises:
        MedscaleError: when a result folder is missing a file.
    """
    found = [_read(folder) for folder in results]
    seen = mark([result.summary["marks"] for result in found])
    drawn = images(shards, pd.concat([result.boxes for result in found]))
    style.save(
        box_figures.detection([(r.summary, r.boxes) for r in found], drawn),
        figures / "detection.pdf",
        seen,
    )
    tables.write(tables_to, "detection", *table([result.summary for result in found]))


def table(summaries: Sequence[dict[str, Any]]) -> tuple[str, pd.DataFrame]:
    """Scores on the test images, seconds an epoch and speedup of detection runs, as LaTeX and with every digit."""
    times = {row["run"]: row for row in records(speedups(summaries))}
    rows, flat = [], []
    for summary in summaries:
        name, test = summary["run"]["name"], summary["metrics"]["test"]
        time = times[name]
        dagger = tables.DAGGER if summary["marks"]["stand_in"] else ""
        cells = [escape(label(name)) + dagger]
        record: dict[str, Any] = {"run": name, "devices": summary["run"]["devices"]}
        for metric in SCORES:
            score = test[metric]
            cells.append(f"{number(score['mean'], 3)} ({span(score['low'], score['high'], 3)})")
            record |= {f"{metric}_{key}": score[key] for key in ("mean", "low", "high", "seed_sd")}
        cells += [significant(time["seconds"]), number(time["speedup"], 2)]
        keys = (
            "seconds",
            "seconds_low",
            "seconds_high",
            "speedup",
            "speedup_low",
            "speedup_high",
            "baseline",
            "note",
        )
        flat.append(
            record | {"stand_in": summary["marks"]["stand_in"]} | {key: time[key] for key in keys}
        )
        rows.append(cells)
    heads = ("mAP50", r"challenge\\mAP", "precision", "recall", r"s an\\epoch", "speedup")
    return tabular([("l", "run"), *[("r", stacked(head)) for head in heads]], rows), pd.DataFrame(
        flat
    )


def _read(folder: Path) -> Detected:
    summary = read_json(folder / "summary.json")
    try:
        drawn = pd.read_csv(folder / "boxes.csv", dtype={"kind": str}).fillna({"kind": ""})
    except (OSError, ValueError) as error:
        raise MedscaleError(
            f"{folder / 'boxes.csv'} cannot be read ({error}); delete {folder} and run again"
        ) from None
    return Detected(summary["run"]["name"], summary, drawn)


def _spread(ids: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of the ids, evenly spread."""
    return ids[np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int))]
