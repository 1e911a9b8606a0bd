"""`medscale check`: finds in seconds, offline, what would stop the planned runs hours later."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import psutil

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.config.sections import Study
from medscale.data.demo.generate import parse_options
from medscale.data.kind import scan
from medscale.engine import detect
from medscale.engine.plan import RunPlan
from medscale.resources import cards, containers, cost, slurm
from medscale.workflow.graph import Graph
from medscale.workflow.targets import check_model

Level = Literal["ok", "note", "error"]

LATEX = ("latexmk", "pdflatex", "biber")
WORKER_MB = 400  # resident memory of a Dask worker


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, how it is, and what to do where it is not well."""

    level: Level
    subject: str
    text: str


def examine(graph: Graph, *, on_cluster: bool = False) -> list[Finding]:
    """All findings for the active studies.

    Args:
        graph: the checked configuration.
        on_cluster: jobs run elsewhere, so this machine's devices and memory are only noted.
    """
    config = graph.config
    findings = [
        Finding("ok", "configuration", f"{config.scale} scale, studies {', '.join(graph.studies)}")
    ]
    plans = [
        graph.plan(s, run, seed)
        for s in graph.with_variants
        for run in dict.fromkeys([*config.study(s).runs, *config.study(s).profile.runs])
        for seed in config.seeds_of(s)
    ]
    images = {}
    for name in graph.studies:
        images[name], lines = _data(graph, name)
        findings += lines
    findings += [*_models(plans), *(_cluster(graph) if on_cluster else _latex()), *_dask(graph)]
    findings.append(_disk(graph, images))
    findings += _devices(plans, on_cluster)
    findings += [_image()] if on_cluster else [_memory(graph, plans)]
    return findings


def _data(graph: Graph, name: str) -> tuple[int, list[Finding]]:
    """Number of images listed (not yet decoded) and what is to be said of a study's raw folder."""
    settings = graph.config.study(name)
    what = f"data of {name}"
    if settings.source.synthetic:
        try:
            count = parse_options(settings.source.kind, settings.source.options).images
        except MedscaleError as error:
            return 0, [Finding("error", what, str(error))]
        return count, [
            Finding(
                "note", what, f"synthetic: about {count} images are generated in {graph.raw(name)}"
            )
        ]
    try:
        found = scan(settings.source.model_copy(update={"path": graph.raw(name)}), settings.classes)
    except MedscaleError as error:
        return 0, [Finding("error", what, str(error))]
    counts = found.rows["label"].value_counts()
    text = f"{len(found.rows)} images in {graph.raw(name)}: " + ", ".join(
        f"{k} {v}" for k, v in counts.items()
    )
    lines = [Finding("ok", what, text)]
    if settings.split.mode != "published" and counts.min() < 10:
        lines.append(
            Finding(
                "note",
                f"split of {name}",
                f"class {counts.idxmin()} has only {counts.min()} images",
            )
        )
    if settings.split.mode == "published" and found.rows["split_published"].isna().all():
        lines.append(
            Finding(
                "error", f"split of {name}", "split.mode is published, but the folder has no splits"
            )
        )
    return len(found.rows), lines


def _models(plans: list[RunPlan]) -> Iterator[Finding]:
    if any(plan.detect is not None for plan in plans):
        try:
            detect.require()
            yield Finding("ok", "detection", "ultralytics is installed (AGPL-3.0)")
        except MedscaleError as error:
            yield Finding("error", "detection", str(error))
    for name in sorted({plan.model.name for plan in plans}):
        try:
            check_model(name)
        except MedscaleError as error:
            yield Finding("error", f"model {name}", str(error))


def _latex() -> Iterator[Finding]:
    missing = [program for program in LATEX if shutil.which(program) is None]
    if missing:
        yield Finding(
            "error", "LaTeX", f"{', '.join(missing)} not found; `make setup-latex` installs it"
        )
    else:
        yield Finding("ok", "LaTeX", shutil.which(LATEX[0]) or "")


def _image() -> Finding:
    try:
        return Finding("ok", "image", containers.image(ROOT).name)
    except MedscaleError as error:
        return Finding("error", "image", str(error))


def _dask(graph: Graph) -> Iterator[Finding]:
    scheduler = graph.config.dask.scheduler
    if scheduler == "local":
        yield Finding("ok", "Dask", f"{graph.dask_workers()} local workers")
    elif scheduler == "slurm":
        ok = shutil.which("sbatch") is not None
        yield Finding(
            "ok" if ok else "error",
            "Dask",
            "SLURM jobs" if ok else "dask.scheduler is slurm, but no sbatch",
        )
    else:
        host, _, port = scheduler.rpartition("/")[2].rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
            yield Finding("ok", "Dask", f"scheduler {scheduler} answers")
        except (OSError, ValueError) as error:
            yield Finding(
                "error",
                "Dask",
                f"scheduler {scheduler!r} does not answer ({error}); see dask in config.yaml",
            )


def _cluster(graph: Graph) -> Iterator[Finding]:
    """Account and partition as SLURM knows them, and what runs the image."""
    try:
        yield Finding("ok", "SLURM", slurm.check(graph.config.cluster))
    except MedscaleError as error:
        yield Finding("error", "SLURM", str(error))
    if shutil.which("apptainer") is None:
        yield Finding("error", "Apptainer", "not found; it runs the image, here and on every node")


def _disk(graph: Graph, images: dict[str, int]) -> Finding:
    """Shards and runs that are planned, against the free space below the workdir."""
    folder = graph.workdir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**20
    need = (
        sum(count * _bytes_each(graph.config.study(name)) for name, count in images.items()) / 2**20
    )
    stored = [cost.storage(graph.config, name) for name in graph.with_variants]
    need += sum(each["runs"] + each["checkpoints"] for each in stored)
    text = f"{free / 1024:.1f} GB free in {folder}, at most about {need / 1024:.1f} GB needed"
    return (
        Finding("ok", "disk", text)
        if free > need
        else Finding("error", "disk", f"{text}: free some, or set workdir")
    )


def _bytes_each(settings: Study) -> int:
    """Bytes of an image in all shard sets of a study."""
    localized = (
        settings.detect.size if settings.detect is not None and settings.detection_runs else 0
    )
    return 3 * (settings.preprocess.size**2 + localized**2)


def _devices(plans: list[RunPlan], on_cluster: bool) -> Iterator[Finding]:
    """Devices that the runs' names ask for, against those of this machine."""
    cores, gpus = len(os.sched_getaffinity(0)), len(cards.visible())
    most = max((plan.procs_per_node for plan in plans if plan.backend == "cuda"), default=0)
    nodes = max(plan.nodes for plan in plans)
    if on_cluster:
        yield Finding(
            "note", "devices", f"checked by SLURM: up to {nodes} node(s), {most} GPUs a node"
        )
        return
    if most > gpus:
        runs = sorted(
            {
                plan.run.name
                for plan in plans
                if plan.backend == "cuda" and plan.procs_per_node > gpus
            }
        )
        yield Finding(
            "error",
            "GPUs",
            f"{len(runs)} of the runs need up to {most} GPUs, this machine has {gpus}: {', '.join(runs[:4])} …; "
            "use --profile slurm on a cluster, or --profile demo, where CPU processes stand in and everything says so",
        )
    elif most:
        yield Finding("ok", "GPUs", f"{gpus}, up to {most} needed")
    if stand_ins := sorted({plan.run.name for plan in plans if plan.stand_in}):
        yield Finding(
            "note",
            "GPUs",
            f"CPU processes stand in for GPUs, marked as such: {', '.join(stand_ins)}",
        )
    ranks = max((plan.run.devices for plan in plans if plan.backend == "cpu"), default=0)
    if ranks > cores:
        yield Finding(
            "note",
            "CPU",
            f"a run has {ranks} CPU processes on {cores} cores: its speedup means nothing",
        )
    else:
        yield Finding("ok", "CPU", f"{cores} cores, up to {ranks} processes a run")


def _memory(graph: Graph, plans: list[RunPlan]) -> Finding:
    free = psutil.virtual_memory().available / 2**20
    need = max(
        *(cost.memory_mb(graph.config, plan) for plan in plans), graph.dask_workers() * WORKER_MB
    )
    text = f"{free / 1024:.1f} GB free, about {need / 1024:.1f} GB needed"
    return Finding("ok" if free > need else "error", "memory", text)
