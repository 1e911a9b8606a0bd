"""The common parts of all stages, given to rules in one place: script, digest of code, log, time.

A stage is a rule whose command starts a script. Unless the rule says otherwise

- the script is ``scripts/<rule>.py``, a resource, since another path to the checkout must not
  rerun the outputs in an absolute workdir;
- its digest of code is a param, so that Snakemake reruns the stage when the code changes;
- its log is ``logs/<wildcards>/<rule>.log``, and ``benchmarks/<wildcards>/<rule>.tsv`` holds how
  long it took. The folders are study and run; another wildcard is the beginning of the name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medscale.base.code import PACKAGE, SCRIPTS, code_digest, module_digests, sources
from medscale.base.files import write_json
from medscale.engine.models.own import MODULES as NETWORKS
from medscale.engine.parallel.strategies.registry import MODULES as STRATEGIES
from medscale.engine.plan import RunPlan
from medscale.report.chapter import Chapter
from medscale.workflow.graph import Graph

FOLDERS = ("study", "run")
RECORDS = Path(".snakemake", "code")  # below the workdir, next to Snakemake's own records


def complete(rules: Iterable[Any], graph: Graph) -> None:
    """Give each Snakemake rule its script, digest of code, log and benchmark, in place.

    Args:
        rules: all rules of the workflow; those without a command (targets) are left as they are.
        graph: names the scripts as jobs see them.
    """
    for rule in rules:
        if rule.norun:
            continue
        if "script" not in rule.resources:
            rule.resources["script"] = graph.script(f"{rule.name}.py")
        if rule.params.get("code") is None:
            rule.set_params(code=graph.code(Path(rule.resources["script"].value).name))
        name = _name(rule)
        if not rule.log:
            rule.log_modifier = rule.output_modifier  # Snakemake sets it where a rule has a log
            rule.set_log(f"logs/{name}.log")
        if not rule.benchmark and not rule.ruleinfo.localrule:  # local rules take no time
            rule.benchmark_modifier = rule.output_modifier
            rule.benchmark = f"benchmarks/{name}.tsv"


def code_files(script: str, chapter: str | None = None) -> list[Path]:
    """Return the script of a stage, and the module that makes a chapter of the report."""
    files = [SCRIPTS / Path(script).name]
    return files + ([PACKAGE / "report" / chapter / "make.py"] if chapter is not None else [])


def training_code(plan: RunPlan) -> dict[str, Any]:
    """Return the arguments of ``code_digest`` that exclude code without influence on a training.

    A training depends on its own strategy and network, and on nothing that only draws it.
    """
    strategies = [name for name in STRATEGIES if name.endswith(f".{plan.run.strategy}")]
    used = {*strategies, NETWORKS.get(plan.model.name)}
    return {"core": True, "unused": frozenset({*STRATEGIES, *NETWORKS.values()} - used)}


def record_code(chapters: Iterable[Chapter], graph: Graph, jobs: Iterable[Any]) -> None:
    """Record which modules the digest of code of each stage stands for.

    Called by Snakemake before its first job, so that a later change can be traced to a module.

    Args:
        chapters: of the report.
        graph: the study.
        jobs: the jobs of Snakemake's graph; the code of a training depends on its run.
    """
    stages: list[tuple[list[Path], dict[str, Any]]]
    stages = [([script], {}) for script in sources(SCRIPTS, "*.py")]
    stages += [(code_files("chapter.py", chapter.name), {}) for chapter in chapters]
    trained = {(j.wildcards.study, j.wildcards.run) for j in jobs if j.rule.name == "train"}
    for plan in (graph.plan(study, run) for study, run in sorted(trained)):
        stages.append((code_files(train_script(plan)), training_code(plan)))
    for files, options in stages:
        record = graph.workdir / RECORDS / f"{code_digest(*files, **options)}.json"
        if not record.is_file():
            write_json(record, module_digests(*files, **options))


def train_script(plan: RunPlan) -> str:
    """Return the script of a training; detectors have another, so that neither reruns both."""
    return "train.py" if plan.detect is None else "train_detector.py"


def _name(rule: Any) -> str:
    """Return the path of a rule's log and times below their folders, with wildcards."""
    folders = [f"{{{name}}}/" for name in FOLDERS if name in rule.wildcard_names]
    prefix_names = sorted(rule.wildcard_names - set(FOLDERS))
    prefixes = [f"{{{name}}}." for name in prefix_names]
    return "".join([*folders, *prefixes, rule.name])
