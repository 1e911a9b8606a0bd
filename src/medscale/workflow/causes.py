"""Why a job would run: changed settings, inputs and code, from Snakemake's records of outputs.

The records of code (``stages.record_code``) tell which modules a digest of code stands for.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medscale.base.code import PACKAGE, ROOT, module_digests, shown_path
from medscale.base.files import read_json
from medscale.base.text import listed, truncate
from medscale.workflow.graph import Graph
from medscale.workflow.stages import RECORDS, code_files, training_code

WHOLE_PARAMS = ("text", "plan")  # params that hold a whole configuration: their name says nothing
DIGESTS = {  # params that are digests, and the meaning of their change
    "state": "files of images or tables of {study} were added, removed or edited",
    "layout": "the code that lists the raw images of {study} has changed (its dataset kind)",
    "generator": "the generator of the synthetic images of {study} has changed",
}
DIGEST = re.compile(r"[0-9a-f]{64}")  # of code, which names the file of its record
FIRST_TIME = "outputs were never made"
OTHER_IMAGE = "jobs run in another image"
SHOWN = 3  # files or names in a sentence, before the rest is counted
LONGEST = 160  # characters of a setting's values


def causes(dag: Any, job: Any, graph: Graph) -> Iterator[str]:
    """Yield why a job itself would run, apart from other jobs that run before it."""
    reason, records = dag.reason(job), dag.workflow.persistence
    recorded_files = [file for file in job.output if records.metadata(file) is not None]
    missing = [str(file) for file in job.output if not os.path.lexists(file)]
    if missing and not recorded_files:
        yield FIRST_TIME
    elif missing:
        verb, past = ("is", "it was") if len(missing) == 1 else ("are", "they were")
        yield f"{listed(missing, SHOWN)} {verb} missing, though {past} made before"
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
        yield OTHER_IMAGE
    yield from _changed_inputs(records.input(recorded_files[0]), job)
    yield from _changed_params(records.params(recorded_files[0]), job, graph)


def missing_raw(graph: Graph, study: str) -> str | None:
    """Return the sentence on a study whose raw folder is missing; None where it is there.

    A synthetic study has None: its images are made again.
    """
    folder = graph.config.raw(study)
    if graph.config.study(graph.config.owner(study)).source.synthetic or folder.exists():
        return None
    return f"the raw images of {study} are missing: {shown_path(folder)}"


def _changed_inputs(recorded: list[str] | None, job: Any) -> Iterator[str]:
    before, now = set(recorded or job.input), {str(file) for file in job.input}
    if missing := sorted(before - now):
        words = "is no input" if len(missing) == 1 else "are no inputs"
        yield f"{listed(missing, SHOWN)} {words} of {job.rule.name} any more"
    if new := sorted(now - before):
        words = "is a new input" if len(new) == 1 else "are new inputs"
        yield f"{listed(new, SHOWN)} {words} of {job.rule.name}"


def _changed_params(recorded: list[str] | None, job: Any, graph: Graph) -> Iterator[str]:
    """Yield the settings and modules that differ from those an output was made with.

    Snakemake records values of params without their names, so each new value is compared with
    the old value that resembles it most. Digests are compared with nothing: their names say what
    has changed.
    """
    if recorded is None:
        return
    parameters = {name: value for name, value in job.params.items() if name}
    changed = {name: value for name, value in parameters.items() if repr(value) not in recorded}
    current = {repr(value) for value in job.params}
    values = [_value(text) for text in recorded if text not in current]
    digests = [text for text in values if DIGEST.fullmatch(str(text))]
    old = [value for value in values if value not in digests]
    for name, value in changed.items():
        if name == "code":
            recorded_code = [text for text in digests if _record(graph.workdir, text).is_file()]
            yield from _changed_modules(recorded_code, job, graph)
            continue
        if name in DIGESTS:
            study = job.wildcards.study
            absent = missing_raw(graph, study) if name == "state" else None
            yield absent or DIGESTS[name].format(study=study)
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
    script = f"scripts/{Path(job.resources.script).name}"
    if not old_digests:
        yield f"{script} or a module it imports has changed; which one was not recorded"
        return
    before = read_json(_record(graph.workdir, old_digests[0]))
    options = {}
    if job.rule.name == "train":
        options = training_code(graph.plan(job.wildcards.study, job.wildcards.run))
    files = code_files(job.resources.script, job.params.get("chapter"))
    now = module_digests(*files, **options)
    for module in sorted(before.keys() | now.keys()):
        if before.get(module) != now.get(module):
            verb = "has changed"
            if module not in before:
                verb = f"is newly used by {script}"
            elif module not in now:
                verb = f"is no longer used by {script}"
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
        return
    before, after = json.dumps(old), json.dumps(new)
    name = name or "settings"
    if len(before) + len(after) <= LONGEST:
        yield f"{name}: {before} -> {after}"
    elif isinstance(old, list) and isinstance(new, list):
        yield f"{name}: {_changed_items(old, new)}"
    else:
        yield f"{name}: {truncate(before, LONGEST)} -> {truncate(after, LONGEST)}"


def _changed_items(old: list[Any], new: list[Any]) -> str:
    """Return in words how two lists differ: items by their names, where they have some."""
    changes = {
        "new": _names(item for item in new if item not in old),
        "gone": _names(item for item in old if item not in new),
    }
    changed_names = [name for name in changes["new"] if name in changes["gone"]]
    parts = [f"changed: {listed(changed_names, SHOWN)}"] if changed_names else []
    for word, names in changes.items():
        if remaining := [name for name in names if name not in changed_names]:
            parts.append(f"{word}: {listed(remaining, SHOWN)}")
    return "; ".join(parts) or "the same items in another order"


def _names(items: Iterable[Any]) -> list[str]:
    """Return the name of each item, or a part of its text."""
    return [
        str(item["name"])
        if isinstance(item, dict) and "name" in item
        else truncate(json.dumps(item), LONGEST)
        for item in items
    ]


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
