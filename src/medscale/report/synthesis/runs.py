"""The table of all runs of all studies: speed, and accuracy compared with the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.files import read_json, read_table
from medscale.engine.run import RunSpec
from medscale.evaluate.verdicts import beyond_seeds, verdict

BASELINE, NETWORK = "baseline", "another network"  # verdicts of rows that compare no training
TEXT = ["run", "baseline", "note", "reading", "meant", "against", "quantity", "unit"]


@dataclass(frozen=True)
class StudyRuns:
    """A study: its settings, its results' summaries by run, and its tables by name."""

    name: str
    title: str
    baseline: str
    margin: float  # percentage points within which accuracies count as equal
    split: str
    personal: bool
    variants: dict[str, dict[str, str]]  # title and split of each variant
    summaries: dict[str, dict[str, Any]]
    audit: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def read_studies(
    studies: Mapping[str, dict[str, Any]],
    results: Sequence[str],
    audits: Sequence[str],
    tables: Sequence[str],
) -> list[StudyRuns]:
    """Read the inputs of the chapter; MedscaleError when a file is missing or damaged.

    The studies are in the order of ``audits``, as the settings have lost theirs.
    """
    summaries = [read_json(Path(folder) / "summary.json") for folder in results]
    by_study: dict[str, dict[str, pd.DataFrame]] = {name: {} for name in studies}
    for path in map(Path, tables):
        by_study[path.parent.name][path.stem] = _read(path)
    return [
        StudyRuns(
            name,
            **studies[name],
            summaries={s["run"]["name"]: s for s in summaries if s["study"] == name},
            audit=read_json(audit),
            tables=by_study[name],
        )
        for name, audit in ((Path(audit).parent.name, audit) for audit in audits)
    ]


def all_runs(studies: Sequence[StudyRuns]) -> pd.DataFrame:
    """Return a row for each classification run of each study.

    Columns: ``study, title, run, baseline`` (of the speedup), ``devices, device, amp, stand_in,
    format, replicates``, ``speedup, efficiency`` and ``change`` (accuracy minus the study's
    baseline's, in points), each with ``_low`` and ``_high`` (speedup: 95 % interval, NaN with one
    replicate; change: paired bootstrap), ``p`` (exact test, adjusted by Holm's method),
    ``verdict``: that of ``medscale.evaluate.verdicts``, or the reason why the row is no comparison
    of training, and ``same_as`` (``repeats``).
    """
    rows = [row for study in studies for row in _rows(study)]
    return pd.DataFrame(rows)


def _rows(study: StudyRuns) -> list[dict[str, Any]]:
    tests = study.tables["tests"]
    by_run = tests.set_index("run") if len(tests) else pd.DataFrame()
    rows = []
    for _, timing in study.tables["timing"].iterrows():
        run = str(timing["run"])
        row = {
            "study": study.name,
            "title": study.title,
            **{key: timing[key] for key in ("run", "baseline", "devices", "device", "amp")},
            "stand_in": bool(timing["stand_in"]),
            "format": timing["format"],
            "replicates": len(study.summaries[run]["seeds"]),
            "seconds": timing["seconds"],
        }
        for key in ("speedup", "efficiency"):
            ends = {"": key, "_low": f"{key}_ci_low", "_high": f"{key}_ci_high"}
            row |= {f"{key}{end}": timing[column] for end, column in ends.items()}
        row["same_as"] = repeats(study.summaries, run) if row["stand_in"] else ""
        rows.append(row | _change(by_run, study, run))
    return rows


def repeats(summaries: Mapping[str, dict[str, Any]], run: str) -> str:
    """Return the CPU run whose scores a stand-in repeats digit for digit; empty without such a run.

    On the same processes the two are the same computation, so the stand-in's accuracy is no second
    comparison with the baseline.
    """
    twin = RunSpec.parse(run).model_copy(update={"device": "cpu"}).name
    if twin not in summaries or _scores(summaries[run]) != _scores(summaries[twin]):
        return ""
    return twin


def _hits(summary: dict[str, Any]) -> list[Any]:
    """Return accuracy and AUROC by seed, which the last bits of a probability do not change."""
    scores = _scores(summary)
    return [scores.get(name) for name in ("accuracy", "auroc")]


def _scores(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the values of each metric on the test images, by seed."""
    return {name: score["values"] for name, score in summary["metrics"]["test"].items()}


def _change(tests: pd.DataFrame, study: StudyRuns, run: str) -> dict[str, Any]:
    """Return the difference in accuracy from the study's baseline, in percentage points."""
    if run == study.baseline:
        zero = dict.fromkeys(("change", "change_low", "change_high"), 0.0)
        return {**zero, "p": np.nan, "verdict": BASELINE}
    test: Any = tests.loc[run]
    low, high = float(test["accuracy_low"]), float(test["accuracy_high"])
    p, beyond = float(test["accuracy_p_holm"]), _beyond_seeds(study, run)
    words = verdict(str(test["reading"]), high, p, beyond=beyond)
    if study.summaries[run]["model"] != study.summaries[study.baseline]["model"]:
        words = NETWORK
    change = {"change": test["accuracy"], "change_low": low, "change_high": high}
    return {**change, "p": p, "verdict": words}


def _beyond_seeds(study: StudyRuns, run: str) -> bool:
    """Tell whether the difference in accuracy exceeds the spread over seeds."""
    values, base = (
        dict(zip(summary["seeds"], summary["metrics"]["test"]["accuracy"]["values"], strict=True))
        for summary in (study.summaries[run], study.summaries[study.baseline])
    )
    return beyond_seeds(values, base)


def same_scores(study: StudyRuns, runs: pd.DataFrame) -> dict[str, str]:
    """Return the compared runs of a study with another run's accuracy and AUROC in each seed.

    The other run precedes it in the study; stand-ins that ``repeats`` names are left out.

    Args:
        runs: of ``all_runs``.
    """
    own = runs[(runs["study"] == study.name) & (runs["same_as"] == "")]["run"].tolist()
    tested = compared(runs[runs["study"] == study.name])["run"].tolist()
    pairs = {}
    for run in tested:
        for other in own[: own.index(run)]:
            if _hits(study.summaries[run]) == _hits(study.summaries[other]):
                pairs[run] = other
                break
    return pairs


def compared(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``all_runs`` that compare ways of training the same network."""
    return runs[~runs["verdict"].isin([BASELINE, NETWORK]) & (runs["same_as"] == "")]


def changed(study: StudyRuns, run: str) -> dict[str, str]:
    """Return the differences of a run from the baseline, by factor, in words.

    Factors: ``strategy``, ``precision``, ``batch`` (global batch, with a learning rate that follows
    it), and ``statistics`` (images that batch normalization takes together).
    """
    spec, base = RunSpec.parse(run), RunSpec.parse(study.baseline)
    summary, base_summary = study.summaries[run], study.summaries[study.baseline]
    factors = {}
    if (spec.strategy, spec.devices, spec.mp) != (base.strategy, base.devices, base.mp):
        factors["strategy"] = "the strategy and the number of devices"
    if spec.amp != base.amp:
        factors["precision"] = "the precision"
    if summary["global_batch"] != base_summary["global_batch"]:
        sizes = f"{base_summary['global_batch']} to {summary['global_batch']}"
        factors["batch"] = f"the global batch ({sizes} images)"
        if summary["learning_rate"] != base_summary["learning_rate"]:
            factors["batch"] += ", and with it the learning rate"
    images = study.tables["parity"].set_index("run")["images"]
    if images[run] != images[study.baseline] and images.notna()[[run, study.baseline]].any():
        factors["statistics"] = (
            f"the images that batch normalization takes together ({images[study.baseline]:g} to "
            f"{images[run]:g})"
        )
    return factors


def _read(path: Path) -> pd.DataFrame:
    """Read a table of a chapter; one without rows can be an empty file."""
    if path.is_file() and not path.read_text(encoding="utf-8").strip():
        return pd.DataFrame()
    table = read_table(path, "make it again")
    text = table.columns.intersection(TEXT)
    table[text] = table[text].astype(object).fillna("")
    return table
