"""The content of summary.json: settings, metrics and times of a run over its replicates."""

import math
from typing import Any

import numpy as np
import pandas as pd

from medscale.base.provenance import gather, phases
from medscale.evaluate.assessment import SEED, Assessment, over_seeds
from medscale.evaluate.bootstrap import LEVEL
from medscale.evaluate.by_fold import Folds
from medscale.evaluate.calibration import BINS
from medscale.evaluate.evaluation import Evaluation
from medscale.evaluate.replicates import Replicate

# Columns of history.csv, in seconds; the first three add up to an epoch's training time.
KINDS = ("data", "compute", "communication", "checkpoint", "validation")
FORMAT_UNKNOWN = "format not recorded"  # in runs of versions before 2026-11
MAX_CONFUSIONS = 10  # most frequent confusions
CLOCKS = ["seconds_per_epoch", "first_epoch_seconds", "images_per_second"]
CLOCKS += ["images_per_second_first_epoch", "wall_seconds", "device_seconds"]
CLOCKS += ["epochs", "best_epoch", "restarts"]


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of summary.json of a classification; undefined values are None."""
    folds = {} if evaluation.folds is None else {"folds": _folds(evaluation.folds)}
    return plain(describe(evaluation) | assessment_content(evaluation) | folds)


def assessment_content(assessment: Assessment) -> dict[str, Any]:
    """Return the part of summary.json about the predictions for a set of images."""
    summary: dict[str, Any] = {
        **metric_content(assessment),
        "classes": assessment.classes,
        "not_averaged": assessment.not_averaged,
        "confusion": assessment.confusion.tolist(),
        "evaluate": assessment.settings.model_dump(mode="json"),
    }
    summary["calibration"] = {
        "fitted_on": "val",
        "temperature": float(np.mean(assessment.temperatures)),
        "temperatures": assessment.temperatures,
        "bins": BINS,
    }
    tables = {
        "operating": assessment.operating,
        "subgroups": assessment.subgroups,
        "gaps": assessment.gaps,
        "confusions": assessment.confusions.head(MAX_CONFUSIONS),
    }
    return summary | {name: table.to_dict("records") for name, table in tables.items()}


def metric_content(evaluation: Any) -> dict[str, Any]:
    """Return counts, patients, bootstrap settings and metrics of an Assessment or Localization."""
    return {
        "counts": evaluation.counts,
        "patients": evaluation.patients,
        "bootstrap": {
            "resamples": len(evaluation.resamples),
            "unit": "group",
            "level": LEVEL,
            "seed": SEED,
            "paired_with": evaluation.paired_with,
        },
        "metrics": _metrics(evaluation.scores),
    }


def describe(evaluation: Any) -> dict[str, Any]:
    """Return the part of summary.json that classification and detection share.

    Args:
        evaluation: an Evaluation or a Localization.

    Returns:
        Content for JSON, in which undefined values are NaN; ``plain`` turns them into None.
    """
    replicates, plan = evaluation.replicates, evaluation.replicates[0].plan
    return {
        "study": plan.study,
        "run": {"name": plan.run.name, **plan.run.model_dump(mode="json")},
        "marks": {"synthetic": plan.synthetic, "stand_in": plan.stand_in, "scale": plan.scale},
        "backend": plan.backend,
        "format": format_of(replicates),
        "nodes": plan.nodes,
        "model": plan.model.model_dump(mode="json"),
        "batch_norm": replicates[0].batch_norm,
        "recipe": plan.recipe.model_dump(mode="json"),
        "parallel": plan.parallel.model_dump(mode="json"),
        "augment": plan.augment.model_dump(mode="json"),
        "detect": plan.detect.model_dump(mode="json") if plan.detect is not None else None,
        "global_batch": plan.global_batch,
        "learning_rate": plan.learning_rate,
        "seeds": list(dict.fromkeys(replicate.plan.seed for replicate in replicates)),
        "replicates": [replicate.plan.replicate for replicate in replicates],
        **metric_content(evaluation),
        "timing": timing(replicates),
        "environment": replicates[0].environment,
        "provenance": gather(
            [replicate.environment for replicate in replicates], evaluation.inputs
        ),
    }


def format_of(replicates: list[Replicate]) -> str:
    """Return the number format of a run's training: fp32, tf32, bf16 or fp16.

    If trainings were in different formats, on different devices, a slash joins the names.
    """
    records = [phase for r in replicates for phase in phases(r.environment)]
    return "/".join(sorted({record.get("format", FORMAT_UNKNOWN) for record in records}))


def timing(replicates: list[Replicate]) -> dict[str, Any]:
    """Return times, memory (MB), energy (joules) and use of GPUs (%) of a run's training.

    Each quantity has the ``values`` of the replicates, and their ``mean, sd, low, high`` (Student's
    t). ``seconds_by_kind`` are means over ``Replicate.timed_epochs``.
    """
    clocks: dict[str, Any] = {
        name: _spread([r.timing[name] for r in replicates]) for name in CLOCKS
    }
    timed = [r.timed_epochs() for r in replicates]
    clocks["seconds_by_kind"] = {
        kind: _spread([float(h[f"{kind}_s"].mean()) for h in timed]) for kind in KINDS
    }
    for name in ("world_size", "threads_per_rank", "global_batch", "train_images"):
        clocks[name] = replicates[0].timing[name]
    clocks["hardware"] = [r.timing["hardware"] for r in replicates]
    clocks["communication_measured"] = all(
        r.timing.get("communication_measured", True) for r in replicates
    )
    memory = [r.timing["peak_memory_mb"] for r in replicates]
    clocks["peak_memory_mb"] = {
        memory_kind: _spread([max(m[memory_kind]) for m in memory])
        if all(m[memory_kind] for m in memory)
        else None
        for memory_kind in ("host", "device")
    }
    energy = [r.timing["energy_joules"] for r in replicates]
    clocks["energy_joules"] = None if None in energy else _spread(energy)
    uses = [r.timing.get("gpu_use_percent") or [] for r in replicates]  # of each rank's GPU
    means = [sum(use) / len(use) for use in uses if use]
    clocks["gpu_use_percent"] = _spread(means) if all(uses) else None
    clocks["stopped"] = [r.timing["stopped"] for r in replicates]
    return clocks


def one_line(summary: dict[str, Any]) -> str:
    """Return a result as one line for the terminal."""
    test, clock = summary["metrics"]["test"], summary["timing"]["seconds_per_epoch"]["mean"]
    names = {"map50": "mAP50", "map_challenge": "challenge mAP"}
    if not summary.get("detect"):
        names = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "auroc": "AUROC"}
    parts = [_score(name, test[metric], metric) for metric, name in names.items()]
    parts.append(f"{clock:.3g} s an epoch")
    text = f"{summary['run']['name']:<18} {', '.join(parts)} in {summary['format']}"
    words = {"synthetic": "synthetic", "stand_in": "stand-in"}
    flags = [word for key, word in words.items() if summary["marks"][key]]
    return f"{text}  [{', '.join(flags)}]" if flags else text


def replicate_scores(summary: dict[str, Any], metric: str) -> list[float | None]:
    """Return a metric of each replicate on its test images; with folds, on those of its fold."""
    folds = summary.get("folds")
    if folds is not None:
        return list(folds["metrics"][metric]["replicates"])
    return list(summary["metrics"]["test"][metric]["values"])


def plain(value: Any) -> Any:
    """Replace NaN and infinity by None in nested dictionaries and lists, since JSON lacks them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _metrics(scores: pd.DataFrame) -> dict[str, dict[str, Any]]:
    names = ["mean", "low", "high", "seed_sd", "seed_low", "seed_high"]
    seeds = [column for column in scores.columns if column.endswith("_value")]
    by_split: dict[str, dict[str, Any]] = {}
    for row in scores.to_dict("records"):
        values: dict[str, Any] = {name: float(row[name]) for name in names}
        values |= {"values": [float(row[seed]) for seed in seeds]}
        by_split.setdefault(str(row["split"]), {})[str(row["metric"])] = values
    return by_split


def _folds(folds: Folds) -> dict[str, Any]:
    """Return the number of folds, and for each metric the spread over folds and the values.

    ``values`` are means over seeds by fold; ``replicates`` are the values of each seed and fold,
    in the order of the summary's replicates.
    """
    seeds = [name for name in folds.scores if str(name).endswith("_value")]
    spread = folds.spread.set_index("metric").to_dict("index")
    by_metric: dict[str, Any] = {}
    for metric, rows in folds.scores.groupby("metric", sort=False):
        by_metric[str(metric)] = spread[metric] | {
            "values": rows["value"].tolist(),
            "replicates": rows[seeds].to_numpy().T.ravel().tolist(),
        }
    return {"count": int(folds.scores["fold"].max()), "metrics": by_metric}


def _spread(values: list[float]) -> dict[str, Any]:
    return over_seeds(values) | {"values": [float(v) for v in values]}


def _score(name: str, score: dict[str, float | None], metric: str) -> str:
    percent = metric.endswith("accuracy")
    mean, low, high = (
        "" if value is None else f"{100 * value:.1f}" if percent else f"{value:.3f}"
        for value in (score[key] for key in ("mean", "low", "high"))
    )
    interval = f"{low}–{high}" if low and high else "interval undefined"
    return f"{name} {mean}{' %' if percent else ''} ({interval})" if mean else f"{name} undefined"
