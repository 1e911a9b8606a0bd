"""Targets that a person types: names of studies, runs and benchmarks are checked before planning.

Without the check Snakemake would say that no rule makes the file, and not which part is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

from medscale.base.errors import MedscaleError
from medscale.base.paths import TIMING
from medscale.base.suggest import suggestion
from medscale.config import planning
from medscale.config.benchmarks import Benchmarks
from medscale.config.configuration import Config
from medscale.engine.models.names import check_model
from medscale.engine.plan import replicate_name
from medscale.engine.run import RunSpec
from medscale.report.chapters import CHAPTERS, refuse_absent
from medscale.workflow import plans

RUN_TARGET = re.compile(r"(?:\./)?(results|runs|profiled)/([^/]+)/([^/]+)(/.*)?")
EXTERNAL_TARGET = re.compile(r"(?:\./)?external/([^/]+)/([^/]+)(/.*)?")
FOLDERS_OF_RUNS = ("results", "profiled")  # whose folders of a run are targets
# The rule that makes all files of a folder of a study.
FOLDERS_OF_STUDIES = {
    "results": "results",
    "runs": "results",
    **dict.fromkeys(("figures", "tables", "external", "measured", "profiled"), "figures"),
    "data": "data",
}
FOLDERS = (*FOLDERS_OF_STUDIES, "exported", "logs", "paper")  # paths of outputs begin so
MOST_PARTS = 6  # of a run's name, whose orders are tried
TARGETS = ("all", "paper", "figures", "results", "data")  # rules that a person asks for
# Options whose value is no target; Snakemake's parser is not needed to know it.
OPTIONS_WITH_ONE_VALUE = (
    "--profile",
    "--cores",
    "-c",
    "--jobs",
    "-j",
    "--sdm",
    "--snakefile",
    "-s",
)
SHARDS, DETECT_SHARDS = "shards", "shards_detect"  # folders below data/<study>
EXPORT_TARGET = re.compile(r"(?:\./)?exported/([^/]+)(?:/.*)?")
STUDY_TARGET = re.compile(r"(?:\./)?(data/raw|data|measured|figures|tables)/([^/]+)/(.+)")


def snakemake_command(*words: str) -> str:
    """Return a command of Snakemake for a message, of targets and options; empty ones are none."""
    return " ".join(filter(None, ("snakemake", *words)))


def in_workdir(target: str, workdir: Path) -> str:
    """Return a target as rules name it: a path in the workdir relative to it, others as they are.

    A shell completes paths from its own folder, such as ``work/demo/results/skin/ddp_2gpu/``. A
    name of a target, such as ``results/skin/ddp_2gpu``, is the same in all folders. The workdir
    itself is the target ``all``.
    """
    if "/" not in target or str(Path(target)).partition("/")[0] in FOLDERS:
        return target
    full, linked = Path(os.path.abspath(target)), Path(os.path.realpath(target))
    for path, folder in ((full, workdir), (linked, workdir.resolve())):
        if path == folder:
            return "all"
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return target


def check_target(config: Config, target: str) -> None:
    """Refuse a target whose study, run, benchmark or images do not exist.

    Raises MedscaleError, naming the wrong part of the target and the allowed values.
    """
    if match := RUN_TARGET.fullmatch(target):
        _check_run(config, match[2], match[3])
        plan = plans.plan(config, match[2], match[3], config.seeds[0])
        if match[1] == "profiled":
            planning.check_profiled(match[2], plan)
        name = (match[4] or "").strip("/").partition("/")[0]
        if match[1] == "runs" and name:
            _check_replicate(config, match[2], name)
        check_model(RunSpec.parse(match[3]).model)
    elif match := EXTERNAL_TARGET.fullmatch(target):
        owner = config.study(match[1]).external_of
        if owner is None:
            sets = ", ".join(config.externals(match[1]))
            advice = f"those of {match[1]} are {sets}" if sets else "give a study `external`"
            raise MedscaleError(f"{target}: {match[1]} is no external set; {advice}")
        _check_run(config, owner, match[2])
        plans.plan(config, owner, match[2], config.seeds[0])
    elif match := EXPORT_TARGET.fullmatch(target):
        _check_measured(config, target, match[1], "export")
    elif match := STUDY_TARGET.fullmatch(target):
        _check_file(config, target, *match.groups())


def _check_file(config: Config, target: str, folder: str, study: str, name: str) -> None:
    """Refuse a file below a study's folder that the study does not have."""
    settings, stem = config.study(study), Path(name).stem
    if settings.sweep_of is not None:
        raise MedscaleError(
            f"{target}: {study} is a point of the sweep of {settings.sweep_of} and has that "
            f"study's images; it has results alone: results/{study}/{settings.runs[0]}"
        )
    if folder == "data/raw" and not settings.source.synthetic:
        raise MedscaleError(
            f"{target}: the images of {study} are real, so no rule makes them; "
            "`medscale data fetch KIND` says how to get those of a dataset kind"
        )
    if folder == "data" and name.partition("/")[0] == DETECT_SHARDS and settings.detect is None:
        raise MedscaleError(
            f"{target}: the study {study} has no section `detect`; give it one in config.yaml"
        )
    if folder == "measured" and stem in Benchmarks.model_fields:
        _check_measured(config, target, study, stem)
    if folder in ("figures", "tables"):
        refuse_absent(config, study, folder, stem)


def _check_measured(config: Config, target: str, study: str, benchmark: str) -> None:
    """Raise MedscaleError if the study has no section ``benchmarks`` for a benchmark."""
    if getattr(config.study(study).benchmarks, benchmark) is None:
        raise MedscaleError(
            f"{target}: the study {study} measures no {benchmark}; "
            f"give it a section benchmarks.{benchmark} in config.yaml"
        )


def _check_run(config: Config, study: str, run: str) -> None:
    """Refuse a run's name that is not valid; the message names the run that may be meant."""
    try:
        RunSpec.parse(run)
    except MedscaleError as error:
        ordered = in_order(run)
        likely = suggestion(ordered or run, [ordered] if ordered else config.study(study).runs)
        reason, *grammar = str(error).split("\n")
        reason = f"{reason.rstrip('.')}; {likely}".rstrip("; ")
        raise MedscaleError("\n".join([reason, *grammar])) from None


def _check_replicate(config: Config, study: str, name: str) -> None:
    """Refuse a replicate without a fold in a study with folds, and the reverse."""
    has_fold, has_folds = "_fold" in name, config.study(study).split.folds is not None
    if has_fold != has_folds:
        seed, fold = config.replicates_of(study)[0]
        raise MedscaleError(
            f"{name}: the study {study} has {'' if has_folds else 'no '}folds, so a replicate is "
            f"called {replicate_name(seed, fold)}"
        )


def in_order(run: str) -> str | None:
    """Return the run's name that has the parts of a text in another order, or None."""
    parts = re.split("[_-]", run.lower())[:MOST_PARTS]
    names = map("_".join, permutations(parts))
    return next((name for name in names if RunSpec.is_name(name)), None)


def refuse_unknown(
    config: Config, rules: Iterable[Any], arguments: Sequence[str], options: str
) -> None:
    """Refuse targets on Snakemake's command line that are neither rules nor files of any rule.

    Snakemake's parser, which takes time, decides which words are targets; it is asked only where a
    word is suspicious. Raises MedscaleError for all of them together.

    Args:
        config: the configuration.
        rules: all rules of the workflow.
        arguments: the command line without its program.
        options: options of Snakemake that read this configuration, for advice.
    """
    rules = list(rules)
    values = {
        word for option, word in pairwise(["", *arguments]) if option in OPTIONS_WITH_ONE_VALUE
    }
    words = [word for word in arguments if not word.startswith("-") and "=" not in word]
    suspicious = [word for word in words if word not in values]
    if not any(unknown_target(config, word, rules, options) for word in suspicious):
        return
    from snakemake.cli import get_argument_parser

    targets = get_argument_parser().parse_known_args(list(arguments))[0].targets
    reasons = [unknown_target(config, target, rules, options) for target in targets]
    if any(reasons):
        raise MedscaleError("\n  ".join(reason for reason in reasons if reason))


def unknown_target(
    config: Config, target: str, rules: Iterable[Any], options: str = ""
) -> str | None:
    """Return a message on a target that no rule makes, with a likely target; None if one does.

    ``options``: options of Snakemake that read this configuration, for the command in the message.
    """
    rules = list(rules)
    path = os.path.normpath(target.replace("\\", "/"))
    names = [rule.name for rule in rules if not rule.has_wildcards()]

    def is_made(file: str) -> bool:
        return any(rule.is_producer(file) for rule in rules)

    if target in names or is_made(path):
        return None
    if os.path.isabs(path) and is_made(own := os.path.relpath(path)):
        return f"{target}: name it by its path in the study's folder: {own}"
    if advice := _whole_study(config, path, options):
        return f"{target}: no rule makes it; {advice}"
    if Path(path).stem == "report":
        return f"{target}: no rule makes it; type snakemake --report report.html, or make report"
    if advice := _trainings(config, path):
        return f"{target} is a folder of trainings; {advice}"
    if os.path.exists(target):
        return None
    if target in (rule.name for rule in rules):
        example = f"results/{config.active[0]}/{config.study(config.active[0]).runs[0]}"
        return f"{target} is the rule of many files: name a file, or a result such as {example}"
    advice = f"targets are {', '.join(n for n in TARGETS if n in names)}, and files such as "
    advice += "results/<study>/<run> (top of the Snakefile)"
    if "/" in path:
        likely = suggestion(_result(config, path), _files(config))
    else:
        likely = suggestion(path, TARGETS) or suggestion(path, names)
    if not likely and RunSpec.is_name(path):
        likely = f"did you mean 'results/{config.active[0]}/{path}'? "
    return f"{target}: no rule makes it; {likely}{advice}"


def _whole_study(config: Config, path: str, options: str) -> str | None:
    """Return the command for all of a study, if a path names a study or a folder of it.

    A variant, an external set and a point of a sweep are made with their study.
    """
    folder, _, name = path.rpartition("/")
    if name not in config.studies or folder not in ("", *FOLDERS_OF_STUDIES):
        return None
    settings = config.study(name)
    study, is_external = settings.belongs_to or name, settings.external_of is not None
    first = f"{'external' if is_external else 'results'}/{name}/{settings.runs[0]}"
    is_drawn = is_external or settings.sweep_of is not None  # and made for a figure alone
    rule = "figures" if is_drawn else FOLDERS_OF_STUDIES.get(folder, "results")
    command = snakemake_command(rule, options, f"--config only={study}")
    return f"all {rule} of {study}: {command}; one result: {first}"


def _trainings(config: Config, path: str) -> str | None:
    """Return the targets to name, if a path is the folder of a run's trainings, or of one."""
    match = RUN_TARGET.fullmatch(path)
    if match is None or match[1] != "runs" or (match[4] or "").count("/") > 1:
        return None
    study, run, replicate = match[2], match[3], match[4]
    name = replicate or f"/{replicate_name(*config.replicates_of(study)[0])}"
    training = f"runs/{study}/{run}{name}/{TIMING}"
    return f"one training: {training}; all of the run, and their evaluation: results/{study}/{run}"


def _result(config: Config, path: str) -> str:
    """Return ``<study>/<run>`` as the path of its result, and other paths as they are."""
    study, _, run = path.partition("/")
    return f"results/{path}" if study in config.studies and RunSpec.is_name(run) else path


def _files(config: Config) -> Iterator[str]:
    """Yield the files of the active studies that a person asks for by name."""
    yield "paper/paper.pdf"
    for study in config.studies:
        runs = config.study(study).runs
        yield from (f"{folder}/{study}/{run}" for folder in FOLDERS_OF_RUNS for run in runs)
        for name in Benchmarks.model_fields:
            yield f"measured/{study}/{name}.csv"
    for chapter in CHAPTERS:
        studies = [""] if chapter.spans_studies else config.studies
        for study in studies:
            patterns = [chapter.figure_path(name) for name in chapter.figures]
            patterns += [chapter.table_path(name, "csv") for name in chapter.tables]
            patterns += [chapter.table_path(name, "tex") for name in chapter.printed]
            patterns += chapter.documents
            yield from (pattern.format(study=study) for pattern in patterns)
