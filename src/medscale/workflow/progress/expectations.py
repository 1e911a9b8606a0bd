"""Expected seconds of each job of a study, by the cost model."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from medscale.base.errors import QUIET_VARIABLE, MedscaleError
from medscale.workflow.progress.state import Job

if TYPE_CHECKING:
    from medscale.workflow.graph import Graph

# Seconds of jobs that the cost model does not describe, measured in the demo on two cores without
# another load.
SECONDS = {
    "plan": 0.1,
    "config": 0.1,
    "demo_data": 3,
    "paper_pdf": 9,
}
SECONDS_OF_OTHERS = 2.0  # of a chapter of all studies


def announce(workflow: Any, graph: Graph, place: str) -> None:
    """Send the jobs that Snakemake will carry out, with their expected seconds, to its loggers.

    Call it before the first job. Medscale's display takes the list from the record; others print
    the number of jobs.

    Args:
        workflow: Snakemake's workflow with its graph of jobs. Only local jobs are silent: the
            messages of SLURM's jobs go to SLURM's logs, in which the causes of failures are
            looked up.
        graph: the configuration of the studies.
        place: the workdir as the titles of SLURM's jobs name it.
    """
    from medscale.resources.jobs import description

    executor, dag = workflow.executor_plugin.name, workflow.dag
    if executor != "local":
        os.environ.pop(QUIET_VARIABLE, None)
    expected = []
    for job in dag.needrun_jobs():
        if not job.rule.norun:
            name, wildcards = job.rule.name, dict(job.wildcards_dict)
            expected.append(Job(job.jobid, name, wildcards, seconds_of(graph, job)))
            expected[-1].needs = [needed.jobid for needed in dag.dependencies[job]]
            if executor == "slurm" and not job.is_local:
                expected[-1].title = description(name, wildcards, place)
    logging.getLogger("snakemake.logging").info(
        f"Jobs to carry out: {len(expected)}",
        extra={
            "medscale_jobs": expected,
            "medscale_keeps_going": workflow.execution_settings.keep_going,
            "medscale_place": place if executor == "slurm" else None,
        },
    )


def seconds_of(graph: Graph, job: Any) -> float:
    """Return the expected wall time of a job in seconds."""
    from medscale.workflow.why import job_cost

    rule, wildcards = job.rule.name, dict(job.wildcards_dict)
    if rule in SECONDS:
        return SECONDS[rule]
    try:
        minutes, *_ = job_cost(graph, rule, tuple(wildcards.items()), max(1, job.threads))
    except MedscaleError:  # `cost` has no entry for the device that the job needs
        minutes = 0.0
    return 60 * minutes or SECONDS_OF_OTHERS
