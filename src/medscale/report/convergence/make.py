"""The chapter convergence: epochs and seconds to a target of each run, against the baseline's."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.files import read_json
from medscale.measure.scaling.convergence import (
    ALPHA,
    FEWEST,
    Comparison,
    Times,
    by_seed,
    compare,
    refuse_unreachable,
    times_to,
    untested_comparison,
)
from medscale.measure.scaling.target import METRICS, Target, factor_of, read_history, target_of
from medscale.report.convergence.figures import epochs_to_target
from medscale.report.convergence.tables import BASELINE, convergence
from medscale.report.marks import marks_of
from medscale.report.names import label
from medscale.report.sources import by_run, seed_of
from medscale.report.writer import Pages


def make(
    study: str,
    *,
    results: Sequence[str],
    histories: Sequence[str],
    baseline: str,
    target: dict[str, Any],
    margin: float,
) -> Pages:
    """Return the figure, the table and the facts of the chapter.

    Raises MedscaleError when an input is missing or damaged, or no replicate of the baseline
    reaches the target.
    """
    summaries = {
        summary["run"]["name"]: summary
        for summary in (read_json(Path(folder) / "summary.json") for folder in results)
    }
    paths = by_run(histories)
    read = {run: [read_history(path) for path in of_run] for run, of_run in paths.items()}
    level = target_of(read[baseline], **target)
    refuse_unreachable(read[baseline], level, study, baseline)
    times = {
        run: by_seed(
            times_to(read[run], level, summary["recipe"]["epochs"], summary["run"]["devices"]),
            list(map(seed_of, paths[run])),
        )
        for run, summary in summaries.items()
    }
    comparisons = {
        run: untested_comparison(BASELINE)
        if run == baseline
        else compare(times[run], times[baseline], margin)
        for run in summaries
    }
    rows = pd.DataFrame(
        [_row(summary, times[run], comparisons[run]) for run, summary in summaries.items()]
    )
    return Pages(
        marks=[marks_of(summary) for summary in summaries.values()],
        figures={"convergence": epochs_to_target(times, baseline, margin)},
        tables={"convergence": (convergence(rows), rows)},
        facts=_facts(summaries.values(), rows, level, target, margin, baseline),
    )


def _row(summary: Mapping[str, Any], times: Times, comparison: Comparison) -> dict[str, Any]:
    """Return the epochs and seconds of a run, and their comparison with the baseline's."""
    compared = comparison._asdict()
    difference = {
        f"difference{ending}": compared.pop(name)
        for name, ending in (("difference", ""), ("low", "_low"), ("high", "_high"))
    }
    pairs = zip(times.epochs, times.reached, strict=True)
    return {
        "run": summary["run"]["name"],
        "stand_in": summary["marks"]["stand_in"],
        "format": summary["format"],
        "global_batch": summary["global_batch"],
        "learning_rate": summary["learning_rate"],
        "planned": summary["recipe"]["epochs"],
        "replicates": len(times.epochs),
        "reached": int(times.reached.sum()),
        "epochs_by_replicate": " ".join(f"{'' if ok else '>'}{epoch:g}" for epoch, ok in pairs),
        **_spread("epochs", times.epochs),
        **_spread("seconds", times.seconds),
        **difference,
        **compared,
    }


def _spread(name: str, values: np.ndarray) -> dict[str, float]:
    return {
        name: float(values.mean()),
        f"{name}_low": float(values.min()),
        f"{name}_high": float(values.max()),
    }


def _facts(
    summaries: Iterable[Mapping[str, Any]],
    rows: pd.DataFrame,
    level: Target,
    target: Mapping[str, Any],
    margin: float,
    baseline: str,
) -> dict[str, Any]:
    """Return the facts of the chapter for the paper."""
    compared = rows[rows["run"] != baseline]
    verdicts = compared.groupby("verdict", sort=False)["run"]
    return {
        "metric": METRICS[level.metric],
        "target": level.words,
        "is_derived": target["value"] is None,
        "share": factor_of(level.metric, target["share"]),
        "margin": margin,
        "baseline": label(baseline),
        "fewest": FEWEST,
        "level": 1 - 2 * ALPHA,
        "with_folds": any("folds" in summary for summary in summaries),
        "has_intervals": bool(rows["difference_low"].notna().any()),
        "is_established": bool((rows["replicates"] >= FEWEST).all()),
        "verdicts": [
            {"verdict": str(verdict), "runs": [label(run) for run in runs]}
            for verdict, runs in verdicts
        ],
        "censored": [label(run) for run in rows["run"][rows["reached"] < rows["replicates"]]],
    }
