"""Declaration of the chapter folds: the scores of a cross-validation, by fold and pooled."""

from typing import Any

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import TABLE, Chapter


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return the baseline."""
    return {"baseline": config.study(study).baseline}


def present(config: Config, study: str) -> bool:
    """Return whether the study is a cross-validation."""
    return config.study(study).split.folds is not None


CHAPTER = Chapter(
    "folds",
    sources.predictions,
    settings,
    figures={
        "folds": "Accuracy and AUROC of each run of *{study}* in cross-validation: pooled "
        "out-of-fold predictions with the 95 % bootstrap interval over patients (filled), mean "
        "over folds with the corrected interval of Nadeau and Bengio (open), ticks single folds."
    },
    tables=dict.fromkeys(("folds", "fold_tests"), TABLE),
    facts="folds",
    present=present,
    remedy="give it split.folds in config.yaml",
)
