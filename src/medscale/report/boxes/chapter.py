"""Declaration of the chapter boxes: test images with the boxes of a study's detection runs."""

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import Chapter, Inputs
from medscale.report.detection.chapter import CHAPTER as DETECTION


def inputs(config: Config, study: str) -> Inputs:
    """Return the files that the chapter is made from."""
    return {
        "results": sources.detections(config, study),
        "shards": sources.shards(study, "shards_detect"),
    }


CHAPTER = Chapter(
    "boxes",
    inputs,
    figures={
        "detection": "True and predicted boxes on test images of *{study}*, and the scores of the "
        "runs that localize."
    },
    shows_images=True,
    present=DETECTION.present,
    remedy=DETECTION.remedy,
)
