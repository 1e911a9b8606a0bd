"""Declaration of the chapter variants: a study compared with itself, one setting changed."""

from typing import Any

from medscale.config.configuration import Config
from medscale.data.settings import Split
from medscale.report import sources
from medscale.report.chapter import TABLE, Chapter, Inputs


def inputs(config: Config, study: str) -> Inputs:
    """Return the results of the variants, after those of the same runs of the study itself."""
    runs = [
        (name, run)
        for name in sources.settings_variants(config, study)
        for run in config.study(name).runs
    ]
    variants = [folder for name, run in runs for folder in sources.results(name, [run])]
    return {"results": [*sources.results(study, (run for _, run in runs)), *variants]}


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return the title of the study and of each variant, and the settings that can differ."""
    sections = {
        name: config.study(name) for name in [study, *sources.settings_variants(config, study)]
    }
    return {
        "sections": {
            name: {
                "title": section.title,
                "split": _split(section.split),
                "trained": section.model.trained,
                "metadata": list(section.model.metadata),
            }
            for name, section in sections.items()
        },
        "changed": changed(config, study),
    }


def _split(split: Split) -> str:
    """Return the mode of a split, and the number of its folds."""
    return split.mode if split.folds is None else f"{split.mode}, {split.folds} folds"


def changed(config: Config, study: str) -> dict[str, bool]:
    """Return which settings a study's variants change.

    ``frozen``: a variant trains only a part of a network that begins with random weights.
    """
    own, names = config.study(study), sources.settings_variants(config, study)
    variants = [config.study(name) for name in names]
    return {
        "split": any(variant.split != own.split for variant in variants),
        "trained": any(variant.model.trained != own.model.trained for variant in variants),
        "metadata": any(variant.model.metadata != own.model.metadata for variant in variants),
        "seeds": any(config.seeds_of(name) != config.seeds_of(study) for name in names),
        "frozen": any(v.model.trained != "all" and not v.model.pretrained for v in variants),
    }


def present(config: Config, study: str) -> bool:
    """Return whether the study has variants."""
    return bool(sources.settings_variants(config, study))


CHAPTER = Chapter(
    "variants",
    inputs,
    settings,
    figures={
        "variants": "*{study}* compared with itself with one thing changed: the split, the trained "
        "layers, or metadata as further input. Test images differ where the split does; a higher "
        "accuracy on a leaking split is no skill."
    },
    tables={"variants": TABLE},
    facts="variants",
    present=present,
    remedy="give it a variant (a study with variant_of) in config.yaml",
)
