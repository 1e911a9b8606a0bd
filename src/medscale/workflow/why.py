"""`medscale why TARGET`: why a target would be made again, what follows and what that costs.

Snakemake builds the graph of jobs without running any. Its records tell from which settings,
inputs and code each output was made; the records of code (``stages.record_code``) tell which
modules a digest of code stands for.
"""

from __future__ import annotations

import ast
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medscale.base.code import PACKAGE, ROOT, module_digests, shown_path
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.config import planning
from medscale.config.configuration import Config
from medscale.resources import cost, jobs
from medscale.workflow.graph import Graph
from medscale.workflow.stages import RECORDS, code_files, training_code

WHOLE_PARAMS = ("text", "plan")  # params that hold a whole configuration: their name says nothing
DIGESTS = {  # params that are digests, and the meaning of their change
    "state": "files were added to the raw images of {study} or removed",
    "layout": "the code that lists the raw images of {study} has changed (its dataset kind)",
    "generator": "the generator of the synthetic images of {study} has changed",
}
SHOWN = 8  # lines about missing outputs, before the rest is counted


@dataclass
class Explanation:
    """Why a target would be made again."""

    target: str  # the file, folder or rule
    # by sentence, how many jobs of each stage it concerns directly
    causes: dict[str, Counter[str]] = field(default_factory=dict)
    # number of jobs that would run, by stage, in the order of the graph
    stages: Counter[str] = field(default_factory=Counter)
    outputs: list[str] = field(default_factory=list)  # folders that these jobs would write to
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
            yield f"  {cause} (directly concerned: {_counted(stages)})"
        yield f"Jobs that would run: {_counted(self.stages)}; {self.stages.total()} in all."
        yield "They write to " + _shortened(list(dict.fromkeys(self.outputs))) + "."
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
    """Explain why a target would be made again.

    Raises MedscaleError when the target names no study, run or file of the workflow.

    Args:
        changes: settings that are laid over config.yaml, as for Snakemake.
        target: a file, folder or rule as Snakemake takes it.
        in_image: whether jobs run in the image (``--sdm apptainer``, ``--profile slurm``).
        files: YAML files that the changes come from, for messages.
    """
    graph = Graph(changes, arguments=[target], files=files)
    explanation = Explanation(target, currency=graph.config.cost.currency)
    with _snakemake_graph(changes, target, in_image) as dag:
        jobs = [job for level in dag.toposorted() for job in level if dag.needrun(job)]
        jobs = [job for job in jobs if not job.rule.norun]
        for job in jobs:
            for cause in _causes(dag, job, graph):
                explanation.causes.setdefault(cause, Counter())[job.rule.name] += 1
            explanation.stages[job.rule.name] += 1
            explanation.outputs += [_folder(str(file)) for file in job.output]
            _add_cost(explanation, graph.config, job)
    return explanation


@contextmanager
def _snakemake_graph(changes: Mapping[str, Any], target: str, in_image: bool) -> Iterator[Any]:
    """Yield Snakemake's graph of the jobs for a target; nothing is run."""
    from snakemake.api import SnakemakeApi
    from snakemake.exceptions import MissingRuleException, WorkflowError
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        DeploymentMethod,
        DeploymentSettings,
        OutputSettings,
        ResourceSettings,
    )

    folder = Path.cwd()  # the Snakefile's `workdir` changes it for the whole process
    settings = DAGSettings(targets={target}, force_incomplete=True)
    methods = {DeploymentMethod.APPTAINER} if in_image else set()
    try:
        with SnakemakeApi(OutputSettings(dryrun=True, log_level_override="ERROR")) as api:
            workflow_api = api.workflow(
                resource_settings=ResourceSettings(cores=os.cpu_count()),
                config_settings=ConfigSettings(config=dict(changes)),
                deployment_settings=DeploymentSettings(deployment_method=methods),
                snakefile=ROOT / "Snakefile",
            )
            workflow_api.dag(settings)
            workflow = workflow_api._workflow
            # The public functions print their findings; all of them begin with these two calls.
            workflow._prepare_dag(forceall=False, ignore_incomplete=False, lock_warn_only=True)
            workflow._build_dag()
            yield workflow.dag
    except (MissingRuleException, WorkflowError) as error:
        raise MedscaleError(f"{target}: {_message(error)}") from None
    finally:
        os.chdir(folder)


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    if type(error).__name__ == "MissingRuleException":
        return "no rule makes such a file; see the targets at the top of the Snakefile"
    return text or type(error).__name__


def _causes(dag: Any, job: Any, graph: Graph) -> Iterator[str]:
    """Yield why a job itself would run, apart from other jobs that run before it."""
    reason, records = dag.reason(job), dag.workflow.persistence
    recorded_files = [file for file in job.output if records.metadata(file) is not None]
    missing = [str(file) for file in job.output if not os.path.lexists(file)]
    if missing and not recorded_files:
        yield "outputs were never made"
    elif missing:
        yield f"{_shortened(missing)} is missing, though it was made before"
    for file in sorted(reason.incomplete_output):
        yield f"{file} is incomplete: its job was interrupted"
    for file in sorted(reason.updated_input):
        yield f"{shown_path(file)} has changed since"
    if not recorded_files:
        return
    if any(records.code_changed(job)):
        rules_file = shown_path(job.rule.snakefile)
        yield f"the command of rule {job.rule.name} has changed in {rules_file}"
    if any(records.software_stack_changed(job)):
        yield "jobs run in another image"
    yield from _changed_inputs(records.input(recorded_files[0]), job)
    yield from _changed_params(records.params(recorded_files[0]), job, graph)


def _changed_inputs(recorded: list[str] | None, job: Any) -> Iterator[str]:
    before, now = set(recorded or job.input), {str(file) for file in job.input}
    if before - now:
        yield f"{_shortened(sorted(before - now))} is no input of {job.rule.name} any more"
    if now - before:
        yield f"{_shortened(sorted(now - before))} is a new input of {job.rule.name}"


def _changed_params(recorded: list[str] | None, job: Any, graph: Graph) -> Iterator[str]:
    """Yield the settings and modules that differ from those an output was made with.

    Snakemake records values of params without their names, so each new value is compared with
    the old value that resembles it most.
    """
    if recorded is None:
        return
    named = {name: value for name, value in job.params.items() if name}
    changed = {name: value for name, value in named.items() if repr(value) not in recorded}
    current = {repr(value) for value in job.params}
    old = [_value(text) for text in recorded if text not in current]
    for name, value in changed.items():
        if name == "code":
            recorded_code = [text for text in old if _record(graph.workdir, text).is_file()]
            yield from _changed_modules(recorded_code, job, graph)
            continue
        if name in DIGESTS:
            yield DIGESTS[name].format(study=job.wildcards.study)
            continue
        partner = max(old, key=lambda other: _likeness(value, other), default=None)
        if partner is not None and _likeness(value, partner) > 0:
            old.remove(partner)
        else:
            partner = None
        prefix = "" if name in WHOLE_PARAMS else name
        yield from _differences(prefix, _parsed(partner), _parsed(value))


def _record(workdir: Path, digest: Any) -> Path:
    return workdir / RECORDS / f"{digest}.json"


def _changed_modules(old_digests: list[Any], job: Any, graph: Graph) -> Iterator[str]:
    script = f"scripts/{Path(job.params.script).name}"
    if not old_digests:
        yield f"{script} or a module it imports has changed; which one was not recorded"
        return
    before = read_json(_record(graph.workdir, old_digests[0]))
    options = {}
    if job.rule.name == "train":
        options = training_code(graph.plan(job.wildcards.study, job.wildcards.run))
    files = code_files(job.params.script, job.params.get("chapter"))
    now = module_digests(*files, **options)
    for module in sorted(before.keys() | now.keys()):
        if before.get(module) != now.get(module):
            verb = "has changed"
            if module not in before:
                verb = f"is used by {script} since"
            elif module not in now:
                verb = f"is used by {script} no more"
            yield f"{_module_path(module)} {verb}"


def _module_path(module: str) -> str:
    """Return the path of a module as a person types it; scripts have a path already."""
    if module.endswith(".py"):
        return module
    path = PACKAGE.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return str(path.relative_to(ROOT))


def _differences(name: str, old: Any, new: Any) -> Iterator[str]:
    """Yield the keys whose values differ between two settings: ``split.train: 0.7 -> 0.8``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            if old.get(key) != new.get(key):
                yield from _differences(
                    f"{name}.{key}" if name else key, old.get(key), new.get(key)
                )
    else:
        yield f"{name or 'settings'}: {json.dumps(old)} -> {json.dumps(new)}"


def _likeness(new: Any, old: Any) -> float:
    """Return how much two values of params resemble each other: keys in common, form, type."""
    first, second = _parsed(new), _parsed(old)
    if isinstance(first, dict) and isinstance(second, dict):
        return 1 + len(first.keys() & second.keys())
    if isinstance(first, dict) or isinstance(second, dict):
        return 0
    return 0.5 if type(first) is type(second) else 0.1


def _parsed(value: Any) -> Any:
    """Return the value of a param: the content of JSON, other values as they are."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _add_cost(explanation: Explanation, config: Config, job: Any) -> None:
    """Add the expected cost of a job by the cost model; a stage it does not know costs nothing."""
    wildcards = dict(job.wildcards.items())
    if "seed" in wildcards:
        if job.rule.ruleinfo.localrule:
            return
        plan = planning.plan(config, wildcards["study"], wildcards["run"], 0)
        estimate = cost.estimate(config, plan)
        minutes, hours, money = estimate.minutes, estimate.device_hours, estimate.money
    else:
        request = jobs.request(config, job.rule.name, wildcards, job.threads)
        minutes, hours = request.minutes, request.cpus * request.minutes / 60
        money = hours * cost.kind_of(config, "cpu").price
    explanation.minutes += minutes
    explanation.device_hours += hours
    explanation.money += money


def _counted(stages: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in stages.items())


def _shortened(files: list[str]) -> str:
    more = len(files) - SHOWN
    return ", ".join(files[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _folder(output: str) -> str:
    """Return the folder of an output, which is itself a folder where it has no suffix."""
    return os.path.dirname(output) if Path(output).suffix else output
