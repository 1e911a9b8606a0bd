"""Declaration of the chapter profiling: time and memory of a training step, by kind of work."""

from medscale.config.configuration import Config
from medscale.report.chapter import TABLE, Chapter, Inputs


def inputs(config: Config, study: str) -> Inputs:
    """Return the folders of the profiled runs."""
    runs = dict.fromkeys(config.study(study).profile.runs)
    return {"folders": [f"profiled/{study}/{run}" for run in runs]}


def present(config: Config, study: str) -> bool:
    """Return whether the study profiles runs."""
    return bool(config.study(study).profile.runs)


CHAPTER = Chapter(
    "profiling",
    inputs,
    figures={
        "profile": "Time of a training step of *{study}* by kind of work, a bar for each "
        "run and rank.",
        "operators": "The operators that take most of a training step of *{study}*.",
        "memory": "Memory that PyTorch allocated in the first traced steps of *{study}*.",
        "roofline": "Rooflines of each profiled run of *{study}* against the measured ceilings of "
        "its device.",
    },
    tables=dict.fromkeys(("profile", "operators", "memory", "roofline"), TABLE),
    facts="profile",
    present=present,
    remedy="name runs in its profile.runs in config.yaml",
)
