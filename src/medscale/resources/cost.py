"""The cost model: estimates of time, memory, disk space and money before a run.

Its numbers are the section ``cost`` of the configuration.

- Training time of an image on a device: `compute.py`.
- Data parallel steps: plus the part of a ring all-reduce (Patarasu & Yuan, JPDC 2009) that the
  backward pass does not hide, and a constant relative loss for each further device.
- Pipelines: plus the bubble, in which stages idle (Huang et al., NeurIPS 2019).

If a replicate of the same plan has been trained, its timing.json replaces the model.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.files import read_json
from medscale.config import planning
from medscale.config.configuration import Config
from medscale.config.sections import Study
from medscale.config.sweep import trainings
from medscale.data.limits import RESIDENT_SHARE
from medscale.data.listing import list_folder
from medscale.data.settings import SPLITS
from medscale.engine.formats import in_format
from medscale.engine.parallel.strategies.registry import STRATEGIES
from medscale.engine.plan import KEPT_CHECKPOINTS, RunPlan
from medscale.engine.resolve import epochs
from medscale.resources.compute import (
    device,
    image_seconds,
    measured_rate,
    network,
    strategy_share,
)
from medscale.resources.machines import Expected

# Weights, gradients and Adam's two moments in memory; a checkpoint has all but the gradients.
STATES, STORED_STATES = 4, 3
FROZEN_GRADIENTS = 0.3  # share of the parameters that have gradients if blocks are frozen
UNKNOWN_CLASSES = 40


@dataclass(frozen=True)
class Estimate:
    """The cost of one replicate of a run."""

    minutes: float  # wall time, including start and predictions
    device_hours: float  # number of devices times hours
    memory_mb: int  # host memory of a node, with the margin of the configuration
    device_mb: int  # memory of one device: the network, its optimizer and one batch
    images_per_second: float  # of training, over all devices
    energy_kwh: float  # energy of the devices at full power
    money: float  # price of the device-hours
    measured: bool  # whether time and memory (without the margin) come from a trained replicate
    note: str  # remarks: an unknown network or data set, images not counted yet, stand-ins


def estimate(config: Config, plan: RunPlan, *, measured: bool = True) -> Estimate:
    """Estimate the cost of one replicate, from trained replicates of the same plan or the model.

    Args:
        config: the configuration with the section ``cost``.
        plan: plan of the replicate; its seed and fold do not matter.
        measured: whether to use trained replicates.

    Raises:
        MedscaleError: when the configuration does not describe the plan's kind of device.
    """
    kind = device(config, plan)
    rate = images_per_second(config, plan)
    seconds, host = _modelled_seconds(config, plan, rate), _host_mb(config, plan)
    timing = _measured_means(config, plan) if measured else None
    if timing is not None:
        seconds, rate = timing["wall_seconds"] + config.cost.start_s, timing["rate"]
        host = timing["host_mb"] * plan.procs_per_node / plan.run.devices
        host += config.cost.launcher_mb
    hours = plan.run.devices * seconds / 3600
    return Estimate(
        minutes=seconds / 60,
        device_hours=hours,
        memory_mb=math.ceil(config.cost.margin * host),
        device_mb=math.ceil(_network_mb(config, plan)),
        images_per_second=rate,
        energy_kwh=hours * kind.watts / 1000,
        money=hours * kind.price,
        measured=timing is not None,
        note="; ".join(_notes(config, plan)),
    )


def of_formats(config: Config, study: str) -> list[Estimate]:
    """Estimate each training of a study's benchmark of number formats."""
    settings = config.study(study).benchmarks.formats
    assert settings is not None
    run = planning.plan(config, study, settings.run, 0)
    return [
        estimate(config, in_format(run, name, settings.epochs, seed))
        for seed in config.seeds_of(study)
        for name in settings.formats
    ]


def images(config: Config, study: str) -> dict[str, int]:
    """Return the number of images of each split, as indexed.

    Before indexing it follows from the expected number. A study that ``cost.expected`` lacks has as
    many images as image files in its raw folder, if there are any.
    """
    counts = _image_counts(config, study)
    if counts is not None:
        return counts
    split = config.study(study).split
    total = _unexpected_files(config, study) or expected_images(config, study).images
    return {name: max(1, round(total * getattr(split, name))) for name in SPLITS}


def expected_images(config: Config, study: str) -> Expected:
    """Return the expected images of the study, or of the study that owns its raw images."""
    return config.cost.expected.get(config.owner(study), config.cost.unknown_images)


def is_number_assumed(config: Config, study: str) -> bool:
    """Return whether the images of a study are neither indexed nor expected nor in its folder."""
    if config.owner(study) in config.cost.expected or _image_counts(config, study) is not None:
        return False
    return not _unexpected_files(config, study)


def allreduce_seconds(config: Config, plan: RunPlan) -> float:
    """Return the seconds of one ring all-reduce of the gradients, times the strategy's factor."""
    replicas = plan.run.replicas
    if replicas == 1:
        return 0.0
    link = device(config, plan).link_gb_s
    link = link if plan.nodes == 1 else min(link, config.cost.network_gb_s)
    trained_share = 1 if plan.model.trained == "all" else FROZEN_GRADIENTS
    gradients = 4e6 * (network(config, plan).parameters_m * trained_share) / plan.run.stages
    traffic = STRATEGIES[plan.run.strategy].costs.traffic
    return traffic * 2 * (replicas - 1) / replicas * gradients / (1e9 * link)


def step_seconds(config: Config, plan: RunPlan) -> float:
    """Return the seconds of one optimizer step over the global batch."""
    cost, kind, run = config.cost, device(config, plan), plan.run
    speed = strategy_share(config, plan)
    syncs = cost.strategies[run.strategy].syncs if run.devices > 1 else 0.0
    share = math.ceil(plan.global_batch / run.replicas)  # images of a replica
    compute = share * image_seconds(config, plan) / run.stages / speed
    if run.stages > 1:  # a pipeline idles while it fills and drains
        microbatches = plan.parallel.microbatches
        compute *= (microbatches + run.stages - 1) / microbatches
    if run.mp:
        pipeline = cost.strategies["mp"]
        compute, syncs = compute / pipeline.share, syncs + pipeline.syncs
    # A step takes at least the time to launch its kernels, once for each part of its images, and to
    # load its images. A measured rate includes the launches.
    is_measured = measured_rate(config, plan) is not None
    launch = 0.0 if is_measured else plan.recipe.accumulate * kind.step_ms / 1000
    compute = max(compute, launch, share / run.stages / cost.load_per_process)
    compute *= 1 + kind.contention * (run.devices - 1)
    return compute + syncs * kind.sync_ms / 1000 + cost.exposed * allreduce_seconds(config, plan)


def images_per_second(config: Config, plan: RunPlan) -> float:
    """Return the training images per second over all devices."""
    return plan.global_batch / step_seconds(config, plan)


def preparation(config: Config, study: str, workers: int) -> dict[str, float]:
    """Return the minutes of a study's other stages: ``index, shards, evaluate, report``.

    Args:
        study: name of the study.
        workers: number of Dask workers with one core each; evaluation and report use one core.
    """
    total, cost = sum(images(config, study).values()), config.cost
    raw = expected_images(config, study)
    reading = total * raw.mb_each / cost.hash_mb_s / workers  # whole files are hashed
    split = config.study(study).split
    predicted_images = total - images(config, study)["train"]
    if split.folds is not None:  # each image is tested, and some validate several folds
        predicted_images = round(total * (1 + split.folds * split.val))
    one_seed = evaluation_seconds(config, study, predicted_images)
    seconds = {
        "index": total / cost.index_per_core / workers + reading,
        "shards": total / raw.per_core / workers,
        "evaluate": one_seed * len(config.seeds_of(study)),
        "report": 60 + 1e-6 * cost.report_us * total,
    }
    return {stage: (cost.start_s + work) / 60 for stage, work in seconds.items()}


def evaluation_seconds(config: Config, study: str, images: int) -> float:
    """Return the seconds to evaluate a network's predictions for a number of images."""
    return 1e-6 * config.cost.evaluate_us * images * _classes(config, study)


def storage(config: Config, study: str) -> dict[str, float]:
    """Return the disk space of a study in MB: ``raw, shards, runs, checkpoints``.

    ``runs`` are the outputs of all runs; ``checkpoints`` are those of one run during its training.
    """
    settings, total = config.study(study), sum(images(config, study).values())
    run_list = trainings(config, study)
    plans = [planning.plan(config, entry, run, 0) for entry, run, _ in run_list]
    counts = [len(config.replicates_of(entry, seeds)) for entry, _, seeds in run_list]
    weights = [4 * network(config, plan).parameters_m for plan in plans]
    rows = total * 8 * (_classes(config, study) + 3) / 1e6  # of predictions.parquet
    return {
        "raw": total * expected_images(config, study).mb_each
        if config.owner(study) == study
        else 0.0,
        "shards": total * image_mb(settings),
        "runs": sum(n * (size + rows) for n, size in zip(counts, weights, strict=True)),
        "checkpoints": KEPT_CHECKPOINTS * STORED_STATES * max(weights),
    }


def image_mb(settings: Study) -> float:
    """Return the MB of an image in all shard sets of a study: uint8, three channels."""
    sides = [settings.preprocess.size]
    sides += [settings.detect.size] if settings.detect and settings.detection_runs else []
    return sum(3 * side**2 for side in sides) / 1e6


def _classes(config: Config, study: str) -> int:
    return len(config.study(study).classes or range(UNKNOWN_CLASSES))


def _modelled_seconds(config: Config, plan: RunPlan, rate: float) -> float:
    """Return the seconds of start, all epochs (early stopping is ignored) and predictions."""
    split = images(config, plan.study)
    only_boxes = plan.detect is not None and plan.detect.images == "with_boxes"
    share_with_boxes = expected_images(config, plan.study).with_boxes if only_boxes else 1.0
    forward = rate * config.cost.trained[plan.model.trained]
    epoch = share_with_boxes * split["train"] / rate + share_with_boxes * split["val"] / forward
    rounds = epochs(plan.recipe, math.ceil(share_with_boxes * split["train"]), plan.global_batch)
    predictions = (split["val"] + split["test"]) / forward
    return config.cost.start_s + rounds * epoch + predictions


def _network_mb(config: Config, plan: RunPlan) -> float:
    """Return the memory of one device in MB: states of the network, activations, gradients."""
    net, run = network(config, plan), plan.run
    spread = run.devices if STRATEGIES[run.strategy].costs.sharded else run.stages
    width = 2 if run.amp else 4
    states = 4 * STATES * net.parameters_m / spread
    return states + 2 * width * plan.images_at_a_time * net.activations_m / run.stages


def _host_mb(config: Config, plan: RunPlan) -> float:
    """Return the host memory of a node in MB: the launcher, and each rank.

    A rank on a CPU has its network in memory. A rank on a GPU has the libraries of CUDA, and the
    training split while it is copied to the device.
    """
    cost, rank_mb = config.cost, config.cost.rank_mb
    if plan.backend == "cpu":
        rank_mb += _network_mb(config, plan)
    else:
        size = config.study(plan.study).preprocess.size
        whole = images(config, plan.study)["train"] * 3 * size**2 / 1e6
        resident = whole < RESIDENT_SHARE * 1000 * device(config, plan).memory_gb
        rank_mb += cost.cuda_mb + (whole if resident else 0)
    return cost.launcher_mb + plan.procs_per_node * rank_mb


def _measured_means(config: Config, plan: RunPlan) -> dict[str, float] | None:
    """Return the means of ``wall_seconds, rate, host_mb`` over trained replicates of the same plan.

    Replicates that were restarted, or whose plan is being written anew, do not count. The result is
    None if no replicate counts.
    """
    folder = ROOT / config.workdir / "runs" / plan.study / plan.run.name
    plan_fields = plan.model_dump(mode="json", exclude={"seed", "fold"})
    rows = []
    for path in sorted(folder.glob("seed*/timing.json")):
        try:
            spec, timing = read_json(path.with_name("spec.json")), read_json(path)
        except MedscaleError:
            continue
        spec = {key: value for key, value in spec.items() if key not in ("seed", "fold")}
        if spec == plan_fields and timing["restarts"] == 0:
            memory = sum(timing["peak_memory_mb"]["host"])
            rows.append((timing["wall_seconds"], timing["images_per_second"], memory))
    if not rows:
        return None
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return dict(zip(("wall_seconds", "rate", "host_mb"), means, strict=True))


def _unexpected_files(config: Config, study: str) -> int:
    """Return the number of image files in a raw folder; 0 if ``cost.expected`` has the study."""
    owner = config.owner(study)
    return 0 if owner in config.cost.expected else _image_files(config.raw(owner))


@cache
def _image_files(folder: Path) -> int:
    """Return the number of image files in a raw folder; 0 if it cannot be listed."""
    try:
        return len(list_folder(folder, "").images)
    except MedscaleError:
        return 0


def _image_counts(config: Config, study: str) -> dict[str, int] | None:
    """Return the images by split from the study's audit.json; None before it is indexed."""
    path = ROOT / config.workdir / "data" / config.data_of(study) / "audit.json"
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))["counts"]
    except (OSError, ValueError, KeyError):
        return None
    return {split: sum(by_split[split] for by_split in counts.values()) for split in SPLITS}


def _notes(config: Config, plan: RunPlan) -> list[str]:
    counts = _image_counts(config, plan.study) is not None
    remarks = (
        ("CPU processes stand in for GPUs", plan.stand_in),
        (
            f"{plan.model.name} is not among cost.networks: a network of middle size",
            plan.model.name not in config.cost.networks,
        ),
        ("images not counted yet by an index", not counts),
        (
            f"rate of {device(config, plan).card} as measured (docs/gpu.csv)",
            measured_rate(config, plan) is not None,
        ),
        ("images of unknown number", is_number_assumed(config, plan.study)),
        ("early stopping may end it sooner", plan.recipe.patience is not None),
    )
    return [text for text, applies in remarks if applies]
