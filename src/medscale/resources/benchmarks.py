"""The time of the jobs that measure or use trained networks: benchmarks, external sets.

Times follow from the numbers of the section ``cost``: the rate at which a core preprocesses images,
the forward pass of a network on CPU cores, and the start of a job or of a group of processes.
The ways that need a GPU (CUDA graphs, TensorRT) are not in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from medscale.config import planning
from medscale.config.configuration import Config
from medscale.resources import compute, cost

SHARING_WAYS = 3  # ways of loading that read raw files by each number of processes
WARM_UP_BATCHES = 2  # of each process and way of loading
COMPILED = "compiled"  # the way to run a network by torch.compile on CPU cores
CAPTURED = "captured"  # beginning of the names of the ways to run a network that need a GPU
ABSENT = "check_target refuses studies without this benchmark"

Rule = Callable[[Config, Mapping[str, str], int], float]  # seconds without the job's start


def minutes(config: Config, rule: str, wildcards: Mapping[str, str], cpus: int) -> float | None:
    """Return the minutes of a job, or None for a rule that this module does not describe.

    Args:
        config: the configuration with the section ``cost``.
        rule: name of the rule.
        wildcards: wildcards of the job: ``study``, and ``run`` for an external set.
        cpus: CPU cores of the job.

    Raises:
        MedscaleError: when ``cost.devices`` does not describe a CPU core.
    """
    if rule not in RULES:
        return None
    return (config.cost.start_s + RULES[rule](config, wildcards, cpus)) / 60


def _enhance(config: Config, wildcards: Mapping[str, str], cpus: int) -> float:
    """Each number of workers starts, reads all files once, and preprocesses all images."""
    study = wildcards["study"]
    settings = config.study(study).benchmarks.enhance
    assert settings is not None, ABSENT
    raw, total = cost.expected_images(config, study), sum(cost.images(config, study).values())
    reading = total * raw.mb_each / config.cost.hash_mb_s
    work = total / raw.per_core
    passes = [config.cost.start_s + reading + work / min(count, cpus) for count in settings.workers]
    return settings.repeats * sum(passes)


def _loading(config: Config, wildcards: Mapping[str, str], cpus: int) -> float:
    """One process, then each way on each number of processes, deliver the same images."""
    study = wildcards["study"]
    settings = config.study(study).benchmarks.loading
    assert settings is not None, ABSENT
    per_core, counts = cost.expected_images(config, study).per_core, settings.processes
    step = math.lcm(*counts)
    images = min(settings.images, cost.images(config, study)["train"]) // step * step
    shares = sum(1 / min(count, cpus) for count in counts)
    warm_up = WARM_UP_BATCHES * settings.batch_size * (1 + SHARING_WAYS * len(counts))
    from_files = (images * (1 + SHARING_WAYS * shares) + warm_up) / per_core
    from_shards = images * shares / config.cost.load_per_process
    starts = len({1, *counts}) * config.cost.start_s
    return starts + settings.repeats * (from_files + from_shards)


def _export(config: Config, wildcards: Mapping[str, str], cpus: int) -> float:
    """PyTorch and each file take the test images once to be compared, then in each repetition."""
    study = wildcards["study"]
    settings = config.study(study).benchmarks.export
    assert settings is not None, ABSENT
    counts = cost.images(config, study)
    passes = (2 + len(settings.formats)) * (1 + settings.repeats)
    images = min(settings.images, counts["test"]) * passes
    images += min(settings.calibration, counts["val"])
    # An export writes a network's ONNX file once and converts it to the other formats.
    fixed = config.cost.start_s + config.cost.onnx_s
    return sum(fixed + images * _forward_seconds(config, study, run, cpus) for run in settings.runs)


def _inference(config: Config, wildcards: Mapping[str, str], cpus: int) -> float:
    """Return the seconds of the inference benchmark.

    Each way to run a network is timed on each number of threads: single calls, a pass over the
    images for each batch size, and one with decoding. Before these, ``torch.compile`` compiles.
    """
    study = wildcards["study"]
    sections = config.study(study).benchmarks
    settings, export = sections.inference, sections.export
    assert settings is not None, ABSENT
    assert export is not None, ABSENT
    images = min(settings.images, cost.images(config, study)["test"])
    compiled = COMPILED in settings.ways
    ways = sum(not way.startswith(CAPTURED) for way in settings.ways)
    passes = settings.calls + images + sum(max(images, size) for size in settings.batches)
    seconds = 0.0
    counts = {min(count or cpus, cpus) for count in settings.threads}
    for threads in counts:
        decoding = images / cost.expected_images(config, study).per_core / threads
        for run in export.runs:
            network = passes * _forward_seconds(config, study, run, threads)
            seconds += ways * (network + decoding) + decoding
    # A network is compiled anew for each number of threads.
    fixed = config.cost.start_s + compiled * len(counts) * config.cost.compile_s
    return len(export.runs) * fixed + settings.repeats * seconds


def _external(config: Config, wildcards: Mapping[str, str], cpus: int) -> float:
    """Images are preprocessed, predicted by all replicates of the run, and evaluated."""
    study, owner = wildcards["study"], config.study(wildcards["study"]).external_of
    assert owner is not None, "check_target refuses studies that are no external set"
    networks = len(config.replicates_of(owner))
    images = sum(cost.images(config, study).values())
    decoding = images / cost.expected_images(config, study).per_core / cpus
    forward = networks * images * _forward_seconds(config, owner, wildcards["run"], cpus)
    return decoding + forward + networks * cost.evaluation_seconds(config, owner, images)


def _reference(config: Config, wildcards: Mapping[str, str], cpus: int) -> float:
    """The shards are read by one process, and the predictions of the test split evaluated."""
    study = wildcards["study"]
    counts = cost.images(config, study)
    reading = sum(counts.values()) / config.cost.load_per_process
    return reading + cost.evaluation_seconds(config, study, counts["test"])


def _forward_seconds(config: Config, study: str, run: str, cpus: int) -> float:
    """Return the seconds of a network's forward pass of an image on CPU cores."""
    plan = planning.plan(config, study, run, 0).model_copy(update={"backend": "cpu"})
    one_core = compute.image_seconds(config, plan) / config.cost.trained[plan.model.trained]
    return one_core / cpus * (1 + compute.device(config, plan).contention * (cpus - 1))


RULES: dict[str, Rule] = {
    "enhance": _enhance,
    "loading": _loading,
    "export": _export,
    "inference": _inference,
    "external": _external,
    "reference": _reference,
}
