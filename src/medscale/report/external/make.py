"""The chapter external: trained runs on images of another origin."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.files import read_json
from medscale.evaluate.external import AVERAGES, averaged
from medscale.report.external import figures
from medscale.report.external.figures import Outside
from medscale.report.names import OVER, label
from medscale.report.result.reading import Result, read_csv, read_result, records
from medscale.report.tables import around, left, right, short_name, table
from medscale.report.writer import Pages

METRICS = ("auroc", "balanced_accuracy", "accuracy")
ENDS = {"": "mean", "_low": "low", "_high": "high"}


def make(
    study: str,
    *,
    external: Sequence[str],
    inside: Sequence[str],
    held_out: Sequence[str],
    splits: Mapping[str, Sequence[str]],
) -> Pages:
    """Return the figures, tables and facts of the chapter."""
    results = {result.name: result for result in map(read_result, inside)}
    sets = [_read(Path(folder), results) for folder in external]
    variants = [read_result(folder) for folder in held_out]
    rows = pd.DataFrame(
        [*map(_set_row, sets), *(_held_out_row(v, results[v.name], splits) for v in variants)]
    )
    points = pd.DataFrame([row for outside in sets for row in _point_rows(outside)])
    summaries = [outside.summary for outside in sets] + [v.summary for v in variants]
    return Pages(
        marks=[summary["marks"] for summary in summaries],
        figures={"external": figures.inside_outside(rows), "external_scores": figures.scores(sets)},
        tables={"external": (_table(rows), rows), "external_points": points},
        facts={"sets": [_facts(outside) for outside in sets], **_summary(rows)},
    )


def _read(folder: Path, results: Mapping[str, Result]) -> Outside:
    summary = read_json(folder / "summary.json")
    names = ("distribution", "reliability", "operating")
    read = {name: read_csv(folder / f"{name}.csv") for name in names}
    return Outside(summary=summary, inside=results[summary["run"]["name"]], **read)


def _set_row(outside: Outside) -> dict[str, Any]:
    """Return inside, outside and difference of the metrics on an external set."""
    summary = outside.summary
    row = _head("external set", summary["title"], summary)
    shifts = {line["metric"]: line for line in summary["shift"]}
    for metric in METRICS:
        for side in ("inside", "outside", "difference"):
            for ending in ENDS:
                row[f"{metric}_{side}{ending}"] = _float(shifts[metric][f"{side}{ending}"])
    return row


def _held_out_row(
    variant: Result, result: Result, splits: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return the metrics on a source: of a network trained with it (inside), and without it.

    The difference of an average over classes is NaN if the two averages are over different classes.
    """
    column, value = splits[variant.summary["study"]]
    row = _head("held out", f"{column}: {value}", variant.summary)
    parts = result.subgroups
    of_source = parts[(parts["by"] == column) & (parts["part"] == value)].set_index("metric")
    for metric in METRICS:
        score = variant.score(metric)
        for ending, key in ENDS.items():
            is_evaluated = metric in of_source.index
            row[f"{metric}_inside{ending}"] = of_source.loc[metric, key] if is_evaluated else np.nan
            row[f"{metric}_outside{ending}"] = _float(score[key])
            row[f"{metric}_difference{ending}"] = np.nan
        if not metric.startswith(AVERAGES) or _same_classes(variant, of_source):
            row[f"{metric}_difference"] = row[f"{metric}_outside"] - row[f"{metric}_inside"]
    return row


def _same_classes(variant: Result, of_source: pd.DataFrame) -> bool:
    """Return whether averages over classes are over the same in a variant and in a subgroup."""
    summary = variant.summary
    classes, left_out = summary["classes"], summary.get("not_averaged", [])
    inside = {classes[code] for text in of_source["classes"] for code in json.loads(text)}
    return inside == averaged(classes, summary["confusion"], left_out)


def _head(kind: str, title: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    counts = summary["counts"]["test"]
    return {
        "kind": kind,
        "set": title,
        "run": summary["run"]["name"],
        "images": counts["images"],
        "groups": counts["groups"],
    }


def _point_rows(outside: Outside) -> list[dict[str, Any]]:
    """Return sensitivity and specificity inside and outside at the same thresholds."""
    rows = []
    pairs = zip(records(outside.inside.operating), records(outside.operating), strict=True)
    for inside, row_outside in pairs:
        row = {"set": outside.summary["title"], "run": outside.inside.name}
        row |= {name: inside[name] for name in ("class", "wanted", "threshold")}
        for rate in ("sensitivity", "specificity"):
            for ending in ENDS:
                row[f"{rate}_inside{ending}"] = inside[f"{rate}{ending}"]
                row[f"{rate}_outside{ending}"] = row_outside[f"{rate}{ending}"]
        rows.append(row)
    return rows


def _facts(outside: Outside) -> dict[str, Any]:
    """Return the facts of an external set for the paper."""
    summary = outside.summary
    shifts = {line["metric"]: line for line in summary["shift"]}
    names = ("auroc", "balanced_accuracy", "ece", "ece_calibrated", "calibration_slope")
    scores = {
        name: {
            side: {key: shifts[name][f"{side}{ending}"] for ending, key in ENDS.items()}
            for side in ("inside", "outside", "difference")
        }
        for name in names
        if name in shifts
    }
    keys = ("title", "missing", "copies", "patients", "same_patients")
    overlaps = [sum((summary[key] or {}).values()) for key in ("copies", "same_patients")]
    return {
        **{key: summary[key] for key in keys},
        **{key: summary["counts"]["test"][key] for key in ("images", "groups")},
        "overlap": max(overlaps),  # images that the study has too, or whose patient it has
        "label": label(summary["run"]["name"]),
        "over": OVER[summary["patients"]],
        "scores": scores,
        "points": _point_rows(outside)[:1] if len(summary["classes"]) == 2 else [],
    }


def _summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the held-out sources, and the one whose AUROC falls most, if any falls."""
    held_out = rows[rows["kind"] == "held out"]
    fallen = held_out[held_out["auroc_difference"] < 0]
    differences = fallen["auroc_difference"].to_numpy()
    worst = fallen.iloc[differences.argmin()] if len(fallen) else None
    return {
        "sources": list(dict.fromkeys(held_out["set"])),  # a source has a row for each run
        "worst": None
        if worst is None
        else {
            "set": worst["set"],
            "label": label(worst["run"]),
            "inside": float(worst["auroc_inside"]),
            "outside": {key: float(worst[f"auroc_outside{e}"]) for e, key in ENDS.items()},
        },
    }


def _float(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _table(rows: pd.DataFrame) -> str:
    """Return metrics inside and outside of each external set and held-out source."""
    columns = [
        left("images from", lambda row: short_name(row["set"])),
        left("run", lambda row: short_name(label(row["run"]))),
        right("images", lambda row: str(row["images"])),
        right(r"AUROC\\inside", lambda row: around(row, "auroc_inside", 3)),
        right(r"AUROC\\outside", lambda row: around(row, "auroc_outside", 3)),
        right(r"outside minus\\inside", lambda row: around(row, "auroc_difference", 3)),
        right(
            r"balanced accuracy\\inside (\%)",
            lambda row: around(row, "balanced_accuracy_inside", 1, 100),
        ),
        right(
            r"balanced accuracy\\outside (\%)",
            lambda row: around(row, "balanced_accuracy_outside", 1, 100),
        ),
    ]
    return table(records(rows), columns)
