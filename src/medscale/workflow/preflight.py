"""`medscale check`: finds in seconds, offline, what would stop the planned runs later."""

from __future__ import annotations

import math
import shutil
import socket
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import psutil

from medscale.base.code import ROOT, shown_path
from medscale.base.errors import MedscaleError
from medscale.base.limits import memory_limit, usable_cores
from medscale.base.paths import refuse_unwritable
from medscale.base.text import amount
from medscale.config.configuration import Config
from medscale.config.planning import check_profiled
from medscale.config.sweep import trainings
from medscale.engine.detect import extra
from medscale.engine.models.own import MODULES as OWN
from medscale.engine.plan import HUB, RunPlan
from medscale.report.chapters import refuse_mistakes
from medscale.report.checklists import items
from medscale.resources import cards, compute, containers, cost, gpus, site
from medscale.workflow.finding import Finding
from medscale.workflow.graph import Graph
from medscale.workflow.raw_checks import examine_data, examine_variant
from medscale.workflow.runs import check_weights

LATEX = ("latexmk", "pdflatex", "biber")
WORKER_MB = 400  # resident memory of a Dask worker


def examine(graph: Graph, *, on_cluster: bool = False, in_image: bool = True) -> list[Finding]:
    """Return all findings for the active studies.

    Args:
        graph: the checked configuration.
        on_cluster: jobs run on other machines; devices and memory of this one are not checked.
        in_image: jobs on other machines run in the image.
    """
    config = graph.config
    findings = [
        Finding("ok", "configuration", f"{config.scale} scale, studies {', '.join(graph.studies)}")
    ]
    if graph.restored is not None:
        return [*findings, _restored(graph), *_latex(), *_checklists(graph)]
    plans, faults = _plans(graph)
    findings += faults
    studies = {name: examine_data(graph, name) for name in graph.studies}
    externals = [
        examine_data(graph, name, data.inventory)
        for study, data in studies.items()
        for name in config.externals(study)
    ]
    for data in (*studies.values(), *externals):
        findings += data.findings
    for study, data in studies.items():
        for name in config.variants(study):
            findings += examine_variant(graph, name, data)
    programs = _cluster(graph, in_image) if on_cluster else _latex()
    findings += [*_models(config, plans), *_weights(graph, plans), *programs, *_dask(graph)]
    findings += _checklists(graph)
    if not faults:  # the cost model needs the plans of all runs
        findings.append(_disk(graph, {name: data.images for name, data in studies.items()}))
    if on_cluster:
        return [*findings, _nodes(plans), *_image(in_image)]
    return [*findings, *_devices(graph, plans), _memory(graph, plans)]


def _plans(graph: Graph) -> tuple[list[RunPlan], list[Finding]]:
    """Return the plans of all trainings and measured runs, and the errors of impossible ones."""
    plans: list[RunPlan] = []
    faults: dict[str, Finding] = {}
    runs = [
        (entry, run, replicate)
        for study in graph.with_variants
        for entry, run, seeds in trainings(graph.config, study)
        for replicate in graph.config.replicates_of(entry, seeds)
    ]
    sections = {study: graph.config.study(study) for study in graph.studies}
    profiled = {(study, run) for study in sections for run in sections[study].profile.runs}
    formats = {study: sections[study].benchmarks.formats for study in sections}
    compared = [(study, settings.run) for study, settings in formats.items() if settings]
    runs += [(study, run, (0, None)) for study, run in (*sorted(profiled), *compared)]
    for entry, run, replicate in runs:
        try:
            plans.append(graph.plan(entry, run, *replicate))
            if (entry, run) in profiled:
                check_profiled(entry, plans[-1])
        except MedscaleError as error:
            faults[str(error)] = Finding("error", f"runs of {entry}", str(error))
    return plans, list(faults.values())


def _restored(graph: Graph) -> Finding:
    text = (
        f"{shown_path(graph.workdir)} was restored from a crate: it needs no raw images and trains "
        "nothing; `snakemake paper` makes its report from the recorded results"
    )
    return Finding("note", "data", text)


def _attempt(subject: str, function: Callable[[], str | None]) -> Iterator[Finding]:
    """Yield a finding: the error that a check raises, or its text; nothing if it returns none."""
    try:
        if text := function():
            yield Finding("ok", subject, text)
    except MedscaleError as error:
        yield Finding("error", subject, str(error))


def _models(config: Config, plans: list[RunPlan]) -> Iterator[Finding]:
    """Yield whether networks have their options and take the images' size; and their packages."""
    if any(plan.detect is not None for plan in plans):
        yield from _attempt("detection", _detection)
    if any(plan.tensorboard for plan in plans) and find_spec("tensorboard") is None:
        text = "tensorboard: true needs a package that is missing: pip install tensorboard"
        yield Finding("error", "TensorBoard", text)
    networks = {
        (p.model.model_dump_json(), compute.pixels(config, p), p.run.stages > 1): p.model
        for p in plans
        if p.detect is None and (p.model.options or p.model.name not in OWN)
    }
    for (_, side, is_cut), model in networks.items():
        from medscale.engine.models import registry  # imports PyTorch, which takes seconds

        check = partial(registry.check, model, side, is_cut=is_cut)
        yield from _attempt(f"model {model.name}", check)


def _weights(graph: Graph, plans: list[RunPlan]) -> Iterator[Finding]:
    """Yield which files of pretrained weights are missing, or do not fit their network."""
    for path in sorted({plan.model.pretrained or HUB for plan in plans} - {HUB}):
        file = graph.workdir / path
        if missing := [*_attempt("weights", partial(check_weights, file))]:
            yield from missing
            continue
        models = {
            plan.model.model_dump_json(): plan.model
            for plan in plans
            if plan.model.pretrained == path and plan.detect is None
        }
        for model in models.values():
            from medscale.engine.models import registry  # imports PyTorch, which takes seconds

            yield from _attempt("weights", partial(registry.check_weights, model, file))


def _detection() -> str:
    extra.require()
    return "ultralytics is installed (AGPL-3.0)"


def _latex() -> Iterator[Finding]:
    if missing := [program for program in LATEX if shutil.which(program) is None]:
        text = f"{', '.join(missing)} not found; `make setup-latex` installs it"
        yield Finding("error", "LaTeX", text)
    else:
        yield Finding("ok", "LaTeX", shutil.which(LATEX[0]) or "")


def _checklists(graph: Graph) -> Iterator[Finding]:
    """Yield whether claims are in order, and which items of checklists will stop the paper."""
    try:
        refuse_mistakes(graph.config)
    except MedscaleError as error:
        yield Finding("error", "claims and checklists", str(error))
        return
    lists = {path.stem: items.read_listing(path) for path in items.files()}
    if missing := items.stopping(lists, items.study_answers(graph.config)):
        yield Finding("note", "checklists", f"the paper will not be built: {items.remedy(missing)}")


def _dask(graph: Graph) -> Iterator[Finding]:
    scheduler = graph.config.dask.scheduler
    if scheduler == "local":
        workers = graph.dask_workers()
        yield Finding("ok", "Dask", amount(workers, "local worker"))
    elif scheduler == "slurm":
        if shutil.which("sbatch") is None:
            yield Finding("error", "Dask", "dask.scheduler is slurm, but no sbatch")
        else:
            yield Finding("ok", "Dask", "SLURM jobs")
    else:
        host, _, port = scheduler.rpartition("/")[2].rpartition(":")
        try:
            address = host.strip("[]"), int(port)  # an IPv6 address has brackets
            socket.create_connection(address, timeout=2).close()
            yield Finding("ok", "Dask", f"scheduler {scheduler} answers")
        except (OSError, ValueError) as error:
            text = f"scheduler {scheduler!r} does not answer ({error}); see dask in config.yaml"
            yield Finding("error", "Dask", text)


def _image(in_image: bool) -> Iterator[Finding]:
    """Yield which image jobs run in."""
    if in_image:
        yield from _attempt("image", lambda: containers.image(ROOT).name)
    else:
        text = "none: jobs run in this virtual environment; the paper needs LaTeX on a node"
        yield Finding("note", "image", text)


def _cluster(graph: Graph, in_image: bool) -> Iterator[Finding]:
    """Yield whether SLURM accepts account and partition, and whether Apptainer is installed."""
    try:
        text, obstacles = site.check(graph.config.cluster, graph.config.node)
        yield Finding("ok", "SLURM", text)
        yield from (Finding("note", "SLURM", obstacle) for obstacle in obstacles)
    except MedscaleError as error:
        yield Finding("error", "SLURM", str(error))
    for folder in graph.config.cluster.binds if graph.config.cluster is not None else []:
        if not folder.exists():
            text = f"cluster.binds: {folder} does not exist here, so that jobs do not see it"
            yield Finding("note", "Apptainer", text)
    if in_image:
        yield from _attempt("Apptainer", containers.check_program)


def _disk(graph: Graph, images: dict[str, int]) -> Finding:
    """Compare the planned shards and runs with the free space below the workdir."""
    folder = graph.workdir
    while not folder.exists():
        folder = folder.parent
    try:
        refuse_unwritable(graph.workdir / ".snakemake" / "locks")
    except MedscaleError as error:
        return Finding("error", "disk", str(error))
    free = shutil.disk_usage(folder).free / 1e6
    stored = [cost.storage(graph.config, name) for name in graph.with_variants]
    need = _shards_mb(graph, images) + sum(disk["runs"] + disk["checkpoints"] for disk in stored)
    text = f"{_gigabytes(free)} free in {folder}, at most about {_gigabytes(need)} needed"
    if free > need:
        return Finding("ok", "disk", text)
    return Finding("error", "disk", f"{text}: free some, or set workdir")


def _gigabytes(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes > 100 else f"{megabytes:.1f} MB"


def _shards_mb(graph: Graph, images: dict[str, int]) -> float:
    """Return the space of all shards; a variant that preprocesses as its study links its chunks."""
    sizes: dict[tuple[str, str], float] = {}
    for name in graph.with_variants:
        settings = graph.config.study(name)
        key = settings.variant_of or name, settings.preprocess.model_dump_json()
        size = images.get(key[0], 0) * cost.image_mb(settings)
        sizes[key] = max(size, sizes.get(key, 0.0))
    return sum(sizes.values())


def _nodes(plans: list[RunPlan]) -> Finding:
    """State the largest requests for nodes and GPUs, also of runs in which CPUs stand in."""
    nodes = max((plan.nodes for plan in plans), default=0)
    most = max((p.procs_per_node for p in plans if p.run.device == "gpu"), default=0)
    text = f"runs request up to {amount(nodes, 'node')}, {amount(most, 'GPU')} of each"
    return Finding("ok", "devices", text)


def _devices(graph: Graph, plans: list[RunPlan]) -> Iterator[Finding]:
    """Compare the devices that the runs' names ask for with those of this machine."""
    cores, visible = usable_cores(), cards.visible()
    most = max((plan.procs_per_node for plan in plans if plan.backend == "cuda"), default=0)
    if most > len(visible):
        large = [p for p in plans if p.backend == "cuda" and p.procs_per_node > len(visible)]
        runs = sorted({plan.run.name for plan in large})
        text = (
            f"{len(runs)} of the runs need up to {most} GPUs, this machine has {len(visible)}: "
            f"{', '.join(runs[:4])}{' …' if len(runs) > 4 else ''}; leave them out of `runs`, use "
            "--profile slurm on a cluster, or scale demo (--profile demo, or `scale: demo` in your "
            "file), where CPU processes stand in and everything says so"
        )
        yield Finding("error", "GPUs", text)
    if most and visible:
        yield from _cards(graph, [plan for plan in plans if plan.backend == "cuda"], visible)
    elif most:
        text = "NVIDIA's driver lists none; nvidia-smi says whether it is installed and running"
        yield Finding("note", "GPUs", text)
    if stand_ins := sorted({plan.run.name for plan in plans if plan.stand_in}):
        text = f"CPU processes stand in for GPUs, marked as such: {', '.join(stand_ins)}"
        yield Finding("note", "GPUs", text)
    ranks = max((plan.run.devices for plan in plans if plan.backend == "cpu"), default=0)
    if ranks > cores:
        text = (
            f"a run has {ranks} CPU processes on {amount(cores, 'core')}: its speedup means nothing"
        )
        yield Finding("note", "CPU", text)
    else:
        processes = amount(ranks, "process") if ranks < 2 else f"up to {ranks} processes"
        yield Finding("ok", "CPU", f"{amount(cores, 'core')}, {processes} a run")


def _cards(graph: Graph, plans: list[RunPlan], visible: list[str]) -> Iterator[Finding]:
    """Yield findings on the GPUs: names, use by PyTorch, and memory that the runs need."""
    present = gpus.describe(visible)
    names = sorted({f"{card.name}, {card.memory_mb / 1024:.0f} GB" for card in present})
    most = max(plan.procs_per_node for plan in plans)
    text = f"{len(visible)} ({'; '.join(names)}), up to {most} needed"
    if reason := gpus.unusable():
        yield Finding("error", "GPUs", f"{text}: {reason}")
        return
    yield Finding("ok", "GPUs", text)
    if len(names) > 1 and most > 1:
        text = "the GPUs differ: a run on several of them takes the time of the slowest"
        yield Finding("note", "GPUs", text)
    needs = {plan.run.name: cost.estimate(graph.config, plan).device_mb for plan in plans}
    name, need = max(needs.items(), key=lambda item: item[1])
    smallest = min((card.memory_mb for card in present), default=math.inf)
    if need > smallest:
        text = (
            f"{name} needs about {need / 1024:.0f} GB of a GPU by the cost model, the smallest "
            f"has {smallest / 1024:.0f} GB: lower recipe.batch_size or raise recipe.accumulate"
        )
        yield Finding("note", "GPUs", text)


def _memory(graph: Graph, plans: list[RunPlan]) -> Finding:
    available = psutil.virtual_memory().available
    free = min(available, memory_limit() or available) / 2**20
    runs = [cost.estimate(graph.config, plan).memory_mb for plan in plans]
    need = max([*runs, graph.dask_workers() * WORKER_MB])
    text = f"{free / 1024:.1f} GB free, about {need / 1024:.1f} GB needed"
    if free > need:
        return Finding("ok", "memory", text)
    remedy = "end other programs, or lower recipe.batch_size or dask.workers"
    return Finding("error", "memory", f"{text}: {remedy}")
