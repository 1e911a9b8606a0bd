"""Facts of the chapter on variants: accuracy of each run as configured and in each variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medscale.config.configuration import Config
from medscale.report.names import label
from medscale.report.result.reading import Result


def facts(config: Config, study: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return the facts of a study's variants.

    Args:
        config: the configuration.
        study: the study that the variants belong to.
        results: result folders of the study and its variants; those of the study come first.
    """
    runs: dict[str, dict[str, Any]] = {}
    for result in results:
        name, score = result.summary["study"], result.score("accuracy")
        accuracy = {key: score[key] for key in ("mean", "low", "high")}
        if name == study:
            own = {"label": label(result.name), "accuracy": accuracy, "variants": []}
            runs[result.name] = own
            continue
        variant = {"title": config.study(name).title, "collapsed": result.collapsed}
        runs[result.name]["variants"].append(variant | {"accuracy": accuracy})
    return {"runs": list(runs.values()), "changed": changed(config, study)}


def changed(config: Config, study: str) -> dict[str, bool]:
    """Return which settings a study's variants change.

    ``frozen``: a variant trains only a part of a network that begins with random weights.
    """
    own, names = config.study(study), config.variants(study)
    variants = [config.study(name) for name in names]
    return {
        "split": any(variant.split != own.split for variant in variants),
        "trained": any(variant.model.trained != own.model.trained for variant in variants),
        "metadata": any(variant.model.metadata != own.model.metadata for variant in variants),
        "seeds": any(config.seeds_of(name) != config.seeds_of(study) for name in names),
        "frozen": any(
            variant.model.trained != "all" and not variant.model.pretrained for variant in variants
        ),
    }
