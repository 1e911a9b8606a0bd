"""Sections of the configuration on machines: nodes, cluster, Dask, and the cost model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medscale.base.section import Strict
from medscale.engine.parallel.strategies.registry import STRATEGIES


class Node(Strict):
    """One node of the cluster, or this machine."""

    gpus: int = Field(4, ge=0)
    cpus: int = Field(32, ge=1)
    memory_mb: int | None = Field(
        None, ge=1, description="largest request of a job; None: no limit"
    )


class Cluster(Strict):
    """Settings of SLURM for all jobs; set once, in profiles/slurm/site.yaml."""

    account: str | None = Field(
        None, description="account: `sacctmgr show assoc user=$USER format=account`"
    )
    partition: str | None = Field(None, description="partition of the jobs: `sinfo`")
    gpu_model: str | None = Field(
        None, description="SLURM's name of the kind of GPU, if a partition has several"
    )
    binds: list[Path] = Field(
        [], description="folders that jobs in the image see in addition to the project's"
    )
    max_minutes: int = Field(
        1440, ge=2, description="time limit of the partition; longer jobs run in several turns"
    )
    safety: float = Field(1.5, ge=1, description="factor on the wall time of the cost model")
    least_minutes: int = Field(20, ge=1, description="smallest requested wall time")
    least_mb: int = Field(3000, ge=1, description="smallest requested memory")
    save_s: int = Field(
        180,
        ge=1,
        description="seconds before the limit at which SIGUSR1 tells training to save",
    )


class DeviceKind(Strict):
    """One kind of device: its data sheet, and the share of it that training reaches."""

    title: str
    card: str | None = Field(
        None, description="name by the driver, by which docs/gpu.csv has measured rates"
    )
    tflops: float = Field(gt=0, description="peak of fp32")
    tflops_tf32: float | None = Field(
        None, gt=0, description="peak of TF32; None: the device has neither TF32 nor bf16"
    )
    tflops_amp: float = Field(gt=0, description="peak of mixed precision (bf16 or fp16)")
    memory_gb_s: float = Field(gt=0, description="peak bandwidth of its memory")
    memory_gb: float = Field(gt=0)
    share: float = Field(
        gt=0, le=1, description="sum of the times at both peaks, divided by the time of training"
    )
    step_ms: float = Field(
        0.0, ge=0, description="shortest optimizer step: the launch of its kernels"
    )
    sync_ms: float = Field(0.0, ge=0, description="one synchronization of the devices")
    link_gb_s: float = Field(gt=0, description="all-reduce bandwidth between devices of a node")
    contention: float = Field(
        ge=0, description="relative loss for each further device (serial part)"
    )
    watts: float = Field(gt=0)
    price: float = Field(ge=0, description="of a device-hour, in cost.currency")


class StrategyCost(Strict):
    """Cost of distributing the work, in addition to the transfer of bytes."""

    share: float = Field(1.0, gt=0, le=1, description="share of the speed that remains")
    syncs: float = Field(0, ge=0, description="synchronizations of a step, `sync_ms` each")


class Network(Strict):
    """Cost of one image's forward pass; counted by `python -m bench.networks`."""

    size: int = Field(ge=1, description="pixels of a side of the counted image")
    gflops: float = Field(gt=0, description="operations; a multiply-add counts two")
    activations_m: float = Field(gt=0, description="elements of all layers' outputs, millions")
    parameters_m: float = Field(gt=0, description="millions")
    share: float = Field(
        1.0, gt=0, description="factor on the device's share for this kind of layers"
    )


class Expected(Strict):
    """Expected images of a study that is not indexed yet."""

    images: int = Field(ge=1, description="used images of all splits")
    mb_each: float = Field(gt=0, description="of a raw file")
    per_core: float = Field(
        gt=0, description="images per second that a core decodes and preprocesses"
    )
    with_boxes: float = Field(
        1.0, gt=0, le=1, description="share of the images that detection is trained on"
    )


class Cost(Strict):
    """Numbers of the cost model: time, memory, disk and money that planned runs need."""

    gpu: str = Field("a100", description="kind of `devices` of runs on GPUs")
    cpu: str = Field("core", description="kind of `devices` of runs on CPUs")
    currency: str = "USD"
    devices: dict[str, DeviceKind] = {}
    networks: dict[str, Network] = {}
    unknown: Network = Field(
        Network(size=224, gflops=10, activations_m=80, parameters_m=40, share=0.6),
        description="used for networks that `networks` lacks; such estimates have a note",
    )
    expected: dict[str, Expected] = Field({}, description="by the study that owns the raw images")
    unknown_images: Expected = Expected(images=10_000, mb_each=1.0, per_core=50)
    network_gb_s: float = Field(20.0, gt=0, description="all-reduce bandwidth between nodes")
    exposed: float = Field(
        0.3, ge=0, le=1, description="share of the all-reduce that backward does not hide"
    )
    trained: dict[Literal["all", "last_block", "last_layer"], float] = Field(
        {"all": 3.0, "last_block": 1.6, "last_layer": 1.1},
        description="cost of a training step in forward passes",
    )
    strategies: dict[str, StrategyCost] = {
        name: StrategyCost(share=strategy.costs.share, syncs=strategy.costs.syncs)
        for name, strategy in STRATEGIES.items()
    }
    load_per_process: float = Field(
        10_000, gt=0, description="images per second that a process reads from shards"
    )
    start_s: float = Field(
        30, ge=0, description="start of a training job with container and imports"
    )
    index_per_core: float = Field(
        300, gt=0, description="small files per second that a core hashes and checks"
    )
    hash_mb_s: float = Field(100, gt=0, description="that one core reads and hashes")
    evaluate_us: float = Field(100, gt=0, description="evaluation of a test image, class and seed")
    report_us: float = Field(
        100, gt=0, description="report, of each image, plus a minute for figures"
    )
    rank_mb: float = Field(
        900, gt=0, description="host memory of a training process without its network"
    )
    cuda_mb: float = Field(3000, ge=0, description="host memory that CUDA adds to a process")
    launcher_mb: float = Field(700, ge=0)
    host_gb: float = Field(256, gt=0, description="memory of a node")
    file_system_gb_s: float = Field(
        5, gt=0, description="that all nodes together read from shared storage"
    )
    margin: float = Field(1.25, ge=1, description="requested memory divided by the estimate")
    target: float = Field(
        0.95, gt=0, le=1, description="share of the best validation accuracy that is the target"
    )
