"""The largest loss of accuracy: its possible causes, and the runs that separate them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.engine.run import RunSpec
from medscale.evaluate.verdicts import ALPHA, WITHIN, WORSE
from medscale.report.names import label
from medscale.report.result.reading import records
from medscale.report.synthesis.runs import BASELINE, StudyRuns, changed, compared


def largest_loss(studies: Sequence[StudyRuns], runs: pd.DataFrame) -> dict[str, Any] | None:
    """Return the facts of the run with the largest loss of accuracy; None where no run loses.

    The rules: a loss is established where its interval excludes zero and extends beyond the margin,
    the adjusted exact test rejects at 5 %, and the spread over seeds does not explain it.

    Among the other runs of the study, those that change a proper part of the factors
    (``runs.changed``) separate causes; for a factor that no run changes alone, the facts name a run
    that would do so. Runs that change all of the factors and more should lose as much: where each
    of them lies above the interval of the loss, the loss points to the chance of a training.
    ``changes`` are the factors and, where it differs, the kind of device, in words.
    """
    baselines = {row["study"]: row for row in records(runs[runs["verdict"] == BASELINE])}
    runs = compared(runs)
    losses = runs[runs["change"] < 0]
    if losses.empty:
        return None
    row = min(records(losses), key=lambda row: float(row["change"]))
    study = next(study for study in studies if study.name == row["study"])
    by_name = {member.name: member for member in studies}
    factors = changed(study, row["run"])
    other_runs = runs[(runs["study"] == study.name) & (runs["run"] != row["run"])]
    established = runs[(runs["verdict"] == WORSE) & (runs.index != losses["change"].idxmin())]
    device = [] if _device(row) == _device(baselines[study.name]) else ["the kind of device"]
    return {
        **_facts(row),
        "title": study.title,
        "name": study.name,
        "baseline": label(study.baseline),
        "established": row["verdict"] == WORSE,
        "within": row["verdict"] == WITHIN,
        "margin": study.margin,
        "replicates": row["replicates"],
        "others": [
            _facts(other)
            | {"title": other["title"], "replicates": other["replicates"]}
            | {"factors": list(changed(by_name[other["study"]], other["run"]).values())}
            for other in records(established)
        ],
        "rejected": bool(row["p"] < ALPHA),
        "factors": list(factors.values()),
        "changes": [*factors.values(), *device],
        "same_seeds": _have_same_seeds(study, row["run"]),
        "seed_sd": _seed_sd(study, row["run"]),
        "parts": _parts(study, other_runs, set(factors)),
        "wider": (wider := _wider(study, other_runs, set(factors))),
        "points_to_chance": bool(wider)
        and all(part["mean"] > row["change_high"] for part in wider),
        "lacking": _lacking(study, row["run"], factors, other_runs["run"].tolist()),
    }


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    """Return a run's difference in accuracy, in percentage points, with interval and p."""
    ends = {key: float(row[f"change{end}"]) for key, end in zip(KEYS, ENDS, strict=True)}
    p = float(row["p"])
    return {"run": row["run"], "label": label(row["run"]), **ends, "p": p if p == p else None}


KEYS, ENDS = ("mean", "low", "high"), ("", "_low", "_high")


def _parts(study: StudyRuns, other_runs: pd.DataFrame, factors: set[str]) -> list[dict[str, Any]]:
    """Return the other runs that change some, but not all, of the factors, and nothing further."""
    parts = []
    for row in records(other_runs):
        changes = changed(study, row["run"])
        if changes and set(changes) < factors:
            parts.append({**_facts(row), "factors": list(changes.values())})
    return parts


def _wider(study: StudyRuns, other_runs: pd.DataFrame, factors: set[str]) -> list[dict[str, Any]]:
    """Return the other runs that change all of the factors, and further ones."""
    return [
        _facts(row)
        for row in records(other_runs)
        if factors and set(changed(study, row["run"])) > factors
    ]


def _lacking(
    study: StudyRuns, run: str, factors: dict[str, str], runs: Sequence[str]
) -> list[dict[str, str]]:
    """Return runs that would separate a factor but do not exist, each with its factor.

    Precision and batch are separated by a run that changes them alone; the strategy by a run that
    changes all factors but these two, such as the images that batch normalization takes together.
    """
    existing = [set(changed(study, name)) for name in runs]
    separated = {"precision": {"precision"}, "batch": {"batch"}}
    separated["strategy"] = set(factors) - {"precision", "batch"}
    spec, base = RunSpec.parse(run), RunSpec.parse(study.baseline)
    candidates = {"precision": base.model_copy(update={"amp": spec.amp})}
    candidates["strategy"] = spec.model_copy(update={"amp": base.amp})
    if base.devices == 1:
        batch = study.summaries[run]["global_batch"]
        candidates["batch"] = base.model_copy(update={"batch": batch})
    lacking = []
    for factor, candidate in candidates.items():
        if factor not in factors or len(factors) == 1 or separated[factor] in existing:
            continue
        try:
            name = RunSpec.parse(candidate.name).name
        except MedscaleError:
            continue
        if name not in runs and name not in (run, study.baseline):
            lacking.append({"factor": factors[factor], "run": name})
    return lacking


def _device(row: dict[str, Any]) -> str:
    """Return the kind of device that computed a run: "cpu" for a stand-in for a GPU, too."""
    return "cpu" if row["stand_in"] else str(row["device"])


def _have_same_seeds(study: StudyRuns, run: str) -> bool:
    """Return whether a run was trained with the seeds of the baseline."""
    seeds, base_seeds = (study.summaries[name]["seeds"] for name in (run, study.baseline))
    return sorted(seeds) == sorted(base_seeds)


def _seed_sd(study: StudyRuns, run: str) -> float | None:
    """Return the larger standard deviation over seeds of run and baseline, in points."""
    deviations = [
        study.summaries[name]["metrics"]["test"]["accuracy"]["seed_sd"]
        for name in (run, study.baseline)
    ]
    points = [100 * value for value in deviations if value is not None and not np.isnan(value)]
    return max(points) if points else None
