"""Submission of the graph's jobs to SLURM: resources of each rule, and commands that start jobs."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medscale.base.code import ROOT
from medscale.base.errors import EXIT_USER, MedscaleError, print_error
from medscale.base.text import terminal
from medscale.resources import jobs, site, slurm

if TYPE_CHECKING:
    from medscale.workflow.graph import Graph

DASK_SCRIPT = ROOT / "scripts" / "dask_workers.py"


def place_of(workdir: Path) -> str:
    """Return a workdir by its name in the titles of SLURM jobs: relative to the project's root."""
    return str(workdir.relative_to(ROOT) if workdir.is_relative_to(ROOT) else workdir)


class Submission:
    """The settings of Snakemake's rules for jobs in SLURM; without SLURM they change nothing.

    Args:
        graph: the checked configuration; a section ``cluster`` turns SLURM on.
        image: path of the container image of the jobs; None in a dry run without an image.
        deployment: Snakemake's deployment settings, which say whether jobs run in the image, and
            hold further arguments of Apptainer.
    """

    def __init__(self, graph: Graph, image: str | None, deployment: Any) -> None:
        in_image = any(method.name == "APPTAINER" for method in deployment.deployment_method)
        self._graph, self._config = graph, graph.config
        self._link, self._image = image, image if in_image else None
        self._arguments = deployment.apptainer_args
        self.place = place_of(graph.workdir)
        if self._config.cluster is not None:
            os.environ[slurm.PLACE_VARIABLE] = self.place
            # SLURM's signal before the time limit reaches all processes of a job. Training handles
            # it. Without this setting, which shells inherit, it would end Snakemake and the shells.
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def train_image(self, wildcards: Any) -> str | None:
        """Return the image of a training's job; None for a training on several nodes.

        On several nodes, ``start`` starts a container on each node, since ``srun`` does not run
        within a container.
        """
        several = self._graph.several_nodes(wildcards.study, wildcards.run)
        return None if several and self._config.cluster is not None else self._link

    def no_image(self, wildcards: Any) -> None:
        """Return None, the image of small jobs that run on a login node, outside the image.

        A function, since Snakemake's linter refuses rules whose image is the word None.
        """

    def start(self, wildcards: Any) -> str:
        """Return the prefix of a training's command: ``srun`` and the image for several nodes."""
        study, run = wildcards.study, wildcards.run
        if self._config.cluster is None or not self._graph.several_nodes(study, run):
            return ""
        needs = jobs.request(self._config, "train", {"study": study, "run": run})
        return jobs.srun(self._config.cluster, needs) + self._inside()

    def start_dask(self) -> str:
        """Return the prefix of a command whose Dask workers are SLURM jobs."""
        if self._config.cluster is None or not self._graph.dask_is_jobs:
            return ""
        settings = self._config.dask.model_copy(
            update={"slurm": self._dask_jobs() | self._config.dask.slurm}
        )
        command = [sys.executable, str(DASK_SCRIPT), "--dask", settings.model_dump_json()]
        command += ["--python", f"{self._inside()}python"] if self._image else []
        return f"{shlex.join(command)} -- {self._inside()}"

    def set_resources(self, rules: Iterable[Any]) -> None:
        """Set the resources of each of Snakemake's rules."""
        for rule in rules if self._config.cluster is not None else ():
            for name in jobs.RESOURCES:
                rule.resources[name] = self._resource(rule.name, name)

    def ready(self, executor: str) -> None:
        """Check the settings before the first job, and end jobs of a killed earlier Snakemake."""
        try:
            if executor == "slurm":
                for obstacle in site.check(self._config.cluster, self._config.node)[1]:
                    print(terminal(f"medscale: note: {obstacle}"), file=sys.stderr, flush=True)
                for job in slurm.end_orphans(ROOT, self.place):
                    message = f"medscale: cancelled a job of an earlier Snakemake: {job}"
                    print(terminal(message), file=sys.stderr, flush=True)
        except MedscaleError as error:
            print_error(error)
            raise SystemExit(EXIT_USER) from None

    def _resource(self, rule: str, name: str) -> Callable[..., Any]:
        """Return the function by which Snakemake computes one resource of a rule's job."""

        def value(wildcards: Any, attempt: int, threads: int = 1) -> Any:
            cluster = self._config.cluster
            assert cluster is not None
            names = dict(wildcards.items())
            folder = ROOT / slurm.LOGS / f"rule_{rule}" / "_".join(names.values()).replace("/", "_")
            resources = jobs.resources(
                cluster,
                jobs.request(self._config, rule, names, threads),
                jobs.failures(folder, attempt - 1, self.place),
                jobs.description(rule, names, self.place),
                warn=rule == "train",
                limit_mb=self._config.node.memory_mb,
            )
            return resources[name]

        return value

    def _inside(self) -> str:
        """Return the prefix that runs a command in the image; empty without an image."""
        if self._image is None:
            return ""
        home = shlex.quote(str(self._graph.workdir.resolve()))
        return f"apptainer exec --home {home} {self._arguments} {shlex.quote(self._image)} "

    def _dask_jobs(self) -> dict[str, Any]:
        """Return the arguments of dask-jobqueue; a job has at most one worker per core."""
        cluster, node_cores = self._config.cluster, self._config.node.cpus
        assert cluster is not None
        workers = min(self._config.dask.workers or node_cores, node_cores)
        return {
            "account": cluster.account,
            "queue": cluster.partition_of(0),
            "job_extra_directives": [f"--{key}={text}" for key, text in cluster.options.items()],
            "cores": workers,
            "processes": workers,
            "memory": f"{jobs.DASK_WORKER_MB * workers}MB",
            "walltime": str(cluster.max_minutes),
            "job_name": f"{slurm.PREFIX}-dask",
            "log_directory": str(ROOT / slurm.LOGS / "dask"),
        }
