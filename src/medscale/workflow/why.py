"""`medscale why TARGET`: why a target would be made again, what follows and what that costs.

Snakemake builds the graph of jobs without running any (``dag``). ``outlook`` prints less of the
same at the end of a dry run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.text import amount, listed
from medscale.report.chapters import chapters_of
from medscale.resources import compute, cost, jobs
from medscale.workflow.causes import causes
from medscale.workflow.dag import planned
from medscale.workflow.graph import Graph

SHOWN = 5  # stages of a cause


@dataclass
class Explanation:
    """Why a target would be made again."""

    target: str  # the file, folder or rule
    # by sentence, how many jobs of each stage it concerns directly
    causes: dict[str, Counter[str]] = field(default_factory=dict)
    # number of jobs that would run, by stage, in the order of the graph
    stages: Counter[str] = field(default_factory=Counter)
    outputs: list[str] = field(default_factory=list)  # folders that these jobs would write to
    studies: list[str] = field(default_factory=list)  # studies that these jobs belong to
    minutes: float = 0.0  # expected wall time of all jobs, one after the other
    device_hours: float = 0.0  # devices times hours
    money: float = 0.0  # price of the device hours, in ``currency``
    currency: str = ""

    def lines(self) -> Iterator[str]:
        """Yield the explanation as sentences."""
        if not self.stages:
            yield f"{self.target} is up to date."
            return
        yield f"{self.target} would be made again, because"
        for cause, stages in self.causes.items():
            yield f"  {cause} (directly concerned: {counted(stages, SHOWN)})"
        yield f"Jobs that would run: {counted(self.stages)}; {self.stages.total()} in all."
        yield "They write to " + listed(list(dict.fromkeys(self.outputs))) + "."
        yield (
            f"Expected cost: {self.minutes:,.1f} min one after the other, "
            f"{self.device_hours:.2f} device-hours, {self.money:.2f} {self.currency}."
        )


def explain(
    changes: Mapping[str, Any],
    target: str,
    *,
    in_image: bool = False,
    files: Sequence[str | Path] = (),
) -> Explanation:
    """Return why a target would be made again.

    Raises MedscaleError when the target names no study, run or file of the workflow.

    Args:
        changes: settings that are laid over config.yaml, as for Snakemake.
        target: a file, folder or rule as Snakemake takes it.
        in_image: whether jobs run in the image (``--sdm apptainer``, ``--profile slurm``).
        files: YAML files that the changes come from, for messages.
    """
    if not target:
        raise MedscaleError("name a target, such as results/skin/ddp_amp_4gpu or paper")
    graph = Graph(changes, arguments=[target], files=files)
    target = graph.target(target)
    with planned(graph, changes, target, in_image) as dag:
        return explanation_of(graph, dag, target)


def explanation_of(graph: Graph, dag: Any, target: str) -> Explanation:
    """Return the explanation for Snakemake's graph of the jobs for a target."""
    explanation = Explanation(target, currency=graph.config.cost.currency)
    estimate = cache(partial(job_cost, graph))
    for job in (job for level in dag.toposorted() for job in level if dag.needrun(job)):
        if job.rule.norun:
            continue
        for cause in causes(dag, job, graph):
            explanation.causes.setdefault(cause, Counter())[job.rule.name] += 1
        explanation.stages[job.rule.name] += 1
        explanation.outputs += [_folder(str(file)) for file in job.output]
        study = getattr(job.wildcards, "study", None)
        if study is not None and study not in explanation.studies:
            explanation.studies.append(study)
        if not job.rule.ruleinfo.localrule:
            wildcards = {n: v for n, v in job.wildcards.items() if n in ("study", "run")}
            minutes, hours, money = estimate(job.rule.name, tuple(wildcards.items()), job.threads)
            explanation.minutes += minutes
            explanation.device_hours += hours
            explanation.money += money
    return explanation


def job_cost(
    graph: Graph, rule: str, wildcards: tuple[tuple[str, str], ...], threads: int
) -> tuple[float, float, float]:
    """Return the minutes, device-hours and price of a job by the cost model.

    A profile is taken to last as long as a training at most. A stage that the model does not know
    costs nothing.
    """
    config = graph.config
    if rule in ("train", "profile", "formats"):
        names = dict(wildcards)
        if rule == "formats":
            estimates = cost.of_formats(config, names["study"])
        else:
            estimates = [cost.estimate(config, graph.plan(names["study"], names["run"]))]
        return (
            sum(estimate.minutes for estimate in estimates),
            sum(estimate.device_hours for estimate in estimates),
            sum(estimate.money for estimate in estimates),
        )
    request = jobs.request(config, rule, dict(wildcards), threads)
    minutes = request.minutes
    if minutes and rule.endswith(jobs.REPORT_RULE):  # of the whole report, for all its chapters
        minutes /= len(chapters_of(config, dict(wildcards)["study"]))
    hours = request.cpus * minutes / 60
    return minutes, hours, hours * compute.kind_of(config, "cpu").price


def counted(stages: Mapping[str, int], most: int | None = None) -> str:
    """Return the number of jobs of each stage in words; of ``most`` stages where that is given."""
    first = dict(list(stages.items())[:most])
    words = ", ".join(f"{name} {count}" for name, count in first.items())
    rest = sum(stages.values()) - sum(first.values())
    return f"{words} and {amount(rest, 'job')} of other stages" if rest else words


def _folder(output: str) -> str:
    """Return the folder of an output, which is itself a folder where it has no suffix."""
    return os.path.dirname(output) if Path(output).suffix else output
