"""Declaration of the chapter gradcam: which parts of an image speak for the predicted class."""

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import Chapter, Inputs


def inputs(config: Config, study: str) -> Inputs:
    """Return the result folder of the baseline."""
    return {"result": sources.results(study, [config.study(study).baseline])[0]}


def present(config: Config, study: str) -> bool:
    """Return whether the study's results have Grad-CAM."""
    return config.study(study).evaluate.gradcam != "none"


CHAPTER = Chapter(
    "gradcam",
    inputs,
    figures={
        "gradcam": "Some of the baseline's most confident right and wrong test images of "
        "*{study}*, with the image parts that speak for the predicted class (Grad-CAM)."
    },
    shows_images=True,
    present=present,
    remedy="set its evaluate.gradcam to baseline or all in config.yaml",
)
