"""Declaration of the chapter detection: the runs of a study that predict boxes."""

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import TABLE, Chapter, Inputs


def inputs(config: Config, study: str) -> Inputs:
    """Return the files that the chapter is made from."""
    return {"results": sources.detections(config, study)}


def present(config: Config, study: str) -> bool:
    """Return whether the study has detection runs."""
    return bool(config.study(study).detection_runs)


CHAPTER = Chapter(
    "detection",
    inputs,
    tables={"detection": TABLE},
    facts="detection",
    present=present,
    remedy="name runs of a detector, such as serial_1gpu_yolov8n, in its runs in config.yaml",
)
