"""Facts of the synthesis, for the paper's abstract, results and conclusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from medscale.engine.run import RunSpec
from medscale.evaluate.paired import fewest_patients
from medscale.evaluate.verdicts import BETTER, EQUAL, INCONCLUSIVE, UNSURE, WITHIN, WORSE
from medscale.report.names import label
from medscale.report.result.reading import records
from medscale.report.synthesis.causes import largest_loss
from medscale.report.synthesis.effects import EFFECTS, IMAGES, published_changes
from medscale.report.synthesis.losses import lost_time
from medscale.report.synthesis.runs import NETWORK, StudyRuns, compared, same_scores

# Verdicts in the order of the text: as they end "the accuracy is …", short and with their reason.
ORDER = {
    EQUAL: ("equal", "equal within the margin"),
    WITHIN: ("different within the margin", "different, but by less than the margin"),
    WORSE: ("lower", "lower"),
    BETTER: ("higher", "higher"),
    UNSURE: (
        "not established to differ",
        "not established to differ (the interval excludes zero, but the exact test does not reject "
        "or the difference does not exceed the spread over seeds)",
    ),
    INCONCLUSIVE: (
        "inconclusive",
        "inconclusive (the interval contains zero and extends beyond the margin, or the test set "
        "is too small for the margin)",
    ),
}

EFFECT = tuple(name for name in EFFECTS if name not in ("kind", *IMAGES))


def facts(
    studies: Sequence[StudyRuns], runs: pd.DataFrame, effects: pd.DataFrame, pairs: pd.DataFrame
) -> dict[str, Any]:
    """Return the facts; a fact about nothing (no parallel run, no other split) is null or 0.

    Args:
        runs: of ``runs.all_runs``.
        effects: of ``effects.split_effects``.
        pairs: of ``effects.published_pairs``.
    """
    margins = sorted({study.margin for study in studies})
    return {
        "margins": margins,
        "fewest_patients": fewest_patients(margins[0]),
        "too_few_patients": _too_few_patients(studies),
        **_speedups(runs),
        "repeated_stand_ins": _count(runs["same_as"] != ""),
        "another_network": _count(runs["verdict"] == NETWORK),
        "same_scores": [
            {"label": label(run), "of": label(other), "title": study.title}
            for study in studies
            for run, other in same_scores(study, runs).items()
        ],
        "not_comparable": _without_counterpart(runs),
        "shares": {
            "communication": _shares(studies, "communication", parallel_only=True),
            "data": _shares(studies, "data"),
        },
        "lost_time": lost_time(studies, runs),
        "cores": _cores(studies),
        "processes": _most_processes(runs),
        "reaching": {study.name: _reaching(study.tables["cost"]) for study in studies},
        **_tested(compared(runs)),
        "loss": largest_loss(studies, runs),
        **_leakage(effects),
        "published": _published(studies, pairs),
        "published_changes": published_changes(studies),
    }


def _speedups(runs: pd.DataFrame) -> dict[str, Any]:
    """Return the fastest parallel run, and the numbers of faster, slower and unrepeated ones.

    A speedup of CPU processes in place of GPUs says nothing about GPUs, so it is not counted.
    """
    with_speedup = runs[(runs["devices"] > 1) & runs["speedup"].notna()]
    parallel = with_speedup[~with_speedup["stand_in"].astype(bool)]
    return {
        "fastest": _fastest(parallel),
        "fastest_above_one": _fastest(parallel[parallel["speedup_low"] > 1]),
        "parallel": len(parallel),
        "parallel_stand_ins": len(with_speedup) - len(parallel),
        "faster": _count(parallel["speedup_low"] > 1),
        "slower": _count(parallel["speedup_high"] < 1),
        "unrepeated": _count(parallel["speedup_low"].isna()),
    }


def _leakage(effects: pd.DataFrame) -> dict[str, Any]:
    """Return the largest change of accuracy by another split.

    Beside it stands the largest change by parallel training in the same study.
    """
    splits = effects[effects["kind"] == "split"]
    leakage = _largest(splits)
    is_same_study = effects["title"] == (leakage["title"] if leakage else "")
    parallel_effect = _largest(effects[(effects["kind"] == "parallel") & is_same_study])
    return {
        "leakage": leakage,
        "other_splits": _but_largest(splits),
        "parallel_effect": parallel_effect,
        "leakage_is_larger": _is_larger(leakage, parallel_effect),
        "effects_overlap": _overlap(leakage, parallel_effect),
    }


def _too_few_patients(studies: Sequence[StudyRuns]) -> list[str]:
    """Return the titles of studies whose test set is too small to show equal accuracies."""
    return [
        study.title
        for study in studies
        if study.summaries[study.baseline]["counts"]["test"]["groups"]
        < fewest_patients(study.margin)
    ]


def _tested(tested: pd.DataFrame) -> dict[str, Any]:
    """Return the number of runs whose accuracy is compared, and their verdicts."""
    parallel = tested[tested["devices"] > 1]
    return {
        "tested": len(tested),
        "tested_once": _count(tested["replicates"] < 2),
        "tested_parallel": len(parallel),
        "verdicts": _verdicts(tested),
        "verdicts_parallel": _verdicts(parallel),
    }


def _verdicts(tested: pd.DataFrame) -> list[dict[str, Any]]:
    """Return how many runs have each verdict, all and with one seed; verdicts of no run go."""
    counts = tested["verdict"].value_counts()
    once = tested.loc[tested["replicates"] < 2, "verdict"].value_counts()
    everywhere = ""  # in place of a number, where all of several runs have the same verdict
    if len(counts) == 1 < len(tested):
        everywhere = "both" if len(tested) == 2 else "all"
    return [
        {
            "short": short,
            "words": words,
            "runs": int(counts[verdict]),
            "once": int(once.get(verdict, 0)),
            "everywhere": everywhere,
            "titles": list(dict.fromkeys(tested.loc[tested["verdict"] == verdict, "title"])),
        }
        for verdict, (short, words) in ORDER.items()
        if verdict in counts
    ]


def _fastest(parallel: pd.DataFrame) -> dict[str, Any] | None:
    """Return the run with the largest speedup; its interval is null with one replicate."""
    if parallel.empty:
        return None
    row = max(records(parallel), key=lambda row: float(row["speedup"]))
    ends = {key: row[f"speedup{end}"] for key, end in (("low", "_low"), ("high", "_high"))}
    return {
        "title": row["title"],
        "label": label(row["run"]),
        "speedup": row["speedup"],
        **{key: None if np.isnan(value) else value for key, value in ends.items()},
        "efficiency": row["efficiency"],
        "devices": int(row["devices"]),
    }


def _largest(effects: pd.DataFrame) -> dict[str, Any] | None:
    """Return the largest change of accuracy; None without one."""
    if effects.empty:
        return None
    row = max(records(effects), key=lambda row: abs(float(row["change"])))
    return _effect(row)


def _effect(row: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a change of accuracy; counts of images are null where not known.

    ``once`` says which of the two accuracies rests on one seed; it is empty if none does.
    """
    counts = {key: None if np.isnan(row[key]) else int(row[key]) for key in IMAGES}
    fewest, most = sorted((row["replicates"], row["replicates_other"]))
    once = "one seed each" if most < 2 else "one of the two with one seed" if fewest < 2 else ""
    return {key: row[key] for key in EFFECT} | counts | {"once": once}


def _but_largest(effects: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the changes of accuracy without the largest (``_largest``)."""
    largest = _largest(effects)
    changes = [_effect(row) for row in records(effects)]
    if largest in changes:
        changes.remove(largest)
    return changes


def _published(studies: Sequence[StudyRuns], pairs: pd.DataFrame) -> dict[str, Any]:
    """Return the numbers of published speedups by their position relative to ours.

    A published speedup lies above, below or inside the 95 % interval of the speedup that this study
    measured with the same configuration. ``stand_ins`` is the number of those that were measured on
    CPU processes in place of GPUs, which no other number contains.
    """
    of_stand_ins = pairs["stand_in"].astype(bool)
    stand_ins, pairs = _count(of_stand_ins), pairs[~of_stand_ins]
    published = pairs["speedup_reported"]
    return {
        "stand_ins": stand_ins,
        "pairs": len(pairs),
        "inside": _count(published.between(pairs["speedup_low"], pairs["speedup_high"])),
        "above": _count(published > pairs["speedup_high"]),
        "below": _count(published < pairs["speedup_low"]),
        "without": _count(pairs["speedup_low"].isna()),
        "studies": [study.name for study in studies if (pairs["title"] == study.title).any()],
    }


def _is_larger(leakage: dict[str, Any] | None, effect: dict[str, Any] | None) -> bool:
    """Return whether the interval of a change by another split lies beyond the other interval."""
    if leakage is None or effect is None:
        return False
    least = min(abs(leakage["change_low"]), abs(leakage["change_high"]))
    most = max(abs(effect["change_low"]), abs(effect["change_high"]))
    return bool(leakage["change_low"] * leakage["change_high"] > 0 and least > most)


def _overlap(leakage: dict[str, Any] | None, effect: dict[str, Any] | None) -> bool:
    """Return whether the intervals of two changes of accuracy overlap."""
    if leakage is None or effect is None:
        return False
    return bool(
        leakage["change_low"] <= effect["change_high"]
        and effect["change_low"] <= leakage["change_high"]
    )


def _cores(studies: Sequence[StudyRuns]) -> int | None:
    """Return the cores of the machine of every run; None where machines differ or do not say it."""
    environments = [s.get("environment", {}) for study in studies for s in study.summaries.values()]
    cores = {environment.get("cpus_machine") for environment in environments}
    return cores.pop() if len(cores) == 1 else None


def _most_processes(runs: pd.DataFrame) -> int:
    """Return the largest number of processes of a run that computes on CPUs; 0 without one."""
    on_cpus = runs[(runs["device"] == "cpu") | runs["stand_in"].astype(bool)]
    return int(on_cpus["devices"].max()) if len(on_cpus) else 0


def _reaching(cost: pd.DataFrame) -> int:
    """Return how many runs reach the target of their study with all replicates."""
    return _count(cost["reached"] == cost["replicates"]) if len(cost) else 0


def _without_counterpart(runs: pd.DataFrame) -> list[dict[str, str]]:
    """Return the runs without a speedup, with the device whose serial run the study lacks."""
    rows = runs[runs["speedup"].isna()]
    return [
        {"title": row["title"], "label": label(row["run"]), "lacking": f"1 {row['device'].upper()}"}
        for row in records(rows)
    ]


def _shares(
    studies: Sequence[StudyRuns], kind: str, *, parallel_only: bool = False
) -> dict[str, float] | None:
    """Return smallest and largest share of an epoch's time of a kind, and the number of ``runs``.

    Runs whose communication was not measured are left out of the shares of communication. None
    without a run.
    """
    shares = []
    for study in studies:
        for run, summary in study.summaries.items():
            timing = summary["timing"]
            measured = kind != "communication" or timing["communication_measured"]
            if not measured or (parallel_only and RunSpec.parse(run).devices < 2):
                continue
            seconds = {name: part["mean"] for name, part in timing["seconds_by_kind"].items()}
            shares.append(seconds[kind] / sum(seconds.values()))
    if not shares:
        return None
    return {"low": min(shares), "high": max(shares), "runs": len(shares)}


def _count(selection: pd.Series) -> int:
    return int(selection.sum())
