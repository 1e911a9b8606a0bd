"""Profiles one run on all its ranks and writes the profiled folder."""

import gzip
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from time import monotonic
from typing import Any

import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.base.files import atomic, write_json, write_parquet
from medscale.base.log import log
from medscale.base.provenance import environment
from medscale.config.benchmarks import Profile
from medscale.data.shards import Shards
from medscale.engine.parallel.world import World
from medscale.engine.plan import RunPlan
from medscale.engine.train.graphs import release
from medscale.engine.train.guard import Watch
from medscale.engine.train.replicate import explaining, ready
from medscale.engine.train.task import Task
from medscale.measure.profiling import bottleneck, ceilings
from medscale.measure.profiling.bottleneck import Numbers
from medscale.measure.profiling.kinds import KINDS
from medscale.measure.profiling.timeline import Timeline, analyse
from medscale.measure.profiling.trace import events
from medscale.measure.profiling.window import Measurements, Window, WindowEnd

WAITS = ("communication", "data", "idle")  # kinds in which a rank does not compute


@dataclass
class Rank:
    """The results of one rank."""

    measurements: Measurements  # times, work and trace
    timeline: Timeline  # the analysis of the trace
    ceiling: dict[str, float]  # measured ``flops`` and ``bytes`` per second
    threads: int  # CPU threads of the process


def profile_run(
    plan: RunPlan,
    shards: Shards,
    task: Task,
    out: Path,
    world: World,
    watch: Watch,
    settings: Profile,
) -> None:
    """Train a run for the profiled steps only, and write its profiled folder, without weights.

    Args:
        plan: plan of the run.
        shards: images of the study.
        task: task of the plan.
        out: the profiled folder.
        world: ranks of the run; each calls this function.
        watch: watchdog of the rank.
        settings: numbers of steps, and settings of the profiler.

    Raises:
        MedscaleError: when the loss is not finite, memory runs out, or the plan does not fit the
            shards.
    """
    with explaining(plan):
        trainer, _ = ready(_unsaved(plan), shards, task, out, world, watch, monotonic())
        window = Window(trainer.training, settings, world.device, trainer.optimize.eager)
        trainer.steps = window.steps
        if world.is_main:
            log.info(
                "%s %s: %d steps warm up, %d are timed, %d are traced",
                plan.study,
                plan.run.name,
                settings.warmup,
                settings.steps,
                settings.steps,
            )
        with suppress(WindowEnd):
            trainer.run()
    trainer.watchdog.rest()
    form = trainer.precision.format
    world.meet()  # all ranks measure at the same time, since they share the memory bandwidth
    ceiling = ceilings.measure(world.device, form)
    timeline = analyse(events(window.measurements.trace))
    _keep_trace(out / f"trace-rank{world.rank}.json.gz", window.measurements)
    ranks = world.gather(Rank(window.measurements, timeline, ceiling, world.threads))
    if ranks is not None:
        write(out, plan, settings, form, ranks, {"shards": shards.meta["digest"]})
    release(trainer)
    trainer.watchdog.dismiss()


def _unsaved(plan: RunPlan) -> RunPlan:
    """Return the plan without checkpoints, which would take time within the window."""
    parallel = plan.parallel.model_copy(
        update={"checkpoint_every_steps": None, "checkpoint_every_s": 1e9}
    )
    return plan.model_copy(update={"parallel": parallel})


def _keep_trace(path: Path, measurements: Measurements) -> None:
    """Write the trace and free its memory, since ``measurements`` is sent to rank 0."""
    with (
        atomic(path) as temporary,
        gzip.open(temporary, "wt", compresslevel=4, encoding="utf-8") as file,
    ):
        file.write(measurements.trace)
    measurements.trace = ""


def write(
    out: Path,
    plan: RunPlan,
    settings: Profile,
    form: str,
    ranks: Sequence[Rank],
    inputs: dict[str, Any],
) -> None:
    """Write the tables of all ranks, and profile.json with the bottleneck.

    Args:
        out: the profiled folder.
        plan: plan of the run.
        settings: settings of the profiler.
        form: number format of convolutions and products, a key of ``ceilings.DTYPES``.
        ranks: results in the order of the ranks.
        inputs: digests of the inputs, by name.

    Raises:
        MedscaleError: when no FLOPs were counted, so that there is no roofline.
    """
    rank_records = [_record(rank) for rank in ranks]
    numbers = _numbers(plan, [rank.timeline for rank in ranks], rank_records)
    for name in ("operators", "kernels", "memory"):
        parts = [
            getattr(rank.timeline, name).assign(rank=number) for number, rank in enumerate(ranks)
        ]
        write_parquet(out / f"{name}.parquet", pd.concat(parts, ignore_index=True))
    write_parquet(out / "kinds.parquet", _kinds(ranks))
    content = {
        "study": plan.study,
        "run": plan.run.name,
        "model": plan.model.name,
        "marks": {"synthetic": plan.synthetic, "stand_in": plan.stand_in, "scale": plan.scale},
        "machine": environment(plan, inputs),
        "settings": settings.model_dump(exclude={"runs"}),
        "device": plan.backend,
        "format": form,
        "threads": ranks[0].threads,
        "images_a_step": ranks[0].measurements.images / settings.steps,
        "ranks": rank_records,
        "numbers": asdict(numbers),
        "bottleneck": {"rule": bottleneck.rule(numbers), "says": bottleneck.sentence(numbers)},
    }
    write_json(out / "profile.json", content)
    log.info("%s: %s", plan.run.name, bottleneck.sentence(numbers))


def _kinds(ranks: Sequence[Rank]) -> pd.DataFrame:
    """Return the seconds of a step, and the share of the window, by rank and kind of work."""
    return pd.DataFrame(
        {
            "rank": number,
            "kind": kind,
            "seconds": seconds / rank.timeline.steps,
            "share": seconds / rank.timeline.window_s,
        }
        for number, rank in enumerate(ranks)
        for kind, seconds in rank.timeline.kinds.items()
    )


def _record(rank: Rank) -> dict[str, Any]:
    """Return a rank's part of profile.json; times and amounts are means or medians of a step."""
    return {
        "seconds": median(rank.measurements.seconds),
        "data_s": median(rank.measurements.data_s),
        "profiled_s": rank.measurements.profiled_s,
        "communication_s": rank.timeline.communication_s / rank.timeline.steps,
        "allocations": rank.timeline.allocations / rank.timeline.steps,
        "allocated_bytes": rank.timeline.allocated_bytes / rank.timeline.steps,
        "ceiling": rank.ceiling,
        "work": asdict(rank.measurements.work),
    }


def _numbers(
    plan: RunPlan, timelines: Sequence[Timeline], rank_records: Sequence[dict[str, Any]]
) -> Numbers:
    share = {
        kind: fmean(timeline.kinds[kind] / timeline.window_s for timeline in timelines)
        for kind in KINDS
    }
    largest = max((kind for kind in KINDS if kind not in WAITS), key=lambda kind: share[kind])
    busy = [
        timeline.window_s - sum(timeline.kinds[kind] for kind in WAITS) for timeline in timelines
    ]
    flops, traffic = (
        sum(sum(rank["work"][unit].values()) for rank in rank_records)
        for unit in ("flops", "bytes")
    )
    if not flops or not traffic:
        raise MedscaleError(
            f"{plan.run.name}: no FLOPs were counted in a training step, so there is no roofline; "
            "profile a network with convolutions or matrix products"
        )
    seconds = fmean(rank["seconds"] for rank in rank_records)
    return Numbers(
        data=share["data"],
        communication=share["communication"],
        optimizer=share["optimizer"],
        idle=share["idle"],
        imbalance=max(busy) / min(busy) - 1,
        slowdown=max(rank["profiled_s"] for rank in rank_records) / seconds - 1,
        flops=flops,
        bytes=traffic,
        seconds=seconds,
        ceiling_flops=sum(rank["ceiling"]["flops"] for rank in rank_records),
        ceiling_bytes=sum(rank["ceiling"]["bytes"] for rank in rank_records),
        largest=largest,
        largest_share=share[largest],
        cuda=plan.backend == "cuda",
    )
