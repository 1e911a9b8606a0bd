"""`medscale check`: find in seconds, offline, what would stop the planned runs hours later."""

from __future__ import annotations

import math
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import psutil

from medscale.base.code import ROOT, shown_path
from medscale.base.errors import MedscaleError
from medscale.base.paths import refuse_unwritable
from medscale.base.suggest import suggestion
from medscale.config.sections import Study
from medscale.config.sweep import trainings
from medscale.data import split
from medscale.data.check import left_out_sentences
from medscale.data.demo.generate import parse_options
from medscale.data.inventory import Inventory
from medscale.data.kind import scan
from medscale.data.settings import Split
from medscale.engine.detect import extra
from medscale.engine.models.own import MODULES as OWN
from medscale.engine.plan import HUB, RunPlan
from medscale.report.chapters import refuse_mistakes
from medscale.report.checklists import items
from medscale.resources import cards, containers, cost, gpus, site
from medscale.workflow.graph import Graph
from medscale.workflow.runs import check_weights

Level = Literal["ok", "note", "error"]

LATEX = ("latexmk", "pdflatex", "biber")
WORKER_MB = 400  # resident memory of a Dask worker
PARTS = ("train", "val", "test")  # that each class has images in
FEW_IMAGES = 10  # of a class: below it a split can leave none for the test


@dataclass(frozen=True)
class Finding:
    """One line of the report: the subject, its state, and the remedy of an error."""

    level: Level
    subject: str
    text: str


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
    images = {}
    for name in graph.studies:
        images[name], lines = _data(graph, name)
        findings += lines
    for name in graph.externals:
        findings += _data(graph, name)[1]
    programs = _cluster(graph, in_image) if on_cluster else _latex()
    findings += [*_models(graph, plans), *_weights(graph, plans), *programs, *_dask(graph)]
    findings += [*_checklists(graph), _disk(graph, images)]
    if on_cluster:
        return [*findings, _nodes(plans), *_image(in_image)]
    return [*findings, *_devices(graph, plans), _memory(graph, plans)]


def _plans(graph: Graph) -> tuple[list[RunPlan], list[Finding]]:
    """Return the plans of all trainings and profiles, and the errors of those without one."""
    plans: list[RunPlan] = []
    faults: dict[str, Finding] = {}
    for study in graph.with_variants:
        runs = [
            (entry, run, replicate)
            for entry, run, seeds in trainings(graph.config, study)
            for replicate in graph.config.replicates_of(entry, seeds)
        ]
        runs += [(study, run, (0, None)) for run in graph.config.study(study).profile.runs]
        for entry, run, replicate in runs:
            try:
                plans.append(graph.plan(entry, run, *replicate))
            except MedscaleError as error:
                faults[str(error)] = Finding("error", f"runs of {entry}", str(error))
    return plans, list(faults.values())


def _restored(graph: Graph) -> Finding:
    text = (
        f"{shown_path(graph.workdir)} was restored from a crate: it needs no raw images and trains "
        "nothing; `snakemake paper` makes its report from the recorded results"
    )
    return Finding("note", "data", text)


def _attempt(subject: str, function: Callable[[], str]) -> Finding:
    """Return the findings of a check, or the error that it raises."""
    try:
        return Finding("ok", subject, function())
    except MedscaleError as error:
        return Finding("error", subject, str(error))


def _data(graph: Graph, name: str) -> tuple[int, list[Finding]]:
    """Return the number of listed (not yet decoded) images and the findings on the raw folder."""
    settings, raw = graph.config.study(name), graph.raw(name)
    subject, source = f"data of {name}", settings.source
    try:
        if source.synthetic:
            count = parse_options(source.kind, source.options).images
            text = f"synthetic: about {count} images are generated in {raw}"
            return count, [Finding("note", subject, text)]
        is_external = settings.external_of is not None
        classes, fewest = (None, 1) if is_external else (settings.classes, 2)
        inventory = scan(source.model_copy(update={"path": raw}), classes, fewest)
    except MedscaleError as error:
        return 0, [Finding("error", subject, str(error))]
    rows = inventory.rows
    counts = rows["label"].value_counts()
    listing = ", ".join(f"{label} {count}" for label, count in counts.items())
    findings = [Finding("ok", subject, f"{len(rows)} images in {raw}: {listing}")]
    if is_external:
        return len(rows), findings
    findings += _class_names(settings, [str(label) for label in counts.index], name)
    findings += [Finding("note", subject, text) for text in left_out_sentences(inventory.excluded)]
    findings += _split(inventory, settings.split, name)
    return len(rows), [*findings, *_patients(inventory, name)]


def _class_names(settings: Study, labels: list[str], name: str) -> Iterator[Finding]:
    """Yield the settings that name a class which no image of a study has."""
    classes = settings.classes or labels
    for setting, by_class in (
        ("evaluate.prevalence", list(settings.evaluate.prevalence)),
        ("class_titles", list(settings.class_titles)),
    ):
        for unknown in [word for word in by_class if word not in classes]:
            text = f"{setting} names {unknown!r}, which is no class; {suggestion(unknown, classes)}"
            text += f"there are: {', '.join(classes)}"
            yield Finding("error", f"classes of {name}", text)


def _split(inventory: Inventory, settings: Split, name: str) -> Iterator[Finding]:
    """Yield findings on the split of the listed images of a study."""
    subject, rows = f"split of {name}", inventory.rows
    counts, is_published = rows["label"].value_counts(), settings.mode == "published"
    groups = rows["group"].where(rows["group"].notna(), rows["path"])
    apart = groups.groupby(rows["label"]).nunique()
    if settings.mode in ("grouped", "random") and apart.min() < len(PARTS):
        label = str(apart.idxmin())
        text = (
            f"class {label} has {counts[label]} images of {apart.min()} patients "
            "or groups, so that it cannot be in training, validation and test: add images, or "
            "leave it out of `classes`"
        )
        yield Finding("error", subject, text)
    elif not is_published and counts.min() < FEW_IMAGES:
        text = f"class {counts.idxmin()} has only {counts.min()} images; its scores will say little"
        yield Finding("note", subject, text)
    if settings.mode in ("grouped", "random") and rows["split_published"].notna().any():
        text = (
            "the images come divided into train, val or test, and are divided anew; keep their "
            "division by split: {mode: published}"
        )
        yield Finding("note", subject, text)
    try:
        split.check_listed(rows, settings)
    except MedscaleError as error:
        yield Finding("error", subject, str(error))


def _patients(inventory: Inventory, name: str) -> Iterator[Finding]:
    """Yield whether the patients are known, and the notes on the raw folder."""
    is_known, (sentence, *notes) = inventory.patient_sentences()
    yield Finding("ok" if is_known else "note", f"patients of {name}", sentence)
    for note in (*notes, *inventory.notes):
        yield Finding("note", f"data of {name}", note)


def _models(graph: Graph, plans: list[RunPlan]) -> Iterator[Finding]:
    """Yield whether the networks of timm have their options and take the images' size."""
    if any(plan.detect is not None for plan in plans):
        yield _attempt("detection", _detection)
    classifications = [plan for plan in plans if plan.detect is None]
    networks = {
        (plan.model.model_dump_json(), cost.pixels(graph.config, plan)): plan.model
        for plan in classifications
        if plan.model.name not in OWN
    }
    for (_, side), model in networks.items():
        from medscale.engine.models import registry  # imports PyTorch, which takes seconds

        try:
            registry.check(model, side)
        except MedscaleError as error:
            yield Finding("error", f"model {model.name}", str(error))


def _weights(graph: Graph, plans: list[RunPlan]) -> Iterator[Finding]:
    """Yield which files of pretrained weights are missing."""
    for path in sorted({plan.model.pretrained or HUB for plan in plans} - {HUB}):
        try:
            check_weights(graph.workdir / path)
        except MedscaleError as error:
            yield Finding("error", "weights", str(error))


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
        yield Finding("ok", "Dask", f"{graph.dask_workers()} local workers")
    elif scheduler == "slurm":
        if shutil.which("sbatch") is None:
            yield Finding("error", "Dask", "dask.scheduler is slurm, but no sbatch")
        else:
            yield Finding("ok", "Dask", "SLURM jobs")
    else:
        host, _, port = scheduler.rpartition("/")[2].rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
            yield Finding("ok", "Dask", f"scheduler {scheduler} answers")
        except (OSError, ValueError) as error:
            text = f"scheduler {scheduler!r} does not answer ({error}); see dask in config.yaml"
            yield Finding("error", "Dask", text)


def _image(in_image: bool) -> Iterator[Finding]:
    """Yield which image jobs run in."""
    if in_image:
        yield _attempt("image", lambda: containers.image(ROOT).name)
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
    if not in_image:
        return
    try:
        containers.check_program()
    except MedscaleError as error:
        yield Finding("error", "Apptainer", str(error))


def _disk(graph: Graph, images: dict[str, int]) -> Finding:
    """Compare the planned shards and runs with the free space below the workdir."""
    folder = graph.workdir
    while not folder.exists():
        folder = folder.parent
    try:
        refuse_unwritable(graph.workdir / ".snakemake" / "locks")
    except MedscaleError as error:
        return Finding("error", "disk", str(error))
    free = shutil.disk_usage(folder).free / 2**20
    sizes = [count * _shard_bytes(graph.config.study(name)) for name, count in images.items()]
    stored = [cost.storage(graph.config, name) for name in graph.with_variants]
    need = sum(sizes) / 2**20 + sum(disk["runs"] + disk["checkpoints"] for disk in stored)
    text = f"{free / 1024:.1f} GB free in {folder}, at most about {need / 1024:.1f} GB needed"
    if free > need:
        return Finding("ok", "disk", text)
    return Finding("error", "disk", f"{text}: free some, or set workdir")


def _shard_bytes(settings: Study) -> int:
    """Return the bytes of one image in all shard sets of a study: uint8, three channels."""
    detects = settings.detect is not None and settings.detection_runs
    size = settings.detect.size if settings.detect is not None and detects else 0
    return 3 * (settings.preprocess.size**2 + size**2)


def _nodes(plans: list[RunPlan]) -> Finding:
    """State the largest requests for nodes and GPUs, also of runs in which CPUs stand in."""
    nodes = max(plan.nodes for plan in plans)
    most = max((p.procs_per_node for p in plans if p.run.device == "gpu"), default=0)
    return Finding("ok", "devices", f"runs request up to {nodes} node(s), {most} GPUs of each")


def _devices(graph: Graph, plans: list[RunPlan]) -> Iterator[Finding]:
    """Compare the devices that the runs' names ask for with those of this machine."""
    cores, visible = len(os.sched_getaffinity(0)), cards.visible()
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
        text = f"a run has {ranks} CPU processes on {cores} cores: its speedup means nothing"
        yield Finding("note", "CPU", text)
    else:
        yield Finding("ok", "CPU", f"{cores} cores, up to {ranks} processes a run")


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
    free = psutil.virtual_memory().available / 2**20
    runs = [cost.estimate(graph.config, plan).memory_mb for plan in plans]
    need = max(*runs, graph.dask_workers() * WORKER_MB)
    text = f"{free / 1024:.1f} GB free, about {need / 1024:.1f} GB needed"
    return Finding("ok" if free > need else "error", "memory", text)
