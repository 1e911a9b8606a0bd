"""What the paper says of a study: its numbers by key, and its structure (classes, runs, settings), as one JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from medscale.config.configuration import Config
from medscale.config.sections import Study
from medscale.data.kind import load_kind
from medscale.engine.plan import Augment
from medscale.engine.run import RunSpec
from medscale.evaluate.metrics import in_percent
from medscale.report.latex import number, significant, span
from medscale.report.marks import mark
from medscale.report.names import label
from medscale.report.results import Result, differences, records


def facts(
    name: str,
    settings: Study,
    results: Sequence[Result],
    speedups: pd.DataFrame,
    counts: pd.DataFrame,
    audit: dict[str, Any],
    reported: pd.DataFrame,
    further: Sequence[str] = (),
) -> dict[str, Any]:
    """``structure`` (plain text, escaped by the template) and ``values`` (LaTeX by key, below ``<study>/``)."""
    first = results[0].summary
    structure = {
        "name": name,
        "title": settings.title,
        "classes": results[0].classes,
        "positive": results[0].classes[-1] if len(results[0].classes) == 2 else None,
        "source": settings.source.kind,
        "dataset": load_kind(settings.source.kind).paper,
        "synthetic": settings.source.synthetic,
        "split": settings.split.mode,
        "balance": settings.split.balance,
        "further": list(further),
        "profiled": [
            {"name": run, "label": label(run)} for run in dict.fromkeys(settings.profile.runs)
        ],
        "augmented": _augmented(settings.augment),
        "crop": _crop(settings.augment),
        "network_cite": _cite(settings.model.name),
        "networks": _networks(results),
        "preprocess": settings.preprocess.model_dump(mode="json"),
        "augment": settings.augment.model_dump(mode="json"),
        "recipe": settings.recipe.model_dump(mode="json"),
        "model": settings.model.model_dump(mode="json"),
        "baseline": {"name": settings.baseline, "label": label(settings.baseline)},
        "runs": [
            {
                "name": r.name,
                "label": label(r.name),
                **{k: r.summary["marks"][k] for k in ("stand_in", "synthetic")},
            }
            for r in results
        ],
        "seeds": first["seeds"],
        "repeated": len(first["seeds"]) > 1,
        "marks": [
            dict(pair) for pair in {tuple(sorted(r.summary["marks"].items())) for r in results}
        ],
        "mark": mark(r.summary["marks"] for r in results),
        "notes": [str(note) for note in audit.get("notes", [])],
        "excluded": audit["found"] - audit["used"],
        "reported": not reported.empty,
        "communication_measured": all(
            r.summary["timing"]["communication_measured"] for r in results
        ),
        "hardware": sorted(set(speedups["hardware"])),
        "speedup_notes": _notes(speedups),
        "fastest": _fastest(speedups),
        "no_baseline": speedups.loc[speedups["baseline"] == "", "run"].map(label).tolist(),
        "different": _different(results, settings.baseline),
        "collapsed": [label(r.name) for r in results if r.collapsed],
    }
    structure["marks"].sort(key=str)
    values = (
        _settings(settings, first)
        | _data(counts, audit, first)
        | _scores(results, settings.baseline)
    )
    values |= _speed(speedups)
    return {
        "structure": structure,
        "values": {f"{name}/{key}": value for key, value in sorted(values.items())},
    }


def _settings(settings: Study, first: dict[str, Any]) -> dict[str, str]:
    recipe, split, augment = settings.recipe, settings.split, settings.augment
    values: dict[str, float | int | None] = {
        "size": settings.preprocess.size,
        "gamma": settings.preprocess.gamma,
        "median": settings.preprocess.median,
        "epochs": recipe.epochs,
        "batch": recipe.batch_size,
        "lr": recipe.lr,
        "weight_decay": recipe.weight_decay,
        "clip_norm": recipe.clip_norm,
        "warmup_epochs": recipe.warmup_epochs,
        "patience": recipe.patience,
        "split/train": 100 * split.train,
        "split/val": 100 * split.val,
        "split/test": 100 * split.test,
        "augment/rotate": augment.rotate,
        "augment/brightness": 100 * augment.brightness,
        "augment/contrast": 100 * augment.contrast,
        "augment/minority": augment.minority,
        "seeds": len(first["seeds"]),
        "resamples": first["bootstrap"]["resamples"],
    }
    if settings.detect is not None:
        values |= {"detect/size": settings.detect.size, "detect/epochs": settings.detect.epochs}
    if settings.preprocess.clahe is not None:
        values |= {
            "clahe/clip": settings.preprocess.clahe.clip_limit,
            "clahe/tiles": settings.preprocess.clahe.tiles,
        }
    return {key: f"{value:g}" for key, value in values.items() if value is not None}


def _augmented(augment: Augment) -> list[str]:
    """The random changes of training images, in words."""
    said = (
        (augment.rotate, f"rotations of up to {augment.rotate:g} degrees"),
        (augment.hflip, "mirror images"),
        (augment.vflip, "upside-down images"),
        (augment.brightness, f"brightness by up to {100 * augment.brightness:g} %"),
        (augment.contrast, f"contrast by up to {100 * augment.contrast:g} %"),
        (augment.gamma, f"gamma by a factor of up to {1 + augment.gamma:g}"),
        (
            augment.noise,
            f"normal noise of a standard deviation of up to {augment.noise:g} of white",
        ),
        (
            augment.minority > 1,
            f"all of these {augment.minority:g} times as strong for small classes",
        ),
    )
    return [text for wanted, text in said if wanted]


def _crop(augment: Augment) -> str:
    """Which part of an image the network sees, in words; empty for the whole."""
    if (crop := augment.crop) is None:
        return ""
    how = {
        "random": "a random square",
        "resized": f"a random part of at least {100 * crop.smallest:g} % of the image, brought to a square",
    }[crop.mode]
    return f"{how} of {crop.size} pixels in training, and the middle square in evaluation"


def _cite(model: str) -> str:
    """Key of the paper that a network comes from; empty where the methods name it."""
    keys = {
        "efficientnet": "tan2019efficientnet",
        "densenet": "huang2017densenet",
        "resnet": "he2016resnet",
    }
    return next((key for name, key in keys.items() if name in model), "")


def _networks(results: Sequence[Result]) -> list[dict[str, str]]:
    """Networks that runs name in place of the study's own, each once."""
    names = dict.fromkeys(RunSpec.parse(result.name).model for result in results)
    return [{"name": name, "cite": _cite(name)} for name in names if name]


def varied(config: Config, study: str) -> dict[str, bool]:
    """What a study's variants change: the split, the trained layers, further input, the number of replicates.

    ``frozen``: one trains only a part of a network that no pretraining gave weights.
    """
    own, others = config.study(study), [config.study(name) for name in config.variants(study)]
    return {
        "split": any(one.split != own.split for one in others),
        "trained": any(one.model.trained != own.model.trained for one in others),
        "metadata": any(one.model.metadata != own.model.metadata for one in others),
        "seeds": any(
            config.seeds_of(name) != config.seeds_of(study) for name in config.variants(study)
        ),
        "frozen": any(one.model.trained != "all" and not one.model.pretrained for one in others),
    }


def _data(counts: pd.DataFrame, audit: dict[str, Any], first: dict[str, Any]) -> dict[str, str]:
    values = {
        "found": audit["found"],
        "used": audit["used"],
        "excluded": audit["found"] - audit["used"],
    }
    values |= {f"images/{split}": int(counts[split].sum()) for split in ("train", "val", "test")}
    values |= {f"groups/{split}": first["counts"][split]["groups"] for split in ("val", "test")}
    values["classes"] = len(counts)
    return {key: str(value) for key, value in values.items()}


def _scores(results: Sequence[Result], baseline: str) -> dict[str, str]:
    values = {}
    apart = {row["run"]: row for row in records(differences(results, baseline))}
    for result in results:
        for metric, score in result.summary["metrics"]["test"].items():
            scale, digits = (100, 1) if in_percent(metric) else (1, 3)
            key = f"{result.name}/{metric}"
            values[key] = number(score["mean"], digits, scale)
            values[f"{key}/interval"] = span(score["low"], score["high"], digits, scale)
            values[f"{key}/sd"] = number(score["seed_sd"], digits, scale)
        row = apart[result.name]
        values[f"{result.name}/difference"] = number(row["mean"], 1)
        values[f"{result.name}/difference/interval"] = span(row["low"], row["high"], 1)
        confusion = result.confusion
        if len(confusion) == 2:
            recall = result.per_class[result.per_class["metric"] == "recall"]
            for name, of_class in zip(("specificity", "sensitivity"), records(recall), strict=True):
                values[f"{result.name}/{name}"] = number(of_class["mean"], 1, 100)
                values[f"{result.name}/{name}/interval"] = span(
                    of_class["low"], of_class["high"], 1, 100
                )
    best = max(results, key=lambda r: r.score("accuracy")["mean"])
    worst = min(results, key=lambda r: r.score("accuracy")["mean"])
    extremes = {
        "best/accuracy": values[f"{best.name}/accuracy"],
        "worst/accuracy": values[f"{worst.name}/accuracy"],
    }
    return values | extremes


def _speed(speedups: pd.DataFrame) -> dict[str, str]:
    values: dict[str, str] = {}
    if (best := _fastest(speedups)) is not None:
        values["fastest/speedup"] = number(best["speedup"], 2)
    for row in records(speedups):
        run = row["run"]
        values |= {
            f"{run}/seconds": significant(row["seconds"]),
            f"{run}/images_per_second": significant(row["images_per_second"]),
            f"{run}/speedup": number(row["speedup"], 2),
            f"{run}/speedup/range": span(row["speedup_low"], row["speedup_high"], 2),
            f"{run}/efficiency": number(row["efficiency"], 2),
            f"{run}/amp_gain": number(row["amp_gain"], 2),
            f"{run}/global_batch": str(row["global_batch"]),
            f"{run}/threads": str(row["threads"]),
        }
    return values


def _notes(speedups: pd.DataFrame) -> list[dict[str, str]]:
    """Remarks on comparisons of times, each once, with the runs it is about."""
    said = speedups[speedups["note"] != ""].groupby("note", sort=False)["run"]
    return [
        {"note": str(note), "runs": "; ".join(label(run) for run in runs)} for note, runs in said
    ]


def _fastest(speedups: pd.DataFrame) -> dict[str, Any] | None:
    """The run on several devices with the largest speedup over the serial one of its kind; None without such a run."""
    several = [
        row for row in records(speedups) if row["devices"] > 1 and row["speedup"] == row["speedup"]
    ]
    if not several:
        return None
    best = max(several, key=lambda row: float(row["speedup"]))
    named = {"label": label(best["run"]), "baseline": label(best["baseline"])}
    return {"run": best["run"], "speedup": best["speedup"], **named}


def _different(results: Sequence[Result], baseline: str) -> list[str]:
    """Runs whose accuracy differs from the baseline's: the paired interval leaves out zero."""
    table = differences(results, baseline)
    outside = (table["low"] > 0) | (table["high"] < 0)
    return [label(run) for run in table.loc[outside & (table["run"] != baseline), "run"]]
