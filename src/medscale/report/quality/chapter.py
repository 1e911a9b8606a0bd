"""Declaration of the chapter quality: how far a study's results can be trusted."""

from typing import Any

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import TABLE, Chapter


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return the baseline and the margin within which accuracies count as equal."""
    section = config.study(study)
    return {"baseline": section.baseline, "margin": section.evaluate.margin}


CHAPTER = Chapter(
    "quality",
    sources.predictions,
    settings,
    figures={
        "assessment": "The baseline of *{study}* on the test images: confusion (percent of the "
        "true class), ROC and precision-recall curves (thick: mean over seeds), accuracy against "
        "confidence, and net benefit by threshold probability.",
        "pr": "Precision against recall of each run of *{study}* on the test images. Thick: mean "
        "over seeds; thin: each seed.",
        "calibration": "How far probabilities of *{study}* can be trusted: accuracy against "
        "confidence of the baseline, and calibration error and Brier score of each run before and "
        "after the temperature that was fitted on the validation images. Bars are 95 % intervals; "
        "chance makes the calibration error of few images too large, so that it lies near the "
        "upper end of its interval. The interval of a Brier score is too narrow for a network with "
        "hardly any error.",
        "subgroups": "The baseline of *{study}* by subgroup of the test images (number in "
        "brackets) with 95 % intervals.",
        "gaps": "Sensitivity and specificity of the baseline of *{study}* by subgroup of the test "
        "images, at the first operating point, with 95 % intervals.",
    },
    tables=dict.fromkeys(
        ("tests", "operating", "calibration", "gaps", "confusions", "ensemble"), TABLE
    ),
    unprinted=("tests", "calibration", "gaps", "confusions", "ensemble"),
    facts="quality",
)
