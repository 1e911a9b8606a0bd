"""Declaration of the chapter samples: images of a study after preprocessing."""

from typing import Any

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import Chapter, Inputs


def inputs(config: Config, study: str) -> Inputs:
    """Return the file that ends the shard set."""
    return {"shards": sources.shards(study)}


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return the marks of the images."""
    synthetic = config.study(config.owner(study)).source.synthetic
    return {"marks": {"synthetic": synthetic, "stand_in": False, "scale": config.scale}}


CHAPTER = Chapter(
    "samples",
    inputs,
    settings,
    figures={
        "samples": "Images of the study *{study}* after preprocessing and before augmentation. "
        "Where classes are few, there is a row for each."
    },
    shows_images=True,
)
