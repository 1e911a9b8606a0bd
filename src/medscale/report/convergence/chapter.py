"""Declaration of the chapter convergence: epochs and seconds to a target of each run."""

from typing import Any

from medscale.config.configuration import Config
from medscale.report import sources
from medscale.report.chapter import TABLE, Chapter, Inputs


def inputs(config: Config, study: str) -> Inputs:
    """Return the results of the compared runs and the histories of their replicates."""
    runs, seeds = config.convergence_runs(study), config.convergence_seeds(study)
    return {
        "results": sources.results(study, runs),
        "histories": [
            path for run in runs for path in sources.histories(config, study, run, seeds)
        ],
    }


def settings(config: Config, study: str) -> dict[str, Any]:
    """Return the baseline, the settings of the target, and the margin."""
    section = config.study(study)
    return {
        "baseline": section.baseline,
        "target": sources.target(config, study),
        "margin": section.convergence.margin,
    }


def present(config: Config, study: str) -> bool:
    """Return whether there is a run to compare with the baseline."""
    return len(config.convergence_runs(study)) > 1


CHAPTER = Chapter(
    "convergence",
    inputs,
    settings,
    figures={
        "convergence": "Epochs and time to the target of *{study}*: each replicate of each run, "
        "and the means. A replicate that does not reach the target stands at its last epoch."
    },
    tables={"convergence": TABLE},
    facts="convergence",
    present=present,
    remedy="give it a second run in config.yaml",
)
