"""The graph's jobs through SLURM: what each rule's jobs ask for, and what starts those that one container cannot."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from medscale.base.code import ROOT
from medscale.base.errors import EXIT_USER, MedscaleError
from medscale.resources import jobs, slurm

if TYPE_CHECKING:
    from medscale.workflow.graph import Graph

DASK_SCRIPT = ROOT / "scripts" / "dask_workers.py"


class Submission:
    """What the rules need where their jobs go through SLURM; where they do not, it asks for nothing.

    Args:
        graph: the checked configuration; SLURM is used where it has a section ``cluster``.
        image: path of the container image that jobs run in.
        deployment: Snakemake's settings: whether jobs run in the image at all, and further arguments for Apptainer.
    """

    def __init__(self, graph: Graph, image: str, deployment: Any) -> None:
        in_image = any(method.name == "APPTAINER" for method in deployment.deployment_method)
        self._graph, self._config = graph, graph.config
        self._link, self._image = image, image if in_image else None
        self._arguments = deployment.apptainer_args
        inside = graph.workdir.is_relative_to(ROOT)
        self._place = str(graph.workdir.relative_to(ROOT) if inside else graph.workdir)
        if self._config.cluster is not None:
            # SLURM's warning of the time limit reaches all processes of a job. It is for training, which listens;
            # Snakemake and its shells, which inherit this, would end by it.
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def train_image(self, wildcards: Any) -> str | None:
        """Return the image that a training's job runs in; none for a training on several nodes.

        ``start`` enters the image on each of them, as ``srun`` must not run in a container.
        """
        return None if self._graph.several_nodes(wildcards.study, wildcards.run) else self._link

    def start(self, wildcards: Any) -> str:
        """Return what precedes a training's command: ``srun`` and the image on several nodes."""
        study, run = wildcards.study, wildcards.run
        if self._config.cluster is None or not self._graph.several_nodes(study, run):
            return ""
        wanted = jobs.ask(self._config, "train", {"study": study, "run": run})
        return jobs.srun(self._config.cluster, wanted) + self._inside()

    def start_dask(self) -> str:
        """What stands before a command whose Dask workers are SLURM jobs, which a host has to submit; else nothing."""
        if self._config.cluster is None or not self._graph.dask_is_jobs:
            return ""
        settings = self._config.dask.model_copy(
            update={"slurm": self._dask_jobs() | self._config.dask.slurm}
        )
        command = [sys.executable, str(DASK_SCRIPT), "--dask", settings.model_dump_json()]
        command += ["--python", f"{self._inside()}python"] if self._image else []
        return f"{shlex.join(command)} -- {self._inside()}"

    def ask(self, rules: Iterable[Any]) -> None:
        """Give each of Snakemake's rules the resources that its jobs ask of SLURM."""
        for rule in rules if self._config.cluster is not None else ():
            for name in jobs.RESOURCES:
                rule.resources[name] = self._resource(rule.name, name)

    def ready(self, executor: str) -> None:
        """Before the first job: is all stated, and is nothing left of an earlier Snakemake that was killed?"""
        try:
            if executor == "slurm":
                slurm.stated(self._config.cluster)
                for said in slurm.end_orphans(ROOT, self._place):
                    print(
                        f"medscale: ended, left over from an earlier Snakemake: {said}",
                        file=sys.stderr,
                        flush=True,
                    )
        except MedscaleError as error:
            print(f"medscale: error: {error}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_USER) from None

    def _resource(self, rule: str, name: str) -> Callable[..., Any]:
        """One resource of a rule as a function in Snakemake's terms."""

        def value(wildcards: Any, attempt: int, threads: int = 1) -> Any:
            cluster = self._config.cluster
            assert cluster is not None
            said = dict(wildcards.items())
            folder = ROOT / jobs.LOGS / f"rule_{rule}" / "_".join(said.values()).replace("/", "_")
            wanted = jobs.ask(self._config, rule, said, threads)
            failed = jobs.failures(folder, attempt - 1)
            called = jobs.called(rule, said, self._place)
            most = self._config.node.memory_mb
            return jobs.resources(
                cluster, wanted, failed, called, warn=rule == "train", most_mb=most
            )[name]

        return value

    def _inside(self) -> str:
        """The beginning of a command that goes on inside the image."""
        if self._image is None:
            return ""
        home = shlex.quote(str(self._graph.workdir.resolve()))
        return f"apptainer exec --home {home} {self._arguments} {shlex.quote(self._image)} "

    def _dask_jobs(self) -> dict[str, Any]:
        """How dask-jobqueue asks for workers: as many to a job as a node has cores."""
        cluster, most = self._config.cluster, self._config.node.cpus
        assert cluster is not None
        many = min(self._config.dask.workers or most, most)
        return {
            "account": cluster.account,
            "queue": cluster.partition,
            "cores": many,
            "processes": many,
            "memory": f"{jobs.DASK_WORKER_MB * many}MB",
            "walltime": str(cluster.max_minutes),
            "job_name": f"{slurm.PREFIX}-dask",
            "log_directory": str(ROOT / jobs.LOGS / "dask"),
        }
