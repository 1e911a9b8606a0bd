"""What planned work costs before it is done: minutes, memory, disk, device-hours, by a model whose numbers are config.

A training image takes its operations over the device's peak plus its memory traffic over the device's bandwidth (the
roofs of Williams, Waterman & Patterson, CACM 2009; added, since layers bound by either alternate), divided by the share
of both that training reaches. Data parallel steps add a ring all-reduce (Patarasu & Yuan, JPDC 2009) as far as backward
does not hide it, and lose a constant part by each further device; pipelines lose their bubble (Huang et al., NeurIPS
2019). Where a replicate of the same plan has been measured, its timing.json is taken instead.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.config import planning
from medscale.config.configuration import Config
from medscale.engine.parallel.strategies.registry import STRATEGIES
from medscale.engine.plan import RunPlan
from medscale.resources.machines import DeviceKind, Expected, Network

RESIDENT_SHARE = 0.5  # as in data.loader, which is not imported: it needs PyTorch
TRAFFIC = (
    6  # an activation is written and read by forward, and about twice as much happens in backward
)
CHECKPOINTS = 2  # that are kept while a run goes on, with Adam's moments


@dataclass(frozen=True)
class Estimate:
    """What one replicate of a run costs.

    Attributes:
        minutes: wall time, start and predictions included.
        device_hours: devices of the run's kind times hours.
        memory_mb: host memory of a node, with the margin of the configuration.
        device_mb: memory of one device; the network, its optimizer and one batch.
        images_per_second: of training, over all devices.
        energy_kwh: what the devices draw at their full power.
        money: device-hours by the price table.
        measured: whether time (and memory, but for the margin) come from a replicate that was made.
        note: what a reader must know: an unknown network or data set, images expected and not counted, stand-ins.
    """

    minutes: float
    device_hours: float
    memory_mb: int
    device_mb: int
    images_per_second: float
    energy_kwh: float
    money: float
    measured: bool
    note: str


def minutes(config: Config, plan: RunPlan) -> float:
    """Wall minutes of one replicate on the kind of device that ``cost.gpu`` or ``cost.cpu`` names.

    Raises:
        MedscaleError: when the configuration does not describe that kind of device.
    """
    return estimate(config, plan).minutes


def memory_mb(config: Config, plan: RunPlan) -> int:
    """Host memory, MB, that a node needs for one replicate, with the configuration's margin."""
    return estimate(config, plan).memory_mb


def estimate(config: Config, plan: RunPlan, *, measured: bool = True) -> Estimate:
    """What one replicate costs, from a replicate of the same plan that was made if there is one, else from the model.

    Args:
        config: the configuration, whose section ``cost`` has the numbers.
        plan: the replicate; its seed does not matter.
        measured: False takes the model's word in any case.

    Raises:
        MedscaleError: when the configuration does not describe the plan's kind of device.
    """
    kind = device(config, plan)
    rate = images_per_second(config, plan)
    seconds, host = _modelled_seconds(config, plan, rate), _host_mb(config, plan)
    seen = _measured(config, plan) if measured else None
    if seen is not None:
        seconds, host, rate = (
            seen["wall_seconds"] + config.cost.start_s,
            _seen_mb(config, plan, seen),
            seen["rate"],
        )
    hours = plan.run.devices * seconds / 3600
    return Estimate(
        minutes=seconds / 60,
        device_hours=hours,
        memory_mb=math.ceil(config.cost.margin * host),
        device_mb=math.ceil(_network_mb(config, plan)),
        images_per_second=rate,
        energy_kwh=hours * kind.watts / 1000,
        money=hours * kind.price,
        measured=seen is not None,
        note="; ".join(_notes(config, plan)),
    )


def device(config: Config, plan: RunPlan) -> DeviceKind:
    """The kind of device that carries a plan out: that of ``cost.cpu`` where CPUs stand in for GPUs.

    Raises:
        MedscaleError: when ``cost.devices`` does not have it.
    """
    return kind_of(config, plan.backend)


def kind_of(config: Config, backend: str) -> DeviceKind:
    """The kind of device of a backend, ``cuda`` or ``cpu``.

    Raises:
        MedscaleError: when ``cost.devices`` does not have it.
    """
    name = config.cost.gpu if backend == "cuda" else config.cost.cpu
    if name not in config.cost.devices:
        known = ", ".join(config.cost.devices) or "none"
        raise MedscaleError(
            f"cost.devices has no {name!r} (there are: {known}); describe it in config.yaml"
        )
    return config.cost.devices[name]


def network(config: Config, plan: RunPlan) -> Network:
    """What one image costs a plan's network at the size that it is trained at (conv nets: by the area)."""
    row = config.cost.networks.get(plan.model.name, config.cost.unknown)
    area = (pixels(config, plan) / row.size) ** 2
    return row.model_copy(
        update={"gflops": row.gflops * area, "activations_m": row.activations_m * area}
    )


def pixels(config: Config, plan: RunPlan) -> int:
    """Pixels a side of the images that the network sees."""
    if plan.detect is not None:
        return plan.detect.size
    return plan.augment.crop.size if plan.augment.crop else config.study(plan.study).preprocess.size


def images(config: Config, study: str) -> dict[str, int]:
    """Images by split: those of the index where there is one, else as expected and divided as configured."""
    counted = _counted(config, study)
    if counted is not None:
        return counted
    split, total = config.study(study).split, expected(config, study).images
    return {name: max(1, round(total * getattr(split, name))) for name in ("train", "val", "test")}


def expected(config: Config, study: str) -> Expected:
    """What the configuration expects of a study's images, which may be another study's raw images."""
    return config.cost.expected.get(config.owner(study), config.cost.unknown_images)


def image_seconds(config: Config, plan: RunPlan) -> float:
    """Seconds that one device trains on one image, were it alone and the steps long."""
    kind, net = device(config, plan), network(config, plan)
    tflops = kind.tflops_amp if plan.run.amp else kind.tflops
    width = 2 if plan.run.amp else 4  # bytes a number
    forward = net.gflops / (1e3 * tflops) + TRAFFIC / 3 * width * net.activations_m / (
        1e3 * kind.memory_gb_s
    )
    return config.cost.trained[plan.model.trained] * forward / (kind.share * net.share)


def allreduce_seconds(config: Config, plan: RunPlan) -> float:
    """Return the seconds of one ring all-reduce of the gradients, times the strategy's traffic."""
    ways = plan.run.replicas
    if ways == 1:
        return 0.0
    link = device(config, plan).link_gb_s
    link = link if plan.nodes == 1 else min(link, config.cost.network_gb_s)
    trained = network(config, plan).parameters_m * (1 if plan.model.trained == "all" else 0.3)
    bytes_each = 4e6 * trained / plan.run.stages
    return (
        STRATEGIES[plan.run.strategy].costs.traffic
        * 2
        * (ways - 1)
        / ways
        * bytes_each
        / (1e9 * link)
    )


def step_seconds(config: Config, plan: RunPlan) -> float:
    """Seconds of one optimizer step over the global batch."""
    kind, run, many = device(config, plan), plan.run, plan.parallel.microbatches
    ways = config.cost.strategies[run.strategy]
    kept, syncs = (ways.share, ways.syncs) if run.devices > 1 else (1.0, 0.0)
    share = math.ceil(plan.global_batch / run.replicas)  # images a replica
    compute = share * image_seconds(config, plan) / run.stages / kept
    if run.stages > 1:  # a pipeline idles while it fills and drains
        compute *= (many + run.stages - 1) / many
    if run.mp:
        compute, syncs = (
            compute / config.cost.strategies["mp"].share,
            syncs + config.cost.strategies["mp"].syncs,
        )
    compute = max(compute, kind.step_ms / 1000, share / run.stages / config.cost.load_per_process)
    compute *= 1 + kind.contention * (run.devices - 1)
    return (
        compute
        + syncs * kind.sync_ms / 1000
        + config.cost.exposed * allreduce_seconds(config, plan)
    )


def images_per_second(config: Config, plan: RunPlan) -> float:
    """Training images a second over all devices."""
    return plan.global_batch / step_seconds(config, plan)


def preparation(config: Config, study: str, workers: int) -> dict[str, float]:
    """Minutes of the stages of a study besides training: ``index, shards, evaluate, report``.

    Args:
        config: the configuration.
        study: its name.
        workers: Dask workers, a core each; evaluation and report use one.
    """
    total, cost = sum(images(config, study).values()), config.cost
    known = expected(config, study)
    read = total * known.mb_each / cost.hash_mb_s / workers  # files are hashed whole
    tested = total - images(config, study)["train"]
    classes = len(config.study(study).classes or range(40))
    seconds = {
        "index": total / cost.index_per_core / workers + read,
        "shards": total / known.per_core / workers,
        "evaluate": 1e-6 * cost.evaluate_us * tested * classes * len(config.seeds_of(study)),
        "report": 60 + 1e-6 * cost.report_us * total,
    }
    return {stage: (cost.start_s + one) / 60 for stage, one in seconds.items()}


def storage(config: Config, study: str) -> dict[str, float]:
    """Disk of a study in MB: ``raw, shards, runs`` (outputs of all), ``checkpoints`` (of one run while it goes on)."""
    settings, total = config.study(study), sum(images(config, study).values())
    localized = (
        settings.detect.size if settings.detect is not None and settings.detection_runs else 0
    )
    plans = [planning.plan(config, study, run, 0) for run in settings.runs]
    weights = [4 * network(config, plan).parameters_m for plan in plans]
    rows = total * 8 * (len(settings.classes or range(40)) + 3) / 1e6
    return {
        "raw": total * expected(config, study).mb_each if config.owner(study) == study else 0.0,
        "shards": total * 3 * (settings.preprocess.size**2 + localized**2) / 1e6,
        "runs": len(config.seeds_of(study)) * sum(one + rows for one in weights),
        "checkpoints": CHECKPOINTS * 3 * max(weights),
    }


def _modelled_seconds(config: Config, plan: RunPlan, rate: float) -> float:
    """Start, all epochs of the recipe (early stopping may end them sooner), and the predictions."""
    split = images(config, plan.study)
    boxed = (
        expected(config, plan.study).with_boxes
        if plan.detect and plan.detect.images == "with_boxes"
        else 1.0
    )
    forward = rate * config.cost.trained[plan.model.trained]
    epoch = boxed * split["train"] / rate + boxed * split["val"] / forward
    return (
        config.cost.start_s + plan.recipe.epochs * epoch + (split["val"] + split["test"]) / forward
    )


def _network_mb(config: Config, plan: RunPlan) -> float:
    """Weights, gradients and Adam's moments of one device, and its part of a batch with activations and gradients."""
    net, run = network(config, plan), plan.run
    spread = run.devices if STRATEGIES[run.strategy].costs.sharded else run.stages
    share = math.ceil(plan.global_batch / run.replicas / plan.recipe.accumulate)
    width = 2 if run.amp else 4
    return 16 * net.parameters_m / spread + 2 * width * share * net.activations_m / run.stages


def _host_mb(config: Config, plan: RunPlan) -> float:
    """Host memory of a node: launcher and ranks, on CPU with the networks, on CUDA with splits on their way there."""
    cost, each = config.cost, config.cost.rank_mb
    if plan.backend == "cpu":
        each += _network_mb(config, plan)
    else:
        whole = (
            images(config, plan.study)["train"]
            * 3
            * config.study(plan.study).preprocess.size ** 2
            / 1e6
        )
        resident = whole < RESIDENT_SHARE * 1000 * device(config, plan).memory_gb
        each += cost.cuda_mb + (whole if resident else 0)
    return cost.launcher_mb + plan.procs_per_node * each


def _seen_mb(config: Config, plan: RunPlan, timing: dict[str, float]) -> float:
    return config.cost.launcher_mb + timing["host_mb"] * plan.procs_per_node / plan.run.devices


def _measured(config: Config, plan: RunPlan) -> dict[str, float] | None:
    """Mean ``wall_seconds, rate, host_mb`` over the replicates that were made of the same plan; None for none."""
    folder = _workdir(config) / "runs" / plan.study / plan.run.name
    wanted = plan.model_dump(mode="json", exclude={"seed"})
    found = []
    for path in sorted(folder.glob("seed*/timing.json")):
        spec, timing = read_json(path.with_name("spec.json")), read_json(path)
        if {key: value for key, value in spec.items() if key != "seed"} == wanted and timing[
            "restarts"
        ] == 0:
            memory = sum(timing["peak_memory_mb"]["host"])
            found.append((timing["wall_seconds"], timing["images_per_second"], memory))
    if not found:
        return None
    means = [sum(column) / len(found) for column in zip(*found, strict=True)]
    return dict(zip(("wall_seconds", "rate", "host_mb"), means, strict=True))


def _counted(config: Config, study: str) -> dict[str, int] | None:
    """Images by split from the study's audit.json; None before it is indexed."""
    path = _workdir(config) / "data" / study / "audit.json"
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))["counts"]
    except (OSError, ValueError, KeyError):
        return None
    return {split: sum(of[split] for of in counts.values()) for split in ("train", "val", "test")}


def _workdir(config: Config) -> Path:
    return config.workdir if config.workdir.is_absolute() else ROOT / config.workdir


def _notes(config: Config, plan: RunPlan) -> list[str]:
    said = (
        ("CPU processes stand in for GPUs", plan.stand_in),
        (
            f"{plan.model.name} is not among cost.networks: a network of middle size",
            _unknown(config, plan),
        ),
        ("images as expected, not counted yet", _counted(config, plan.study) is None),
        (
            "images of unknown number",
            _counted(config, plan.study) is None
            and config.owner(plan.study) not in config.cost.expected,
        ),
        ("early stopping may end it sooner", plan.recipe.patience is not None),
    )
    return [text for text, applies in said if applies]


def _unknown(config: Config, plan: RunPlan) -> bool:
    return plan.model.name not in config.cost.networks
